"""A folder or a zip archive of files, read by name; the zip is never unpacked to disk."""

import mmap
import os
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Protocol

from deflate import DeflateError, deflate_decompress

from pipeline.errors import UserError
from pipeline.zip_directory import (
    DEFLATED,
    ENCRYPTED,
    STORED,
    Member,
    read_members,
    read_packed,
)

LARGEST_ZIP_CONTENT = 2 * 2**30
"""Bytes that a zip may unpack to: the official one holds 0.25 GB."""
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

    def read(self, name: str) -> bytes:
        """Return the whole file. Safe from several threads.

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

    def read(self, name: str) -> bytes:
        """See ImageSource."""
        path = f"{self._root}/{name}"
        try:
            return _read_file(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error


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
            members = list(read_members(self._bytes))
        except ValueError as error:
            raise UserError(f"{path} is not a whole zip file ({error}); fetch it again") from error
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        self._check_safe(members)
        top = _common_folder(members)
        self._members = {member.name.removeprefix(top): member for member in members}
        if len(self._members) < len(members):
            raise UserError(f"{path} holds two members of one name; fetch the archive again")
        self._folders = defaultdict(set)
        for name in self._members:
            self._add_to_folder(name.rstrip("/"))

    def names(self, folder: str) -> list[str]:
        """See ImageSource."""
        return sorted(self._folders.get(folder, ()))

    def exists(self, name: str) -> bool:
        """See ImageSource."""
        return name in self._members

    def read(self, name: str) -> bytes:
        """See ImageSource."""
        if name not in self._members:
            raise UserError(f"{self._path} holds no {name}")
        member = self._members[name]
        try:
            data = self._unpack(member)
        except (DeflateError, ValueError) as error:
            raise self._damaged(name) from error
        if len(data) != member.content_bytes or zlib.crc32(data) != member.crc:
            raise self._damaged(name)
        return data

    def _add_to_folder(self, name: str) -> None:
        """List ``name`` in its folder, and that in its own, up to one that is listed already."""
        is_listed = False
        while name and not is_listed:
            folder, _, own_name = name.rpartition("/")
            is_listed = folder in self._folders
            if not own_name.startswith("."):
                self._folders[folder].add(own_name)
            name = folder

    def _unpack(self, member: Member) -> bytes:
        packed = read_packed(self._bytes, member)
        if member.method == STORED:
            return packed
        if member.content_bytes > MOST_PACKED * member.packed_bytes:
            raise ValueError("more would be made room for than can come")
        # With room for nothing, nothing would be looked at.
        return bytes(deflate_decompress(packed, max(member.content_bytes, 1)))

    def _damaged(self, name: str) -> UserError:
        return UserError(f"{name} in {self._path} is damaged; fetch the archive again")

    def _check_safe(self, members: list[Member]) -> None:
        for member in members:
            if member.name.startswith("/") or ".." in member.name.split("/"):
                raise UserError(f"{self._path} is unsafe: {member.name!r} points outside it")
            if (member.attributes >> 16) & 0o170000 == 0o120000:
                raise UserError(f"{self._path} is unsafe: {member.name!r} is a link")
            if member.flags & ENCRYPTED or member.method not in (STORED, DEFLATED):
                raise UserError(
                    f"{member.name} in {self._path} is encrypted or packed in an unusual way; "
                    "use the official archive"
                )
        if sum(member.content_bytes for member in members) > LARGEST_ZIP_CONTENT:
            raise UserError(f"{self._path} unpacks to more than Tiny ImageNet can be; not read")
        if sum(member.packed_bytes for member in members) > len(self._bytes):
            raise UserError(f"{self._path} is unsafe: members lie over one another")


def _common_folder(members: list[Member]) -> str:
    """Return the folder, "" or "NAME/", that holds wnids.txt."""
    places = [m.name.removesuffix("wnids.txt") for m in members if m.name.endswith("wnids.txt")]
    return min((p for p in places if p == "" or p.count("/") == 1), key=len, default="")
