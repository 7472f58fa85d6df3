"""Atomic writes and file locks: a crash or a second process may come at any moment."""

import csv
import errno
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import UserError, WriteError, first_line
from pipeline.printing import ON_WINDOWS, say

UNFINISHED = ".unfinished-"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n")
MAX_ENDING = 50
"""Characters of a file's name in that of its temporary one: a name has 255 bytes at most."""
PRINTED = Path("/dev/stdout"), Path("/dev/stderr")
"""May be redirected to a file that somebody names as an output too."""
WITHOUT_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What some network file systems answer."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` if all went well.

    The temporary file keeps the suffix of ``path``, for libraries that choose a format by it.
    Its bytes reach the disk before the rename, so that even a power failure leaves no partial file.
    If ``path`` is a symbolic link, its target is replaced.

    Raises:
        UserError: The folder cannot be made or written, the disk is full, or ``path`` is a folder,
            a device or the like.
    """
    with atomic_writes([path]) as (unfinished,):
        yield unfinished


@contextmanager
def atomic_writes(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Do as ``atomic_write`` for several files; rename none before all are on the disk."""
    paths = list(paths)
    with explain_write_errors(paths[0] if len(paths) == 1 else paths[0].parent):
        ends = [_regular_file(path) for path in paths]
        unfinished = [temporary_path(end, path.name) for path, end in zip(paths, ends, strict=True)]
        for path in ends:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            for temporary in unfinished:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            for temporary, path in zip(unfinished, ends, strict=True):
                move_into_place(temporary, path)
        finally:
            for temporary in unfinished:
                temporary.unlink(missing_ok=True)


def temporary_path(path: Path, name: str) -> Path:
    """Return where to write what will be ``path``: beside it, named by the process and ``name``."""
    return path.with_name(f"{UNFINISHED}{os.getpid()}-{name[-MAX_ENDING:]}")


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename; on Windows again for some seconds, for a scanner may have ``path`` open."""
    for pause_s in (0.1, 0.2, 0.4, 0.8, 1.6) if ON_WINDOWS else ():
        try:
            temporary.replace(path)
            return
        except PermissionError:
            time.sleep(pause_s)
    temporary.replace(path)


def _regular_file(path: Path) -> Path:
    """Return where ``path`` leads, if that is a file or nothing yet."""
    end = Path(os.path.realpath(path))
    if not path.is_file() and (path.exists() or os.path.lexists(end)):
        raise UserError(f"cannot write {path}: it is not a regular file; name another place")
    return end


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Check, before the work begins, that each output can be written and would replace no input.

    Files are compared by inode or real path, so links and other spellings are recognised.

    Raises:
        UserError: One cannot, or is an input or another output.
    """
    taken = {_identity(path): path for path in (*inputs, *PRINTED)}
    for path in outputs:
        end = _regular_file(path)
        there = next((folder for folder in end.parents if folder.exists()), end.parent)
        if not (there.is_dir() and os.access(there, os.W_OK)):
            raise UserError(f"cannot write {path}: {there} is no folder to write to; name another")
        other = taken.setdefault(_identity(end), path)
        if other is not path:
            raise UserError(f"{path} would replace {other}, which is in use; name another file")


def _identity(path: Path) -> object:
    status = path.stat() if path.exists() else None
    numbered = status and status.st_ino  # some drives on Windows number no files
    return (status.st_dev, status.st_ino) if numbered else os.path.realpath(path)


def write_json(path: Path, values: Any) -> None:
    """Write ``values`` as indented JSON, whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table whose first row names its columns, whole or not at all.

    A text that a spreadsheet would run as a formula is made plain by an apostrophe before it.
    """
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(csv_bytes(rows))


def csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    """Return the contents of the file that ``write_csv`` writes."""
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows(map(_plain_cell, row) for row in rows)
    # surrogateescape: a file name that is not UTF-8 keeps its bytes
    return table.getvalue().encode("utf-8", "surrogateescape")


def _plain_cell(value: object) -> object:
    if not isinstance(value, str | Path):
        return value
    text = str(value).replace("\r", "\\r")  # which ends a row, and is not quoted
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write ``path`` into a WriteError."""
    try:
        yield
    except OSError as error:
        advice = "free some space, or " if error.errno in WITHOUT_SPACE else ""
        if ON_WINDOWS and isinstance(error, PermissionError):
            advice = "close the program that has it open, or "
        raise WriteError(
            f"cannot write {path}: {error.strerror or first_line(error)}; {advice}name another "
            "place that you can write to, with -o or this output's flag"
        ) from error


@contextmanager
def explain_read_refusal(path: Path) -> Iterator[None]:
    """Turn a lack of permission to read ``path`` into a UserError: nothing is damaged then."""
    try:
        yield
    except PermissionError as error:
        reason = os.strerror(error.errno)
        raise UserError(
            f"cannot read {path}: {reason}; change its permissions, or name another"
        ) from error


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock ``folder`` for this process, and delete a killed one's temporary files there.

    Raises:
        UserError: As ``file_lock``, or the folder cannot be made.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / ".lock"):
        for path in folder.glob(f"{UNFINISHED}*"):
            path.unlink(missing_ok=True)
        yield


@contextmanager
def file_lock(lock_file: Path) -> Iterator[None]:
    """Hold a lock that the system frees when the process ends, however it ends.

    Raises:
        UserError: Another process holds it, or its file cannot be written.
    """
    lock = FileLock(lock_file, timeout=0, fallback_to_soft=False)
    with explain_write_errors(lock_file):
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"another process is writing to {lock_file.parent}; wait for it, or name another "
                "folder"
            ) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            place = f"{lock_file.parent} is on a file system without locks"
            say(f"note: {place}; let no other process write there", error=True)
    try:
        yield
    finally:
        lock.release()
