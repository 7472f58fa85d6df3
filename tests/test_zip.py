"""A zip as a source of images: what is read of a sound one, and what is refused."""

import errno
import re
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.dataset.image_source import open_source
from pipeline.errors import UserError

ENTRY_BYTES = zipfile.sizeCentralDir
"""A member's entry in the directory, before its name."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.mkdir("folder")
        file.writestr("folder/plain.txt", "stored")
        file.writestr("folder/packed.txt", "again and " * 100, zipfile.ZIP_DEFLATED)
        file.writestr("empty", "")
        file.writestr("Übung/猫.txt", "a name in UTF-8")
        with_more = zipfile.ZipInfo("with-more")
        with_more.extra = struct.pack("<HH4s", 0x5455, 4, b"time")
        with_more.comment = b"a comment of its own"
        file.writestr(with_more, "data")
    return path


def check_like_zipfile(path: Path) -> None:
    source = open_source(path)
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            assert source.read(name) == file.read(name)


def test_like_zipfile(archive: Path) -> None:
    check_like_zipfile(archive)
    source = open_source(archive)
    assert source.names == [
        "empty", "folder/packed.txt", "folder/plain.txt", "with-more", "Übung/猫.txt"
    ]  # fmt: skip


def test_threads_take_turns(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In some versions of Python 3.12 and 3.13 one open() moves the file's position for another."""
    open_member, opening = zipfile.ZipFile.open, []

    def slow_open(*arguments: object) -> object:
        opening.append(1)
        time.sleep(0.01)
        assert len(opening) == 1
        opening.clear()
        return open_member(*arguments)

    monkeypatch.setattr(zipfile.ZipFile, "open", slow_open)
    read = open_source(archive).read
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(read, ["with-more"] * 20)) == {b"data"}


def test_disk_that_fails_is_not_called_damage(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    source = open_source(archive)
    monkeypatch.setattr(zipfile.ZipFile, "open", fail)
    with pytest.raises(UserError, match=r"cannot read .*some\.zip: Input/output error"):
        source.read("empty")


def test_name_of_an_old_archive(archive: Path) -> None:
    """Where no flag says UTF-8, names are in the first PC's code page."""
    archive.write_bytes(archive.read_bytes().replace(b"plain.txt", b"pl\x84in.txt"))
    check_like_zipfile(archive)
    assert open_source(archive).read("folder/pläin.txt") == b"stored"


def test_names_in_utf_8_without_the_flag(archive: Path) -> None:
    """As macOS writes them."""
    data = bytearray(archive.read_bytes())
    for header, flags in ((zipfile.stringFileHeader, 6), (zipfile.stringCentralDir, 8)):
        for match in re.finditer(re.escape(header), bytes(data)):
            data[match.start() + flags + 1] &= ~0x08
    archive.write_bytes(data)
    with zipfile.ZipFile(archive) as file:
        assert "Übung/猫.txt" not in file.namelist()
    assert open_source(archive).read("Übung/猫.txt")


def test_archive_behind_something_else(archive: Path) -> None:
    archive.write_bytes(b"#!/bin/sh, or what unpacks itself\n" + archive.read_bytes())
    check_like_zipfile(archive)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"x" * 100,
        lambda data: zipfile.stringEndArchive,
        lambda data: data.replace(zipfile.stringCentralDir, b"PK\1\3", 1),
        lambda data: data.replace("猫".encode(), b"\xff\xff\xff"),
    ],
)
def test_damaged_directory(archive: Path, spoil: Callable[[bytes], bytes]) -> None:
    archive.write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(UserError, match=r"some\.zip is not a whole zip .* another kind of archive"):
        open_source(archive)


@pytest.mark.parametrize("left", [20, ENTRY_BYTES - 1])
def test_last_entry_cut_short(archive: Path, left: int) -> None:
    data = archive.read_bytes()
    start = data.index(zipfile.stringCentralDir)
    cut = data.rindex(zipfile.stringCentralDir) + left
    end = struct.pack("<4s8x2IH", zipfile.stringEndArchive, cut - start, start, 0)
    archive.write_bytes(data[:cut] + end)
    with pytest.raises(UserError, match="not a whole zip file"):
        open_source(archive)


