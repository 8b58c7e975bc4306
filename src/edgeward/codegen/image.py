"""Read what an emulator needs of an ELF file: its segments, its entry, and where its functions begin."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

_LOADED, _SYMBOLS, _FUNCTION = 1, 2, 2


@final
@dataclass(frozen=True)
class Image:
    """Loaded content by address, the entry's address, and function names by address."""

    entry: int
    segments: tuple[tuple[int, bytes], ...]
    functions: Mapping[int, str]


def read_image(path: Path) -> Image:
    """Return the content of a little-endian ELF file of 32 or 64 bits that the toolchain made."""
    raw = path.read_bytes()
    wide = raw[4] == 2
    fields = struct.unpack_from("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH", raw, 16)
    entry, programs, sections = fields[3:6]
    program_size, programs_n, section_size, sections_n = fields[8:12]
    segments = []
    for i in range(programs_n):
        at = programs + i * program_size
        if wide:
            kind, _, offset, address, _, stored, size = struct.unpack_from("<IIQQQQQ", raw, at)
        else:
            kind, offset, address, _, stored, size = struct.unpack_from("<IIIIII", raw, at)
        if kind == _LOADED and size:
            segments.append((address, raw[offset : offset + stored] + bytes(size - stored)))
    form = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
    table = [struct.unpack_from(form, raw, sections + i * section_size) for i in range(sections_n)]
    functions = {}
    for section in table:
        if section[1] == _SYMBOLS:
            names = table[section[6]]
            functions.update(_functions(raw, wide, section[4], section[5], names[4]))
    return Image(entry, tuple(segments), functions)


def _functions(raw: bytes, wide: bool, start: int, size: int, names: int) -> dict[int, str]:
    found = {}
    for at in range(start, start + size, 24 if wide else 16):
        if wide:
            name, kind, _, _, address = struct.unpack_from("<IBBHQ", raw, at)
        else:
            name, address, _, kind = struct.unpack_from("<IIIB", raw, at)
        if kind & 15 == _FUNCTION:
            found[address] = raw[names + name : raw.index(0, names + name)].decode("ascii", "replace")
    return found
