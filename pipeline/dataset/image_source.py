"""A folder or a zip archive of files, read by name; the zip is never unpacked to disk."""

import mmap
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pipeline.errors import UserError
from pipeline.plain_file import is_hidden, read_file, visible_files

LARGEST_ZIP_CONTENT = 2 * 2**30
"""Bytes that a zip may unpack to: the official one holds 0.25 GB."""
LINK = 0o12
"""The kind of file in the uppermost four bits of its mode, and so of its attributes."""
METHODS = ZIP_STORED, ZIP_DEFLATED
ENCRYPTED, UTF_8_NAME = 1, 0x800
"""Flags of a member."""
LOCAL_HEADER = struct.Struct("<26x2H")
"""Ends in the lengths of the name and the extra field that follow (APPNOTE, section 4.3.7)."""
OTHER_ARCHIVES = {
    "7z": (0, b"7z\xbc\xaf\x27\x1c"),
    "rar": (0, b"Rar!\x1a\x07"),
    "gzip": (0, b"\x1f\x8b"),
    "bzip2": (0, b"BZh"),
    "xz": (0, b"\xfd7zXZ\0"),
    "zstd": (0, b"\x28\xb5\x2f\xfd"),
    "tar": (257, b"ustar"),
}
"""The offset and the bytes of each kind's magic number."""


class FolderSource:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            self.names = sorted(visible_files(str(root)))
        except OSError as error:
            raise UserError(
                f"cannot read {error.filename}: {error.strerror}; make it readable, or remove it"
            ) from error

    def read(self, name: str) -> bytes:
        """Return a whole file (see ImageSource)."""
        path = f"{self._root}/{name}"
        try:
            return read_file(path)
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}; replace it by a readable file"
            ) from error


class ZipSource:
    """Members of a zip, read through a memory map: ``ZipFile.read`` makes threads take turns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            _refuse_other_archives(path)
            with path.open("rb") as file, ZipFile(file) as archive:
                members = archive.infolist()
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (BadZipFile, NotImplementedError, ValueError) as error:
            raise UserError(f"{path} is not a whole zip file ({error}); fetch it again") from error
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}; replace it by a readable file"
            ) from error
        self._members = {_member_name(member): member for member in members}
        if len(self._members) < len(members):
            raise UserError(f"{path} holds two members of one name; fetch the archive again")
        self._check_safe()
        self.names = sorted(
            name
            for name in self._members
            if name and not name.endswith("/") and not any(map(is_hidden, name.split("/")))
        )

    def read(self, name: str) -> bytes:
        """Return a whole file (see ImageSource)."""
        try:
            return _unpack(self._bytes, self._members[name])
        except (ValueError, struct.error, zlib.error) as error:
            raise UserError(
                f"{name} in {self._path} is damaged; fetch the archive again"
            ) from error

    def _check_safe(self) -> None:
        for name, member in self._members.items():
            if name.startswith("/") or ".." in name.split("/"):
                raise UserError(
                    f"{self._path} is unsafe: {name!r} points outside it; fetch it again"
                )
            if member.external_attr >> 28 == LINK:
                raise UserError(f"{self._path} is unsafe: {name!r} is a link; fetch it again")
            if member.flag_bits & ENCRYPTED or member.compress_type not in METHODS:
                raise UserError(
                    f"{name} in {self._path} is encrypted or packed in an unusual way; "
                    "unpack it, and name the folder"
                )
        members = self._members.values()
        if sum(member.file_size for member in members) > LARGEST_ZIP_CONTENT:
            raise UserError(f"{self._path} unpacks to over 2 GiB; unpack it, and name the folder")
        if sum(member.compress_size for member in members) > len(self._bytes):
            raise UserError(f"{self._path} is unsafe: members lie over one another; fetch it again")


ImageSource = FolderSource | ZipSource
"""Where a data set lies. ``names`` are its files' paths with "/", sorted, without hidden ones, and
``read`` returns a whole file, also to several threads at once, or raises a UserError."""


def open_source(path: Path) -> ImageSource:
    """Open a folder or a zip.

    Raises:
        UserError: There is neither, or the zip is damaged, unsafe or another kind of archive.
    """
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return ZipSource(path)
    raise UserError(
        f"no data set at {path}; name the tiny-imagenet-200 folder or the official .zip with -d, "
        "or fetch it with --download"
    )


def _refuse_other_archives(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(512)
    for kind, (offset, magic) in OTHER_ARCHIVES.items():
        if start.startswith(magic, offset):
            raise UserError(
                f"{path} is a {kind} archive, not a zip; unpack it, and name the folder with -d"
            )


def _member_name(member: ZipInfo) -> str:
    """Return a member's path; PowerShell writes backslashes, macOS UTF-8 without saying so, and tar
    names what it packs of the folder "." by it."""
    name = member.filename
    if not member.flag_bits & UTF_8_NAME:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/").removeprefix("./")


def _unpack(archive: mmap.mmap, member: ZipInfo) -> bytes:
    """Return a member's contents, which lie behind its local header.

    Raises:
        ValueError, struct.error, zlib.error: The header lies outside the archive or names another
            file, and so an image would get a wrong label; or the contents are damaged.
    """
    if archive.size() < len(archive):  # reading on would kill the process
        raise ValueError("the archive was cut short meanwhile")
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
