"""Past the rows of a result: the one loop that sees every message of millions.

Knows: DataRow's framing. Must not know: what is in a row, what comes after.

Compiled (`_scan.c`, docs/adr/0016-short-way-and-one-loop-in-c.md) where a compiler was there when the package was built;
`COMPILED` says so. Both forms give the same for every input (tests/postgres/wire/test_rows.py).
"""

from __future__ import annotations

from struct import Struct

__all__ = ["COMPILED", "skip_rows", "skip_rows_plain"]

_length = Struct("!I").unpack_from
_MOST = 0x3FFFFFFF
_ROW = ord("D")


def skip_rows_plain(data: bytes, pos: int) -> int:
    """Return the place behind the whole DataRows that begin at `pos`: where something else begins, or the rest of a row."""
    size = len(data)
    while size - pos >= 5 and data[pos] == _ROW:
        (length,) = _length(data, pos + 1)
        if not 4 <= length <= _MOST or length >= size - pos:
            break
        pos += 1 + length
    return pos


try:
    from interlock.postgres.wire._scan import skip_rows
except ImportError:
    COMPILED = False
    skip_rows = skip_rows_plain
else:
    COMPILED = True
