"""The shape of a statement: what is left when its constants are taken away (PostgreSQL's own fingerprint).

Two statements of one shape differ in constants alone: `id = 1`, `id = 2` and `id IN (1, 2)` are one shape, other tables,
columns or operators are others. What a utility statement sets (SET ROLE x) counts as a constant too, so whoever relies on a
shape asks the effects as well. Pure but for the grammar's C library, which long texts can harm: they have no shape.
"""

from __future__ import annotations

from functools import lru_cache

import postgast

from interlock.commands.sql.bounds import MEASURED_FROM


@lru_cache(maxsize=256)
def shape(text: bytes) -> str:
    """Return the fingerprint as hex, or nothing when the text is longer than `MEASURED_FROM` or is no SQL."""
    if len(text) > MEASURED_FROM:
        return ""
    try:
        return str(postgast.fingerprint(text.decode()).hex)
    except (postgast.PgQueryError, UnicodeDecodeError, ValueError):
        return ""
