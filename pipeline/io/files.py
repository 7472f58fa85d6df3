"""Files that are either complete or absent, and folders that one process at a time writes.

A crash, a full disk or a second process may come at any moment. Everything that is read again
goes through these helpers, so none of it can be left half written.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import UserError

UNFINISHED = ".unfinished-"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` if all went well.

    The temporary file keeps the suffix of ``path``, for libraries that choose a format by it.
    Its bytes reach the disk before the rename, so that not even a power cut shows half a file.

    Raises:
        UserError: The folder cannot be made or written, or the disk is full.
    """
    with atomic_writes([path]) as (unfinished,):
        yield unfinished


@contextmanager
def atomic_writes(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Do as ``atomic_write`` for several files, and rename none before all are on the disk."""
    paths = list(paths)
    unfinished = [path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}") for path in paths]
    with reported_as_user_errors(paths[0] if len(paths) == 1 else paths[0].parent):
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            for temporary in unfinished:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            for temporary, path in zip(unfinished, paths, strict=True):
                temporary.replace(path)
        finally:
            for temporary in unfinished:
                temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write ``values`` as indented JSON, whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table whose first row names its columns to ``path``, that of an atomic write."""
    # surrogateescape: a file name that is not UTF-8 keeps its bytes
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@contextmanager
def reported_as_user_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write ``path`` into a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise UserError(
            f"cannot write {path}: {reason}; free some space, or choose a folder you may write to"
        ) from error


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process, and delete what a killed one left half written there.

    Raises:
        UserError: As ``file_lock``, or the folder cannot be made.
    """
    with reported_as_user_errors(folder):
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
    with reported_as_user_errors(lock_file):
        lock = FileLock(lock_file, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"another process is writing to {lock_file.parent}; wait for it, or name another "
                "folder"
            ) from None
    try:
        yield
    finally:
        lock.release()
