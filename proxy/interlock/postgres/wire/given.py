"""The values of a Bind as the record has them: one canonical JSON array of what was sent and what it says to people.

Knows: the format codes and values of a Bind, RFC 8785. Must not know: which of them are secret, what becomes of the text.

Compiled (`_scan.c`) where a compiler was there when the package was built. Both forms give the same for every input
(tests/postgres/wire/test_given.py), and what `record` makes of the same values (tests/test_record.py).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import msgspec

from interlock.postgres.wire import requests

__all__ = ["Listed", "Shown", "listed", "listed_plain"]

Shown = Callable[[bytes, int, int], str | None]
"""Says a value, which is not NULL, to people: (value, format code, type OID); values.shown."""

Listed = Callable[[bytes, int, tuple[int, ...], Shown], bytes]

_encode = msgspec.json.Encoder().encode


def listed_plain(data: bytes, at: int, types: tuple[int, ...], shown: Shown, /) -> bytes:
    """Return the array, empty bytes when there are no values.

    `data` holds a Bind whose format codes begin at `at`; `types` are those that are known of the first values. Raise ValueError
    when there are no values at this place.
    """
    codes, raws = requests.values(data, at)
    found = []
    for index, raw in enumerate(raws):
        code = 0 if not codes else codes[0] if len(codes) == 1 else codes[index]
        oid = types[index] if index < len(types) else 0
        text = None if raw is None else shown(raw, code, oid)
        found.append({"format": code, "raw": None if raw is None else b64encode(raw).decode(), "shown": text, "type": oid})
    return _encode(found) if found else b""


try:
    from interlock.postgres.wire._scan import listed
except ImportError:
    listed = listed_plain
