"""The members of a zip archive, one at a time: zipfile would hold all of them, a gigabyte for each million or two.

Source: PKWARE, "APPNOTE.TXT - .ZIP File Format Specification", version 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

END, END_64, LOCATOR_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
ENTRY, LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
STORED, DEFLATED, UNREADABLE = 0, 8, 99
IN_EXTRA = 0xFFFFFFFF  # the number stands in the ZIP64 extra field
ENCRYPTED, UTF_8 = 0x1, 0x800


@dataclass(kw_only=True, slots=True, frozen=True)
class ZipMember:
    """A file inside a zip."""

    name: str
    offset: int  # of its local header
    packed: int  # bytes in the archive
    size: int  # bytes when unpacked
    method: int


def zip_members(file: BinaryIO) -> Iterator[ZipMember]:
    """Every file of the archive's directory, in its order; folders are passed by.

    Raises:
        ValueError: not a zip, or its directory is damaged.
    """
    entries, start = _directory(file)
    file.seek(start)
    for _ in range(entries):
        head = file.read(ENTRY.size)
        if len(head) < ENTRY.size or not head.startswith(b"PK\1\2"):
            raise ValueError("its directory is damaged")
        fields = ENTRY.unpack(head)
        flags, method, packed, size = fields[3], fields[4], fields[8], fields[9]
        name_bytes, extra_bytes, comment_bytes, offset = *fields[10:13], fields[16]
        name = file.read(name_bytes).decode("utf-8" if flags & UTF_8 else "cp437", "replace")
        extra = file.read(extra_bytes)
        file.seek(comment_bytes, os.SEEK_CUR)
        size, packed, offset = _from_extra(extra, size, packed, offset)
        if not name.endswith("/"):
            method = UNREADABLE if flags & ENCRYPTED else method
            yield ZipMember(name=name, offset=offset, packed=packed, size=size, method=method)


def read_zip_member(file: BinaryIO, offset: int, packed: int, size: int, method: int) -> bytes:
    """A member's bytes.

    Raises:
        ValueError: damaged, encrypted, or packed by another method than deflate; the message is a short reason.
    """
    if method not in (STORED, DEFLATED):
        raise ValueError("encrypted or packed in an unknown way")
    file.seek(offset)
    head = file.read(LOCAL.size)
    if len(head) < LOCAL.size or not head.startswith(b"PK\3\4"):
        raise ValueError("damaged zip member")
    *_, name_bytes, extra_bytes = LOCAL.unpack(head)
    file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    data = file.read(packed)
    if method == DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except zlib.error:
            raise ValueError("damaged zip member") from None
    if len(data) != size:
        raise ValueError("damaged zip member")
    return data


def _directory(file: BinaryIO) -> tuple[int, int]:
    """How many entries the directory at the archive's end has, and where it starts."""
    end = file.seek(0, os.SEEK_END)
    tail_start = max(0, end - END.size - 0xFFFF)  # a comment of at most 65,535 bytes may follow
    file.seek(tail_start)
    tail = file.read()
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) < found + END.size:
        raise ValueError("it is no zip, or cut off")
    entries, _, start, _ = END.unpack_from(tail, found)[4:]
    file.seek(max(0, tail_start + found - LOCATOR_64.size))
    locator = file.read(LOCATOR_64.size)
    if locator.startswith(b"PK\6\7"):  # too many entries or bytes for the old form
        file.seek(LOCATOR_64.unpack(locator)[2])
        head = file.read(END_64.size)
        if len(head) < END_64.size or not head.startswith(b"PK\6\6"):
            raise ValueError("its directory is damaged")
        *_, entries, _, start = END_64.unpack(head)
    return entries, start


def _from_extra(extra: bytes, *numbers: int) -> tuple[int, ...]:
    """Size, packed size and offset, those too large for 32 bits out of the ZIP64 extra field."""
    position, large = 0, b""
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            large = extra[position + 4 : position + 4 + length]
        position += 4 + length
    found = []
    for number in numbers:
        if number == IN_EXTRA:
            if len(large) < 8:
                raise ValueError("its directory is damaged")
            (number,), large = struct.unpack_from("<Q", large), large[8:]
        found.append(number)
    return tuple(found)
