"""A folder or a zip archive of files, read by name; the zip is never unpacked to disk."""

import mmap
import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pipeline.errors import UserError

LARGEST_ZIP_CONTENT = 2 * 2**30
"""Bytes that a zip may unpack to: the official one holds 0.25 GB."""
LINK = 0o12
"""The kind of file in the uppermost four bits of its mode, and so of its attributes."""
METHODS = ZIP_STORED, ZIP_DEFLATED
ENCRYPTED, UTF_8_NAME = 1, 0x800
"""Flags of a member."""
LOCAL_HEADER = struct.Struct("<26x2H")
"""Ends in the lengths of what follows, a name and an extra field (APPNOTE, section 4.3.7)."""
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

    ``open(path).read()`` makes more of them, and gives the interpreter away at each: decoding
    would take a sixth longer, for threads must ask it back.
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
    """Members of a zip, read through a memory map: ``ZipFile.read`` makes threads take turns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file, ZipFile(file) as archive:
                members = archive.infolist()
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (BadZipFile, NotImplementedError, ValueError) as error:
            raise UserError(f"{path} is not a whole zip file ({error}); fetch it again") from error
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        self._check_safe(members)
        top = _common_folder(member.filename for member in members)
        self._members = {member.filename.removeprefix(top): member for member in members}
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

    def read(self, name: str) -> bytes:
        """See ImageSource."""
        if name not in self._members:
            raise UserError(f"{self._path} holds no {name}")
        try:
            return _unpack(self._bytes, self._members[name])
        except (ValueError, struct.error, zlib.error) as error:
            raise UserError(
                f"{name} in {self._path} is damaged; fetch the archive again"
            ) from error

    def _check_safe(self, members: Sequence[ZipInfo]) -> None:
        for member in members:
            name = member.filename
            if name.startswith("/") or ".." in name.split("/"):
                raise UserError(f"{self._path} is unsafe: {name!r} points outside it")
            if member.external_attr >> 28 == LINK:
                raise UserError(f"{self._path} is unsafe: {name!r} is a link")
            if member.flag_bits & ENCRYPTED or member.compress_type not in METHODS:
                raise UserError(
                    f"{name} in {self._path} is encrypted or packed in an unusual way; "
                    "use the official archive"
                )
        if sum(member.file_size for member in members) > LARGEST_ZIP_CONTENT:
            raise UserError(f"{self._path} unpacks to more than Tiny ImageNet can be; not read")
        if sum(member.compress_size for member in members) > len(self._bytes):
            raise UserError(f"{self._path} is unsafe: members lie over one another")


def _unpack(archive: mmap.mmap, member: ZipInfo) -> bytes:
    """Return a member's contents, which lie behind its local header.

    Raises:
        ValueError, struct.error, zlib.error: The header lies outside the archive or names another
            file, and so an image would get a wrong label; or the contents are damaged.
    """
    name = member.header_offset + LOCAL_HEADER.size
    name_bytes, extra_bytes = LOCAL_HEADER.unpack(archive[member.header_offset : name])
    extra = name + name_bytes
    start = extra + extra_bytes
    encoding = "utf-8" if member.flag_bits & UTF_8_NAME else "cp437"
    if archive[name:extra] != member.orig_filename.encode(encoding):
        raise ValueError("the directory gives another name than the local header")
    data = archive[start : start + member.compress_size]
    if member.compress_type == ZIP_DEFLATED:
        # one byte more than there should be, so that a zip bomb unpacks no further
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.file_size + 1)
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise ValueError("its size or CRC-32 is not what the directory says")
    return data


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
