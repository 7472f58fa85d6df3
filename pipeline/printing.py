"""Output of the scripts: escapes text, and survives a broken pipe or a full disk."""

import errno
import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

ON_WINDOWS = os.name == "nt"
READER_ENDED = (errno.EPIPE, errno.EINVAL) if ON_WINDOWS else (errno.EPIPE,)


def say(*lines: object, error: bool = False) -> None:
    """Print each of ``lines`` on a line of its own, on stderr for an ``error``."""
    output = sys.stderr if error else sys.stdout
    for line in lines:
        print(printable(line), file=output, flush=True)


def printable(text: object) -> str:
    r"""Return ``text`` with non-printable characters escaped, such as ``\n`` and ``\x1b``.

    Foreign file or class names could otherwise move the cursor or forge a script's own lines.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def clear_line() -> None:
    """Clear the terminal's line of a bar, to print text there."""
    if sys.stderr.isatty():
        blank = " " * (columns() - 1)
        sys.stderr.write(f"\r{blank}\r")  # not every console knows escape sequences
        sys.stderr.flush()


def columns() -> int:
    """Return the width of stderr's terminal; ``shutil`` asks stdout, which may be a pipe."""
    asked = shutil.get_terminal_size().columns
    if "COLUMNS" in os.environ:
        return asked
    with suppress(OSError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or asked  # 0: it does not know
    return asked


def end_process(status: int, terminal: int, *lines: str) -> NoReturn:
    """End from any thread, without clean-up, after ``lines``.

    ``terminal`` is stderr's descriptor, duplicated, for stderr may be silenced at that moment.
    """
    try:
        clear_line()
        text = "".join(f"{line}\n" for line in lines)
        os.write(terminal, text.encode("utf-8", "backslashreplace"))
    finally:
        os._exit(status)


class Output(io.RawIOBase):
    """A standard stream that drops what it cannot write, and remembers why in ``lost``.

    The buffer is inside: one around it would print a line again that a signal interrupted.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        super().__init__()
        self._stream = stream
        self.writable, self.fileno, self.isatty = stream.writable, stream.fileno, stream.isatty
        self.lost: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write ``data``, or drop it."""
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            self.lost = error
        return len(data)


def open_outputs() -> None:
    """Make stdout and stderr take any text, also when closed or when their readers end.

    A closed descriptor is opened on the null device: the next file opened would otherwise take its
    number, and receive what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        given = getattr(sys, name)  # None where it was closed
        stream = given.buffer if given else io.BufferedWriter(io.FileIO(number, "w"))
        encoding = given.encoding if given else "utf-8"
        setattr(sys, name, _text_output(stream, encoding))


def _text_output(stream: io.BufferedIOBase, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(Output(stream), encoding, "backslashreplace", line_buffering=True)


@contextmanager
def silence(*descriptors: int) -> Iterator[list[int]]:
    """Redirect ``descriptors`` to the null device; yield duplicates of the original ones."""
    sys.stdout.flush()
    sys.stderr.flush()
    given = [os.dup(number) for number in descriptors]
    with Path(os.devnull).open("wb") as null:
        for number in descriptors:
            os.dup2(null.fileno(), number)
    try:
        yield given
    finally:
        for number, copy in zip(descriptors, given, strict=True):
            os.dup2(copy, number)
            os.close(copy)


@contextmanager
def without_library_messages() -> Iterator[None]:
    """Drop what C libraries write to stderr, such as libpng's warnings on colour profiles."""
    given = sys.stderr
    with silence(2) as (descriptor,):
        own = os.fdopen(descriptor, "wb", closefd=False)
        sys.stderr = _text_output(own, given.encoding)
        try:
            yield
        finally:
            sys.stderr = given


def lost_output() -> str:
    """Return why output to stdout is lost; "" where none is, or its reader ended."""
    lost = sys.stdout.buffer.lost
    return "" if lost is None or lost.errno in READER_ENDED else lost.strerror
