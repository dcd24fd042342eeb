"""SASLprep: one form for passwords that look the same, as PostgreSQL applies it (RFC 4013 over RFC 3454).

Pure. Knows nothing of SCRAM. A password that the profile forbids is used as its raw bytes: that is what PostgreSQL's
servers and libpq do (`pg_saslprep`), and both sides must come to the same bytes.
"""

from __future__ import annotations

import stringprep
import unicodedata


def saslprep(password: str) -> bytes:
    """Prepare a password (RFC 4013); where that forbids it, use its bytes as they are, as PostgreSQL does."""
    raw = password.encode("utf-8", "surrogateescape")
    if raw.isascii():
        return raw
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c)
    )  # fmt: skip
    prepared = unicodedata.normalize("NFKC", mapped)
    return prepared.encode() if prepared and not _prohibited(prepared) else raw


_PROHIBITED = (
    stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
    stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
    stringprep.in_table_c9, stringprep.in_table_a1,
)  # fmt: skip


def _prohibited(text: str) -> bool:
    """RFC 4013 §2.3 and §2.5, and the bidi rule of RFC 3454 §6."""
    if any(in_table(c) for c in text for in_table in _PROHIBITED):
        return True
    if not any(map(stringprep.in_table_d1, text)):
        return False
    ends_right = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not ends_right or any(map(stringprep.in_table_d2, text))
