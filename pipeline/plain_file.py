"""Read regular files: no pipe or device, which may never end; and tell hidden ones."""

import os
import stat
from pathlib import Path

READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Opening a pipe that nobody writes to would wait for ever."""
LARGEST_FILE = 2**28
"""Bytes; Tiny ImageNet's files are about 2 kB."""


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is the system's; macOS writes ``._photo.jpg``."""
    return name.startswith(".") or name == "__MACOSX"


def read_file(path: str | Path) -> bytes:
    """Read a plain file by few system calls.

    ``open(path).read()`` makes more, and releases the GIL at each: decoding would take a sixth
    longer.

    Raises:
        OSError: It cannot be read, is a pipe, a device or the like, or too large.
    """
    file = os.open(path, READ_ONLY)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no plain file")
        if status.st_size > LARGEST_FILE:
            raise OSError(0, f"it is larger than {LARGEST_FILE:,} bytes")
        data = os.read(file, status.st_size)
        while len(data) < status.st_size and (more := os.read(file, status.st_size - len(data))):
            data += more
        return data
    finally:
        os.close(file)
