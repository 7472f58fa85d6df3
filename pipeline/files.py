"""Files that are either complete or absent, and folders that one process at a time writes.

A crash, a full disk or a second process may come at any moment. Every output of the scripts
goes through these two helpers, so none of them can leave half a file behind.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import UserError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` if all went well.

    The temporary file keeps the suffix of ``path``, for libraries that choose a format by it.
    Its bytes reach the disk before the rename, so that not even a power cut shows half a file.

    Raises:
        UserError: The folder cannot be made or written, or the disk is full.
    """
    with reported_as_user_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".unfinished-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write ``values`` as indented JSON, whole or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(values, indent=2) + "\n")


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
def only_writer(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the system frees it when the process ends, however it ends.

    Raises:
        UserError: Another process holds the folder, or it cannot be written.
    """
    with reported_as_user_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"another process is writing to {folder}; wait for it, or name another folder"
            ) from None
    try:
        yield
    finally:
        lock.release()


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left half written in ``folder``; hold the folder first."""
    for path in folder.glob(".unfinished-*"):
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
