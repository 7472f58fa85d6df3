"""List the members of a zip, in a third of the time that Python's zipfile takes.

A build takes four seconds, and of them zipfile took half a second for the names. The format is
that of PKWARE's APPNOTE, section 4.3: the file ends in a record that tells where the directory
is; before it, in archives of more than 65,535 members, stands one of wider numbers ("zip64"), and
before these the directory, an entry a member.
"""

import struct
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

ENTRY = struct.Struct("<4s4x2H4x3I3H4x2I")
ENTRY_SIGNATURE = b"PK\1\2"
END = struct.Struct("<4s8x2I2x")
END_SIGNATURE = b"PK\5\6"
WIDE_END = struct.Struct("<4s36x2Q")
WIDE_END_SIGNATURE = b"PK\6\6"
WIDE_LOCATOR_BYTES = 20
LONGEST_COMMENT = 2**16
UTF_8_NAME = 0x800


class Member(NamedTuple):
    """What the directory says of a member; a number of more than 32 bits stands as 2**32 - 1."""

    name: str
    raw_name: bytes
    """As the member's own header gives it."""
    flags: int
    method: int
    """0 stored, 8 deflated."""
    crc: int
    """CRC-32 of the contents."""
    packed_bytes: int
    content_bytes: int
    attributes: int
    """External: on Unix, the file's mode in the upper half."""
    header: int
    """Where the member's own header begins, in bytes from the start of the file."""


def read_members(archive: mmap) -> Iterator[Member]:
    """Yield the members in the directory's order.

    Raises:
        ValueError: There is no directory, or it is cut short or damaged.
    """
    start, size, before = _find_directory(archive)
    directory = archive[start : start + size]
    place = 0
    while place < size:
        if size - place < ENTRY.size:
            raise ValueError("its list of members is cut short")
        (signature, flags, method, crc, packed_bytes, content_bytes, name_bytes, extra_bytes,
         comment_bytes, attributes, header) = ENTRY.unpack_from(directory, place)  # fmt: skip
        if signature != ENTRY_SIGNATURE:
            raise ValueError("its list of members is damaged")
        end_of_name = place + ENTRY.size + name_bytes
        raw_name = directory[place + ENTRY.size : end_of_name]
        yield Member(
            raw_name.decode("utf-8" if flags & UTF_8_NAME or raw_name.isascii() else "cp437"),
            raw_name,
            flags,
            method,
            crc,
            packed_bytes,
            content_bytes,
            attributes,
            before + header,
        )
        place = end_of_name + extra_bytes + comment_bytes
    if place > size:
        raise ValueError("its list of members is cut short")


def _find_directory(archive: mmap) -> tuple[int, int, int]:
    """Return where the directory begins, its bytes, and those of anything before the archive."""
    end = archive.rfind(END_SIGNATURE, max(0, len(archive) - END.size - LONGEST_COMMENT))
    if end < 0 or len(archive) - end < END.size:
        raise ValueError("its end is missing")
    _, size, offset = END.unpack_from(archive, end)
    wide = end - WIDE_LOCATOR_BYTES - WIDE_END.size
    if wide >= 0 and archive[wide : wide + 4] == WIDE_END_SIGNATURE:
        _, size, offset = WIDE_END.unpack_from(archive, wide)
        end = wide
    before = end - size - offset
    if before < 0:
        raise ValueError("its beginning is missing")
    return before + offset, size, before
