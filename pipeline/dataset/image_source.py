"""A folder or a zip archive of files, read by name; the zip is never unpacked to disk."""

import mmap
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from deflate import DeflateError, deflate_decompress

from pipeline.dataset.zip_directory import (
    DEFLATED,
    ENCRYPTED,
    STORED,
    Member,
    read_members,
    read_packed,
)
from pipeline.errors import UserError

LARGEST_ZIP_CONTENT = 2 * 2**30
"""Bytes that a zip may unpack to: the official one holds 0.25 GB."""
LINK = 0o12
"""The kind of file in the uppermost four bits of its mode, and so of its attributes."""
MOST_PACKED = 1032
"""Bytes that deflate can make of one."""
READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)
AT_ONCE = 2**14
"""Bytes read at once; Tiny ImageNet's files are about 2 kB."""


class ImageSource(Protocol):
    """What ``tiny_imagenet`` needs of the place the data set lies in."""

    def names(self, folder: str) -> list[str]:
        """Return the visible files and folders directly in ``folder``, sorted; [] if none."""

    def exists(self, name: str) -> bool:
        """Tell whether ``name`` is a file."""

    def read(self, name: str) -> tuple[bytes | bytearray, int]:
        """Return the whole file and its CRC-32. Safe from several threads.

        Raises:
            UserError: It cannot be read, or is damaged.
        """


def open_source(path: Path) -> ImageSource:
    """Open a folder or a zip that holds Tiny ImageNet's files, at its top or one folder down.

    Raises:
        UserError: There is neither, or the zip is damaged or unsafe.
    """
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return ZipSource(path)
    raise UserError(
        f"no data set at {path}; name the tiny-imagenet-200 folder or the official .zip with -d, "
        "or fetch it with --download"
    )


class FolderSource:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, folder: str) -> list[str]:
        """See ImageSource."""
        path = self._root / folder
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))

    def exists(self, name: str) -> bool:
        """See ImageSource."""
        return (self._root / name).is_file()

    def read(self, name: str) -> tuple[bytes, int]:
        """See ImageSource."""
        path = f"{self._root}/{name}"
        try:
            data = _read_file(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        return data, zlib.crc32(data)


def _read_file(path: str) -> bytes:
    """Read a small file by few system calls.

    ``open(path).read()`` makes more of them, and gives the interpreter away at each: with threads
    at work, the time goes into asking it back.
    """
    file = os.open(path, READ_ONLY)
    try:
        parts = []
        while part := os.read(file, AT_ONCE):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)


class ZipSource:
    """Members of a zip, read through one memory map, so that threads need not take turns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            members = read_members(self._bytes)
        except ValueError as error:
            raise UserError(f"{path} is not a whole zip file ({error}); fetch it again") from error
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        self._check_safe(members)
        top = _common_folder(name for name, *_ in members)
        self._members = {member[0].removeprefix(top): member for member in members}
        if len(self._members) < len(members):
            raise UserError(f"{path} holds two members of one name; fetch the archive again")
        self._folders = _contents_of_folders(self._members)

    def names(self, folder: str) -> list[str]:
        """See ImageSource."""
        contents = self._folders.get(folder, ())
        return sorted(name for name in contents if name and not name.startswith("."))

    def exists(self, name: str) -> bool:
        """See ImageSource."""
        return name in self._members

    def read(self, name: str) -> tuple[bytes | bytearray, int]:
        """See ImageSource."""
        if name not in self._members:
            raise UserError(f"{self._path} holds no {name}")
        (_, raw_name, _, method, crc, packed_bytes, content_bytes, _,
         header_offset) = self._members[name]  # fmt: skip
        try:
            packed = read_packed(self._bytes, header_offset, raw_name, packed_bytes)
            data = packed if method == STORED else _inflate(packed, content_bytes)
        except (DeflateError, ValueError) as error:
            raise self._damaged(name) from error
        if len(data) != content_bytes or zlib.crc32(data) != crc:
            raise self._damaged(name)
        return data, crc

    def _damaged(self, name: str) -> UserError:
        return UserError(f"{name} in {self._path} is damaged; fetch the archive again")

    def _check_safe(self, members: list[Member]) -> None:
        all_packed = all_content = 0
        for name, _, flags, method, _, packed_bytes, content_bytes, attributes, _ in members:
            if name.startswith("/") or ".." in name.split("/"):
                raise UserError(f"{self._path} is unsafe: {name!r} points outside it")
            if attributes >> 28 == LINK:
                raise UserError(f"{self._path} is unsafe: {name!r} is a link")
            if flags & ENCRYPTED or method not in (STORED, DEFLATED):
                raise UserError(
                    f"{name} in {self._path} is encrypted or packed in an unusual way; "
                    "use the official archive"
                )
            all_packed += packed_bytes
            all_content += content_bytes
        if all_content > LARGEST_ZIP_CONTENT:
            raise UserError(f"{self._path} unpacks to more than Tiny ImageNet can be; not read")
        if all_packed > len(self._bytes):
            raise UserError(f"{self._path} is unsafe: members lie over one another")


def _inflate(packed: bytes, content_bytes: int) -> bytearray:
    if content_bytes > MOST_PACKED * len(packed):
        raise ValueError("more would be made room for than can come")
    # With room for nothing, nothing would be looked at.
    return deflate_decompress(packed, content_bytes or 1)


def _common_folder(names: Iterable[str]) -> str:
    """Return the folder, "" or "NAME/", that holds wnids.txt."""
    places = [name.removesuffix("wnids.txt") for name in names if name.endswith("wnids.txt")]
    return min((p for p in places if p == "" or p.count("/") == 1), key=len, default="")


def _contents_of_folders(names: Iterable[str]) -> dict[str, set[str]]:
    """Return what lies directly in each folder, "" the outermost; a folder's own entry adds ""."""
    contents = defaultdict(set)
    for name in names:
        folder, _, own_name = name.rpartition("/")
        contents[folder].add(own_name)
    for folder in list(contents):
        is_listed = False
        while folder and not is_listed:
            folder, _, own_name = folder.rpartition("/")
            is_listed = folder in contents
            contents[folder].add(own_name)
    return contents
