"""The scripts' command line: exit statuses, errors, help, checks of numbers, proposed commands."""

import argparse
import glob
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from pipeline.backend import ignore_host_settings
from pipeline.errors import UserError, is_out_of_memory
from pipeline.printing import ON_WINDOWS, lost_output, open_outputs, say
from pipeline.signals import Stopped, ended_by_signals

SCRIPTS = Path(__file__).resolve().parent.parent
BAD_INPUT = 2


def run_script(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run ``main``, and end the process with the status of its outcome."""
    if not all(hasattr(stream, "buffer") for stream in (sys.stdout, sys.stderr) if stream):
        sys.stderr.write(
            "error: run this script in a process of its own; in a notebook, with !python\n"
        )
        sys.exit(BAD_INPUT)
    open_outputs()
    if ON_WINDOWS:
        sys.argv[1:] = _expanded(sys.argv[1:])
    ignore_host_settings()
    try:
        with ended_by_signals():
            main(None)
        if lost := lost_output():
            raise UserError(f"cannot write to stdout: {lost}; all else is done, redirect stdout")
    except UserError as error:
        _end(BAD_INPUT, f"error: {error}")
    except OSError as error:
        if error.filename is None:
            raise
        _end(BAD_INPUT, f"error: cannot use {error.filename}: {error.strerror}; name another")
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _end(
            BAD_INPUT,
            "error: this machine or its device is out of memory; end other programs, raise the "
            "limit (ulimit -v), or give a smaller -b (when training: to a fresh run)",
        )
    except Stopped as stop:
        say(*stop.last_words, error=True)
        _end_at_once(stop.status)  # Python's end would wait for XLA's threads, and crash


def _expanded(words: Sequence[str]) -> list[str]:
    """Expand glob patterns as Unix shells do; keep a pattern that matches nothing."""
    found = ((sorted(glob.glob(w)) if "*" in w else []) or [w] for w in words)  # noqa: PTH207
    return [word for matches in found for word in matches]


def _end(status: int, *lines: str) -> NoReturn:
    """Print ``lines`` on stderr and end; at once where JAX would wait for other processes."""
    say(*lines, error=True)
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        _end_at_once(status)
    sys.exit(status)


def _end_at_once(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults other than None and False, and leaves the example as it is written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line, without the usage, which ``--help`` has."""
        _end(BAD_INPUT, f"error: {message}; --help explains each flag")


def new_parser(description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser whose help ends with an example."""
    return _Parser(
        description=description, epilog=f"example:\n  {example}", formatter_class=HelpFormatter
    )


def number(kind: Any) -> Callable[[str], float]:
    """Return an argparse type for a ``kind`` of number that has a range, such as ``Count``."""
    base, bounds = get_args(kind)
    what = "whole number" if base is int else "number"

    def parse(text: str) -> float:
        try:
            value = base(text)
        except ValueError:
            value = math.nan
        if not bounds.ge <= value <= bounds.le:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a {what} from {bounds.ge} to {bounds.le}"
            )
        return value

    return parse


def shell_command(script: str, flags: Mapping[str, object]) -> str:
    """Return the command that runs ``script`` from the current folder, on this process's backend.

    A flag whose value is True stands alone; one of None or False is left out.
    """
    words = ["python", script if Path.cwd() == SCRIPTS else str(SCRIPTS / script)]
    for flag, value in flags.items():
        if value is True:
            words.append(flag)
        elif str(value).startswith("-"):
            words.append(f"{flag}={value}")
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return backend_setting() + " ".join(map(quote, words))


def quote(word: object) -> str:
    r"""Return ``word`` as a shell reads it, ``$'a\x0ab'`` where it holds what cannot be seen."""
    text = str(word)
    if ON_WINDOWS:  # cmd knows no single quotes; Python takes "/" there too
        text = text.replace("\\", "/")
        return text if re.fullmatch(r"[\w./:=+-]+", text) else f'"{text}"'
    if text.isprintable():
        return shlex.quote(text)
    plain = set(range(32, 127)) - set(b"'\\")
    seen = (chr(b) if b in plain else rf"\x{b:02x}" for b in os.fsencode(text))
    return f"$'{''.join(seen)}'"


def backend_setting() -> str:
    """Return the prefix that makes a command use this process's backend; "" for the default.

    Windows' shells have no such prefix: there the user has set the variable for the whole session.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return "" if backend == "tensorflow" or ON_WINDOWS else f"KERAS_BACKEND={backend} "
