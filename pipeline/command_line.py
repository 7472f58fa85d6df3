"""What makes the four scripts behave alike: exit statuses, errors, signals, quiet imports.

The only module of the package that knows about the command line.
"""

import argparse
import importlib
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType

from pipeline.errors import UserError

BAD_INPUT, INTERRUPTED, TERMINATED = 2, 130, 143


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt, no ``except Exception`` may swallow it."""


def run_script(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run ``main`` and end the process with the status that the outcome calls for."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Terminated:
        print("stopped by SIGTERM", file=sys.stderr)
        sys.exit(TERMINATED)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows every default that is a value, and leaves the example as it was written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def new_parser(description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser whose help ends with an example."""
    return argparse.ArgumentParser(
        description=description, epilog=f"example:\n  {example}", formatter_class=HelpFormatter
    )


def positive_integer(text: str) -> int:
    """Parse 1, 2, 3, … for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def seed_number(text: str) -> int:
    """Parse a seed, 0 to 2**32 - 1, for argparse."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 4294967295")
    return int(text)


def positive_rate(text: str) -> float:
    """Parse a learning rate, positive and finite, for argparse."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return rate


def import_keras() -> ModuleType:
    """Import Keras and its backend without their start-up noise, set up for speed.

    oneDNN's kernels are not TensorFlow's default on every CPU, and must be asked for before
    the import.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        sys.meta_path.insert(0, _WithoutTensorFlow())
    with _silent_stderr():
        keras = importlib.import_module("keras")
        _ = keras.ops.zeros(1)  # TensorFlow reports its devices when it is first used
    return keras


class _WithoutTensorFlow:
    """Hides an installed TensorFlow: on other backends Keras imports it for type checks alone."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "tensorflow":
            raise ModuleNotFoundError("TensorFlow is not used with this backend", name=name)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hold back what libraries write to file descriptor 2; show it if they fail."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except BaseException:
            noise.seek(0)
            os.write(terminal, noise.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def existing_file(path: Path, hint: str) -> Path:
    """Return ``path`` if it is a file.

    Raises:
        UserError: It is not; ``hint`` says what to do.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}; {hint}")
    return path
