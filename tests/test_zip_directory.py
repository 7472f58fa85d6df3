"""The list of a zip's members, held against Python's zipfile."""

import mmap
import resource
import struct
import zipfile
from pathlib import Path

import pytest

from pipeline.dataset.image_source import open_source
from pipeline.dataset.zip_directory import (
    END_SIGNATURE,
    ENTRY,
    ENTRY_SIGNATURE,
    LONGEST_COMMENT,
    WIDE_END_SIGNATURE,
    Member,
    read_members,
)
from pipeline.errors import UserError


def read(path: Path) -> list[Member]:
    with path.open("rb") as file:
        return read_members(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def by_zipfile(path: Path) -> list[Member]:
    with zipfile.ZipFile(path) as archive:
        return [
            (
                member.filename,
                member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437"),
                member.flag_bits,
                member.compress_type,
                member.CRC,
                member.compress_size,
                member.file_size,
                member.external_attr,
                member.header_offset,
            )
            for member in archive.infolist()
        ]


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


def test_like_zipfile(archive: Path) -> None:
    assert read(archive) == by_zipfile(archive)
    assert [name for name, *_ in read(archive)][-2:] == ["Übung/猫.txt", "with-more"]


def test_name_of_an_old_archive(archive: Path) -> None:
    """Where no flag says UTF-8, names are in the first PC's code page."""
    data = archive.read_bytes().replace(b"plain.txt", b"pl\x84in.txt")
    archive.write_bytes(data)
    assert read(archive) == by_zipfile(archive)
    assert read(archive)[1][0] == "folder/pläin.txt"


def test_comment_at_the_end(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        file.comment = b"of the whole archive " * 100
    assert read(archive) == by_zipfile(archive)


def test_archive_behind_something_else(archive: Path) -> None:
    archive.write_bytes(b"#!/bin/sh, or what unpacks itself\n" + archive.read_bytes())
    assert read(archive) == by_zipfile(archive)


def test_none_at_all(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w"):
        pass
    assert read(archive) == []


@pytest.mark.parametrize("before", [b"", b"before"])
def test_more_members_than_16_bits_count(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(2**16 + 3):
            file.writestr(f"{number}.txt", "")
    path.write_bytes(before + path.read_bytes())
    members = read(path)
    assert len(members) == 2**16 + 3
    assert members == by_zipfile(path)


def test_sizes_in_the_wide_field(archive: Path) -> None:
    """zipfile writes sizes of 2 GiB and more there; other programs any size."""
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("large", "small")
        file.filelist[-1].file_size = 3 * 2**30
    assert read(archive) == by_zipfile(archive)
    *_, content_bytes, _, _ = read(archive)[-1]
    assert content_bytes == 3 * 2**30


def test_comment_that_looks_like_a_wide_end(tmp_path: Path) -> None:
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as file:
        member = zipfile.ZipInfo("a")
        member.comment = WIDE_END_SIGNATURE + b"x" * 72
        file.writestr(member, "data")
    assert read(path) == by_zipfile(path)


def test_longest_comment_behind_nothing(tmp_path: Path) -> None:
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.comment = b"c" * LONGEST_COMMENT
    assert read(path) == []


@pytest.mark.parametrize(
    ("cut", "what"),
    [
        (lambda data: data[:-1], "end is missing"),
        (lambda data: b"x" * 100, "end is missing"),
        (lambda data: END_SIGNATURE, "end is missing"),
        (lambda data: data[10:], "beginning is missing"),
        (lambda data: data.replace(ENTRY_SIGNATURE, b"PK\1\3", 1), "damaged"),
    ],
)
def test_damaged(archive: Path, cut, what: str) -> None:
    archive.write_bytes(cut(archive.read_bytes()))
    with pytest.raises(ValueError, match=what):
        read(archive)


@pytest.mark.parametrize("left", [20, ENTRY.size - 1, ENTRY.size + 1])
def test_last_entry_cut_short(archive: Path, left: int) -> None:
    data = archive.read_bytes()
    start, cut = data.index(ENTRY_SIGNATURE), data.rindex(ENTRY_SIGNATURE) + left
    end = struct.pack("<4s8x2IH", END_SIGNATURE, cut - start, start, 0)
    archive.write_bytes(data[:cut] + end)
    with pytest.raises(ValueError, match="cut short"):
        read(archive)


def test_flagged_name_that_is_not_utf_8(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes().replace("猫".encode(), b"\xff\xff\xff"))
    with pytest.raises(ValueError, match="utf-8"):
        read(archive)


def with_entry(path: Path, name: bytes, place: int, layout: str, value: int) -> Path:
    """Change a number in the directory's entry of a member."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.rindex(name) - ENTRY.size + place, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 10, 899, 901, 2**31 - 2000])
def test_wrong_size_of_contents(archive: Path, size: int) -> None:
    """2 GiB would find no room in this much memory; it is not asked for."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    source = open_source(with_entry(archive, b"folder/packed.txt", 24, "<I", size))
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28, before[1]))
    try:
        with pytest.raises(UserError, match=r"folder/packed.txt .* is damaged"):
            source.read("folder/packed.txt")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


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


def with_wide_offset(path: Path, length: int, value: int) -> Path:
    """Have the last member's offset in a wide field, which gives its length as said."""
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
    """What is there of it is believed, and leads nowhere."""
    path = with_wide_offset(archive, 16, 2**64 - 1)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"wide") - ENTRY.size
    struct.pack_into("<2H", data, entry + 30, 7, 5)  # five bytes become the comment
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(UserError, match=r"wide .* is damaged"):
        source.read("wide")


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [(8, 1, "encrypted"), (10, 12, "unusual way"), (20, 2**31, "over one another")],
)
def test_refused(archive: Path, place: int, value: int, what: str) -> None:
    layout = "<I" if place == 20 else "<H"
    with pytest.raises(UserError, match=what):
        open_source(with_entry(archive, b"folder/packed.txt", place, layout, value))
