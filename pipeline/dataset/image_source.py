"""A folder or a zip archive of files, read by name; the zip is never unpacked to disk."""

import errno
import zlib
from contextlib import suppress
from pathlib import Path
from threading import Lock
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pipeline.errors import UserError
from pipeline.io.regular_files import is_hidden, read_file, visible_files

MAX_ZIP_BYTES = 2 * 2**30
"""Bytes that a zip may unpack to: the official one holds 0.25 GB."""
METHODS = ZIP_STORED, ZIP_DEFLATED
ENCRYPTED, UTF_8_NAME = 1, 0x800
"""Flags of a member."""
DAMAGE = BadZipFile, EOFError, NotImplementedError, OSError, ValueError, zlib.error
"""What zipfile raises where a member is damaged; of OSErrors EINVAL, at an impossible offset."""


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
    """Members of a zip."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive, self._lock = ZipFile(path), Lock()
        except (BadZipFile, NotImplementedError, ValueError) as error:
            raise UserError(
                f"{path} is not a whole zip file ({error}); fetch it again, or unpack it if it is "
                "another kind of archive, and name the folder with -d"
            ) from error
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}; replace it by a readable file"
            ) from error
        members = self._archive.infolist()
        self._members = {_member_name(member): member for member in members}
        if len(self._members) < len(members):
            raise UserError(f"{path} holds two members of one name; fetch the archive again")
        for name, member in self._members.items():
            if member.flag_bits & ENCRYPTED or member.compress_type not in METHODS:
                raise UserError(
                    f"{name} in {path} is encrypted or packed in an unusual way; unpack the zip, "
                    "and name the folder"
                )
        if sum(member.file_size for member in members) > MAX_ZIP_BYTES:
            raise UserError(f"{path} unpacks to over 2 GiB; unpack it, and name the folder")
        self.names = sorted(
            name
            for name in self._members
            if name and not name.endswith("/") and not any(map(is_hidden, name.split("/")))
        )

    def read(self, name: str) -> bytes:
        """Return a whole file (see ImageSource); zipfile checks its name and its CRC-32."""
        member = self._members[name]
        try:
            # before Python 3.12.9 and 3.13.2, open() may seek from where another read ended
            with self._lock, self._archive.open(member) as file:
                return file.read(member.file_size + 1)  # without a size, all of a zip bomb
        except DAMAGE as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise UserError(
                    f"cannot read {self._path}: {error.strerror or error}; try again"
                ) from error
            raise UserError(
                f"{name} in {self._path} is damaged; fetch the archive again"
            ) from error


ImageSource = FolderSource | ZipSource
"""Where a data set lies. ``names`` are its files' paths with "/", sorted, without hidden ones, and
``read`` returns a whole file, also to several threads at once, or raises a UserError."""


def open_source(path: Path) -> ImageSource:
    """Open a folder or a zip.

    Raises:
        UserError: There is neither, or the zip is damaged or another kind of archive.
    """
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return ZipSource(path)
    raise UserError(
        f"no data set at {path}; name the tiny-imagenet-200 folder or the official .zip with -d, "
        "or fetch it with --download"
    )


def _member_name(member: ZipInfo) -> str:
    """Return a member's path; PowerShell writes backslashes, macOS UTF-8 without saying so, and tar
    names what it packs of the folder "." by it."""
    name = member.filename
    if not member.flag_bits & UTF_8_NAME:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/").removeprefix("./")
