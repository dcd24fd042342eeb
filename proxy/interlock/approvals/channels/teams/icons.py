"""The two icons of the Teams app, drawn: two rings that hold each other.

Knows PNG (W3C PNG 3rd edition, §5 and §11) as far as truecolour goes. The bytes depend on nothing but this file: the
deflate stream is of stored blocks (RFC 1951 §3.2.4), because what a compressor writes differs between its versions, and
`math.sqrt` is correctly rounded everywhere.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable

COLOR_SIZE = 192
OUTLINE_SIZE = 32

_MAX_STORED = 65_535
_WHITE = (255, 255, 255)

Ink = Callable[[float, float], float]
"""How much of a pixel is covered, 0 to 1. Coordinates are of the unit square, y downwards."""


def color(accent: str) -> bytes:
    """Return the 192×192 icon: `accent` (#rrggbb) to the edges, which Teams cuts itself, the rings in the middle 96×96."""
    ground = tuple(bytes.fromhex(accent.removeprefix("#")))
    ink = _rings(COLOR_SIZE, radius=0.137, width=0.054)
    rows = [
        b"".join(bytes(round(g + (w - g) * cover) for g, w in zip(ground, _WHITE, strict=True)) for cover in row)
        for row in _covered(ink, COLOR_SIZE)
    ]
    return _png(COLOR_SIZE, 2, rows)


def outline() -> bytes:
    """Return the 32×32 icon: white, and nothing else than white, on transparent, as broad as there is room."""
    ink = _rings(OUTLINE_SIZE, radius=0.275, width=0.095)
    rows = [b"".join(bytes((*_WHITE, round(255 * cover))) for cover in row) for row in _covered(ink, OUTLINE_SIZE)]
    return _png(OUTLINE_SIZE, 6, rows)


def _rings(size: int, *, radius: float, width: float) -> Ink:
    """Two rings side by side. At the upper crossing the left one lies above, at the lower one the right one."""
    reach = radius * 0.62
    left, right = (0.5 - reach, 0.5), (0.5 + reach, 0.5)
    gap = width * 0.45

    def ring(x: float, y: float, centre: tuple[float, float], broad: float) -> float:
        off = abs(math.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2) - radius) - broad / 2
        return min(1.0, max(0.0, 0.5 - off * size))

    def ink(x: float, y: float) -> float:
        above, below = (left, right) if y < 0.5 else (right, left)
        top = ring(x, y, above, width)
        shadow = ring(x, y, above, width + 2 * gap)
        crossing = abs(x - 0.5) < width + gap  # the lower ring is cut only where the upper one crosses it
        under = ring(x, y, below, width) * (1 - shadow if crossing else 1)
        return max(top, under)

    return ink


def _covered(ink: Ink, size: int) -> list[list[float]]:
    return [[ink((x + 0.5) / size, (y + 0.5) / size) for x in range(size)] for y in range(size)]


def _png(size: int, kind: int, rows: list[bytes]) -> bytes:
    """Put rows of 8-bit samples into a file; `kind` is the colour type: 2 for RGB, 6 for RGBA."""
    header = struct.pack(">IIBBBBB", size, size, 8, kind, 0, 0, 0)
    unfiltered = b"".join(b"\x00" + row for row in rows)
    parts = ((b"IHDR", header), (b"IDAT", _stored(unfiltered)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _stored(content: bytes) -> bytes:
    """Wrap content as a zlib stream (RFC 1950) without compressing it."""
    blocks = [content[at : at + _MAX_STORED] for at in range(0, len(content), _MAX_STORED)]
    out = bytearray(b"\x78\x01")
    for number, block in enumerate(blocks, 1):
        out += struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block
    return bytes(out) + struct.pack(">I", zlib.adler32(content))
