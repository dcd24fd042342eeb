"""The lines of formed events and their disclosures, chained: what every command of the hot path is recorded with.

Knows: the shapes of lines (forms) and of disclosures. Must not know: files, clocks, where salts come from.

Compiled (`_chain.c`) where a compiler and OpenSSL 3 were there when the package was built; `COMPILED` says so. Both forms give
the same for every input (tests/evidence/test_chain.py).
"""

from __future__ import annotations

from binascii import b2a_base64, hexlify
from hashlib import sha256

from interlock.evidence.disclosure import URL_SAFE
from interlock.evidence.forms import BEFORE, FormedDraft

__all__ = ["COMPILED", "MOST_TAILS", "chained", "chained_plain"]

MOST_TAILS = 16
"""Disclosures of one event, as many as the compiled form takes."""

Chained = tuple[bytes, bytes, bytes]
"""Lines, disclosures, and the hash of the last line in hex."""


def chained_plain(
    drafts: tuple[FormedDraft, ...], seq: int, prev: bytes, mono_us: int, name: bytes, ts: bytes, beginnings: list[bytes], /
) -> Chained:
    """Return the lines of these events, which begin at `seq` behind the line whose hash is `prev`, and their disclosures.

    `name` and `ts` are what stands in every line for the session and the time. Takes a salt from the end of `beginnings`
    (disclosure.beginnings) for each disclosure. Raise IndexError when there are too few.
    """
    lines: list[bytes] = []
    secrets: list[bytes] = []
    for draft in drafts:
        form = draft.form
        tails = form.tails + draft.given
        varying: list[bytes | int | None] = [mono_us, prev, seq, name, ts]
        if form.refers:
            varying.insert(2, seq - 1 if draft.ref == BEFORE else draft.ref)
        template = form.template
        if tails:
            template = form.committing_template
            varying.insert(0, _committed(tails, seq, beginnings, secrets))
        line = template % tuple(varying)
        prev = hexlify(sha256(b"\0" + line).digest())
        lines.append(line)
        seq += 1
    lines.append(b"")
    return b"\n".join(lines), b"".join(secrets), prev


def _committed(tails: tuple[bytes, ...], seq: int, beginnings: list[bytes], lines: list[bytes]) -> bytes:
    """Add the line of a disclosure for each tail; return their digests as they stand in the event, joined by `","`."""
    if len(tails) > MOST_TAILS:
        raise IndexError("more disclosures than an event of the hot path has")
    texts = [beginnings.pop() + tail for tail in tails]
    end = b'","seq":%d}\n' % seq
    lines.append(b'{"d":"' + (end + b'{"d":"').join(texts) + end)
    digests = [b2a_base64(sha256(text).digest(), newline=False).translate(URL_SAFE, b"=") for text in texts]
    digests.sort()  # the order of names would say something (RFC 9901 §4.2.4.1)
    return b'","'.join(digests)


try:
    from interlock.evidence._chain import chained
except ImportError:
    COMPILED = False
    chained = chained_plain
else:
    COMPILED = True
