"""List the members of a zip, in half the time that Python's zipfile takes.

zipfile makes an object with dates and extra fields of each member, which nobody here asks for. The
format is that of PKWARE's APPNOTE, section 4.3: the file ends in a record that tells where the
directory is, and before that stands the directory, an entry a member. Where a number does not fit
into that record, between the two stand a wider one ("zip64") and a locator of the wider one.
"""

import struct
from mmap import mmap

ENTRY = struct.Struct("<4s4x2H4x3I3H4x2I")
ENTRY_SIGNATURE = b"PK\1\2"
OWN_HEADER = struct.Struct("<26x2H")
"""What stands before a member's bytes: of it, how long the name and the field behind it are."""
END = struct.Struct("<4s8x2I2x")
END_SIGNATURE = b"PK\5\6"
WIDE_END = struct.Struct("<4s36x2Q")
WIDE_END_SIGNATURE = b"PK\6\6"
WIDE_LOCATOR_BYTES = 20
WIDE_LOCATOR_SIGNATURE = b"PK\6\7"
LONGEST_COMMENT = 2**16 - 1
IN_EXTRA_FIELD = 2**32 - 1
"""Stands in an entry in place of a number that a wider field behind the name gives."""
EXTRA_FIELD = struct.Struct("<2H")
WIDE_NUMBERS = 1
"""The kind of that field."""
STORED, DEFLATED = 0, 8
"""Methods of packing."""
ENCRYPTED, UTF_8_NAME = 1, 0x800
"""Flags."""


Member = tuple[str, bytes, int, int, int, int, int, int, int]
"""What the directory says of a member: its name; that name's bytes; flags; method; CRC-32 of the
contents; bytes packed; bytes of the contents; external attributes, on Unix the file's mode in the
upper half; and where the member's own header begins, in bytes from the start of the file.

Python's garbage collector leaves plain tuples alone; a hundred thousand named ones would keep it as
busy as all else here.
"""


def read_members(archive: mmap) -> list[Member]:
    """List the members in the directory's order.

    Raises:
        ValueError: There is no directory, or it is cut short or damaged.
    """
    start, size, bytes_in_front = _find_directory(archive)
    directory = archive[start : start + size]
    members = []
    place = 0
    while place < size:
        if size - place < ENTRY.size:
            raise ValueError("its list of members is cut short")
        (signature, flags, method, crc, packed_bytes, content_bytes, name_bytes, extra_bytes,
         comment_bytes, attributes, offset) = ENTRY.unpack_from(directory, place)  # fmt: skip
        if signature != ENTRY_SIGNATURE:
            raise ValueError("its list of members is damaged")
        name = place + ENTRY.size
        extra = name + name_bytes
        if IN_EXTRA_FIELD in (packed_bytes, content_bytes, offset):
            content_bytes, packed_bytes, offset = _wide_numbers(
                directory[extra : extra + extra_bytes], content_bytes, packed_bytes, offset
            )
        raw_name = directory[name:extra]
        encoding = "utf-8" if flags & UTF_8_NAME or raw_name.isascii() else "cp437"
        members.append(
            (raw_name.decode(encoding), raw_name, flags, method, crc, packed_bytes, content_bytes,
             attributes, bytes_in_front + offset)
        )  # fmt: skip
        place = extra + extra_bytes + comment_bytes
    if place > size:
        raise ValueError("its list of members is cut short")
    return members


def _wide_numbers(extra: bytes, *numbers: int) -> list[int]:
    """Return an entry's sizes and offset, those in the extra field taken from there."""
    place = 0
    while place + EXTRA_FIELD.size <= len(extra):
        kind, size = EXTRA_FIELD.unpack_from(extra, place)
        place += EXTRA_FIELD.size
        if kind == WIDE_NUMBERS:
            whole = min(size, len(extra) - place) // 8 * 8
            wide = struct.iter_unpack("<Q", extra[place : place + whole])
            return [next(wide, [n])[0] if n == IN_EXTRA_FIELD else n for n in numbers]
        place += size
    return list(numbers)


def _find_directory(archive: mmap) -> tuple[int, int, int]:
    """Return where the directory begins, its bytes, and the bytes in front of the archive."""
    end = _find_end(archive)
    _, size, offset = END.unpack_from(archive, end)
    locator = end - WIDE_LOCATOR_BYTES
    wide_end = locator - WIDE_END.size
    if (
        wide_end >= 0
        and archive[locator : locator + 4] == WIDE_LOCATOR_SIGNATURE
        and archive[wide_end : wide_end + 4] == WIDE_END_SIGNATURE
    ):
        _, size, offset = WIDE_END.unpack_from(archive, wide_end)
        end = wide_end
    bytes_in_front = end - size - offset
    if bytes_in_front < 0:
        raise ValueError("its beginning is missing")
    return bytes_in_front + offset, size, bytes_in_front


def _find_end(archive: mmap) -> int:
    """Return where the last record begins; a comment follows it, most often an empty one."""
    without_comment = len(archive) - END.size
    if without_comment < 0:
        raise ValueError("its end is missing")
    if archive[without_comment : without_comment + 4] == END_SIGNATURE:
        return without_comment
    first = max(0, without_comment - LONGEST_COMMENT)
    end = archive.rfind(END_SIGNATURE, first, without_comment + 4)
    if end < 0:
        raise ValueError("its end is missing")
    return end


def read_packed(archive: mmap, header_offset: int, raw_name: bytes, packed_bytes: int) -> bytes:
    """Return a member's bytes as they lie in the archive, behind its own header.

    Raises:
        ValueError: That header is outside the archive or names another file, and so the directory
            is damaged: by a wrong name an image would get a wrong label.
    """
    try:
        name_bytes, extra_bytes = OWN_HEADER.unpack_from(archive, header_offset)
    except (struct.error, OverflowError) as error:
        raise ValueError("the directory points outside the archive") from error
    name = header_offset + OWN_HEADER.size
    extra = name + name_bytes
    if archive[name:extra] != raw_name:
        raise ValueError("the directory gives another name than the member's own header")
    start = extra + extra_bytes
    return archive[start : start + packed_bytes]
