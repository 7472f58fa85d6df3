"""The list of a zip's members, held against Python's zipfile."""

import mmap
import struct
import zipfile
from pathlib import Path

import pytest

from pipeline.zip_directory import END_SIGNATURE, ENTRY, ENTRY_SIGNATURE, Member, read_members


def read(path: Path) -> list[Member]:
    with path.open("rb") as file:
        return list(read_members(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def by_zipfile(path: Path) -> list[Member]:
    with zipfile.ZipFile(path) as archive:
        return [
            Member(
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
    assert [member.name for member in read(archive)][-2:] == ["Übung/猫.txt", "with-more"]


def test_name_of_an_old_archive(archive: Path) -> None:
    """Where no flag says UTF-8, names are in the first PC's code page."""
    data = archive.read_bytes().replace(b"plain.txt", b"pl\x84in.txt")
    archive.write_bytes(data)
    assert read(archive) == by_zipfile(archive)
    assert read(archive)[1].name == "folder/pläin.txt"


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


def test_member_of_too_large_a_size_looks_large(archive: Path) -> None:
    """zipfile writes sizes of 2 GiB and more into a field of their own."""
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("large", "small")
        file.filelist[-1].file_size = 3 * 2**30
    assert by_zipfile(archive)[-1].content_bytes == 3 * 2**30
    assert read(archive)[-1].content_bytes == 2**32 - 1


@pytest.mark.parametrize(
    ("cut", "what"),
    [
        (lambda data: data[:-1], "end is missing"),
        (lambda data: b"x" * 100, "end is missing"),
        (lambda data: data[10:], "beginning is missing"),
        (lambda data: data.replace(ENTRY_SIGNATURE, b"PK\1\3", 1), "damaged"),
    ],
)
def test_damaged(archive: Path, cut, what: str) -> None:
    archive.write_bytes(cut(archive.read_bytes()))
    with pytest.raises(ValueError, match=what):
        read(archive)


def test_last_name_cut_short(archive: Path) -> None:
    data = archive.read_bytes()
    start, cut = data.index(ENTRY_SIGNATURE), data.rindex(ENTRY_SIGNATURE) + ENTRY.size + 1
    end = struct.pack("<4s8x2IH", END_SIGNATURE, cut - start, start, 0)
    archive.write_bytes(data[:cut] + end)
    with pytest.raises(ValueError, match="cut short"):
        read(archive)