def test_beginning_that_is_missing(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[45:])
    with pytest.raises(UserError, match=r"folder/plain.txt .* is damaged"):
        open_source(archive).read("folder/plain.txt")


def with_entry(path: Path, name: bytes, place: int, layout: str, value: int) -> Path:
    """Change a number in the directory's entry of a member."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.rindex(name) - ENTRY_BYTES + place, value)
    path.write_bytes(data)
    return path


@contextmanager
def little_memory() -> Iterator[None]:
    """Leave 64 MiB to what this process may still ask for."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**26, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("size", [0, 10, 899])
def test_wrong_size_of_contents(archive: Path, size: int) -> None:
    source = open_source(with_entry(archive, b"folder/packed.txt", 24, "<I", size))
    with pytest.raises(UserError, match=r"folder/packed.txt .* is damaged"):
        source.read("folder/packed.txt")


@pytest.mark.parametrize("size", [1001, 2**31 - 2000])
def test_size_above_that_of_the_contents(archive: Path, size: int) -> None:
    """2 GiB would find no room in this much memory; it is not asked for."""
    source = open_source(with_entry(archive, b"folder/packed.txt", 24, "<I", size))
    with little_memory():
        assert source.read("folder/packed.txt") == b"again and " * 100


def test_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    """128 MiB come out of what says that it is 10 bytes; no more than those are unpacked."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb", bytes(2**27))
        file.filelist[-1].file_size = 10
    source = open_source(path)
    with little_memory(), pytest.raises(UserError, match=r"bomb .* is damaged"):
        source.read("bomb")


def test_header_outside_the_archive(archive: Path) -> None:
    source = open_source(with_entry(archive, b"empty", 42, "<I", 2**31))
    with pytest.raises(UserError, match=r"empty .* is damaged"):
        source.read("empty")


def test_name_that_only_the_directory_gives(archive: Path) -> None:
    """An image's class is part of its name: one flipped bit would make it another's."""
    data = archive.read_bytes()
    place = data.rindex(b"folder/plain.txt")
    archive.write_bytes(data[:place] + b"folder/plaim.txt" + data[place + 16 :])
    with pytest.raises(UserError, match=r"folder/plaim.txt .* is damaged"):
        open_source(archive).read("folder/plaim.txt")


def test_two_members_of_one_name(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("empty", "not empty")
    with pytest.raises(UserError, match="two members of one name"):
        open_source(archive)


def with_wide_offset(path: Path, length: int, value: int) -> Path:
    """Have the last member's offset in a zip64 field, which gives its length as said."""
    with zipfile.ZipFile(path, "a") as file:
        member = zipfile.ZipInfo("wide")
        member.extra = struct.pack("<2HQ", 0x9999, 8, value)
        file.writestr(member, "data")
    data = bytearray(path.read_bytes())
    struct.pack_into("<2H", data, data.rindex(b"wide") + 4, 1, length)
    path.write_bytes(data)
    return with_entry(path, b"wide", 42, "<I", 2**32 - 1)


def test_wide_offset_that_no_file_reaches(archive: Path) -> None:
    source = open_source(with_wide_offset(archive, 8, 2**64 - 1))
    with pytest.raises(UserError, match=r"wide .* is damaged"):
        source.read("wide")


def test_wide_field_cut_short(archive: Path) -> None:
    with pytest.raises(UserError, match="not a whole zip file"):
        open_source(with_wide_offset(archive, 16, 2**64 - 1))


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [(6, 99, "version"), (8, 1, "encrypted"), (10, 12, "unusual way")],
)
def test_refused(archive: Path, place: int, value: int, what: str) -> None:
    with pytest.raises(UserError, match=rf"some\.zip .*{what}"):
        open_source(with_entry(archive, b"folder/packed.txt", place, "<H", value))
