"""Read regular files, no pipe or device, which may never end; and list those that are visible."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Opening a pipe that nobody writes to would wait for ever."""
MAX_FILE_BYTES = 2**28
"""Bytes; Tiny ImageNet's files are about 2 kB."""
SYSTEM_FOLDERS = {
    "__MACOSX", "@eaDir", "#recycle", "#snapshot", "lost+found", "$RECYCLE.BIN",
    "System Volume Information",
}  # fmt: skip
"""Of archives by macOS, of Synology's disks, of ext4's and of Windows'."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is the system's; macOS writes ``._photo.jpg``."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def visible_files(root: str) -> Iterator[str]:
    """Yield the path of each visible file below ``root``; follows links, but not in cycles."""
    waiting = [("", frozenset())]  # folders, with those that hold them
    while waiting:
        folder, holders = waiting.pop()
        status = Path(root, folder).stat()
        this = status.st_dev, status.st_ino
        if status.st_ino and this in holders:  # some drives on Windows number no files
            continue
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    waiting.append((f"{folder}{entry.name}/", holders | {this}))
                else:
                    yield folder + entry.name


def read_file(path: str | Path) -> bytes:
    """Read a regular file by few system calls.

    ``open(path).read()`` makes more, and releases the GIL at each: decoding would take a sixth
    longer.

    Raises:
        OSError: It cannot be read, is a pipe, a device or the like, or too large.
    """
    file = os.open(path, READ_ONLY)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise OSError(0, f"it is larger than {MAX_FILE_BYTES:,} bytes")
        data = os.read(file, status.st_size)
        while len(data) < status.st_size and (more := os.read(file, status.st_size - len(data))):
            data += more
        return data
    finally:
        os.close(file)
