"""A folder or a zip archive of files, read by name; the zip is never unpacked to disk."""

import mmap
import os
import struct
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile, ZipFile, ZipInfo

from pipeline.errors import UserError

LARGEST_ZIP_CONTENT = 2 * 2**30
"""Bytes that a zip may unpack to: the official one holds 0.25 GB."""
LOCAL_HEADER_BYTES = 30
STORED, DEFLATED = 0, 8
READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)
AT_ONCE = 2**14
"""Bytes read at once; Tiny ImageNet's files are about 2 kB."""
UTF_8_NAME = 0x800


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
            with ZipFile(path) as archive:
                members = archive.infolist()
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (BadZipFile, ValueError, NotImplementedError) as error:
            raise UserError(f"{path} is not a whole zip file ({error}); fetch it again") from error
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        self._check_safe(members)
        top = _common_folder(members)
        self._members = {member.filename.removeprefix(top): member for member in members}
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
        except (zlib.error, struct.error, ValueError) as error:
            raise self._damaged(name) from error
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
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

    def _unpack(self, member: ZipInfo) -> bytes:
        header = member.header_offset
        name_bytes, extra_bytes = struct.unpack_from("<HH", self._bytes, header + 26)
        name = header + LOCAL_HEADER_BYTES
        if self._bytes[name : name + name_bytes] != _stored_name(member):
            raise ValueError("the directory gives another name than the member's own header")
        start = name + name_bytes + extra_bytes
        packed = self._bytes[start : start + member.compress_size]
        if member.compress_type == STORED:
            return packed
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max(member.file_size, 1))

    def _damaged(self, name: str) -> UserError:
        return UserError(f"{name} in {self._path} is damaged; fetch the archive again")

    def _check_safe(self, members: list[ZipInfo]) -> None:
        for member in members:
            if member.filename.startswith("/") or ".." in member.filename.split("/"):
                raise UserError(f"{self._path} is unsafe: {member.filename!r} points outside it")
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise UserError(f"{self._path} is unsafe: {member.filename!r} is a link")
            if member.flag_bits & 1 or member.compress_type not in (STORED, DEFLATED):
                raise UserError(
                    f"{member.filename} in {self._path} is encrypted or packed in an unusual way; "
                    "use the official archive"
                )
        if sum(member.file_size for member in members) > LARGEST_ZIP_CONTENT:
            raise UserError(f"{self._path} unpacks to more than Tiny ImageNet can be; not read")


def _stored_name(member: ZipInfo) -> bytes:
    """Return the bytes that a member's name is written as."""
    if member.flag_bits & UTF_8_NAME or member.orig_filename.isascii():
        return member.orig_filename.encode()  # at a tenth of the other's price
    return member.orig_filename.encode("cp437")


def _common_folder(members: list[ZipInfo]) -> str:
    """Return the folder, "" or "NAME/", that holds wnids.txt."""
    places = [m.filename.removesuffix("wnids.txt") for m in members
              if m.filename.endswith("wnids.txt")]  # fmt: skip
    return min((p for p in places if p == "" or p.count("/") == 1), key=len, default="")
