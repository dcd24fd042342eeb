"""Reads a chain back on the writer's side: what a directory holds, and whether its chain is whole.

Used when a transcript is sealed (what is signed is what is on the disk), at recovery and by the archive. The verifier
has code of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from interlock.evidence import merkle
from interlock.evidence.chain import GENESIS
from interlock.evidence.linefile import lines_of
from interlock.evidence.transcript import EVENTS


class _Link(msgspec.Struct):
    """The part of an event that the chain and the seal need."""

    seq: int
    prev: str
    session: str
    type: str
    ts: str
    mono_us: int
    policy: Any = None
    observed: Any = None


_decode = msgspec.json.Decoder(_Link).decode


@dataclass(frozen=True, slots=True)
class Survey:
    """What events.jsonl holds. `size` is the length up to the last newline, `torn` what follows it.

    `broken` says where the chain breaks; then `events`, `head` and `root` speak of the part before.
    """

    events: int
    head: str
    root: str
    size: int
    sha256: str
    torn: bytes
    opened: str
    closed: str
    mono_us: int
    first: dict[str, Any]
    last_type: str
    policies: tuple[str, ...]
    observe: bool
    broken: str | None


def survey(directory: Path, session: str) -> Survey:
    """Read events.jsonl of a directory. A missing file is an empty one. Raise OSError."""
    tree = merkle.Tree()
    whole = sha256()
    head, size, torn, broken = GENESIS, 0, b"", None
    first: dict[str, Any] = {}
    opened = closed = last_type = ""
    mono_us, observe = 0, False
    policies: set[str] = set()
    path = directory / EVENTS
    if path.exists():
        for line in lines_of(path):
            whole.update(line)
            if not line.endswith(b"\n"):
                torn = line
                break
            size += len(line)
            if broken is not None:
                continue
            body = line[:-1]
            try:
                link = _decode(body)
            except msgspec.MsgspecError:
                broken = f"line {tree.size + 1} is not an event"
                continue
            broken = _problem(link, tree.size, head, session)
            if broken is not None:
                continue
            if tree.size == 0:
                first, opened = msgspec.json.decode(body), link.ts
            if link.type == "decision":
                policies.add(str(link.policy))
                observe = observe or bool(link.observed)
            closed, last_type, mono_us = link.ts, link.type, link.mono_us
            leaf = merkle.leaf_hash(body)
            tree.append(leaf)
            head = leaf.hex()
    return Survey(
        events=tree.size, head=head, root=tree.root().hex(), size=size, sha256=whole.hexdigest(), torn=torn, opened=opened,
        closed=closed, mono_us=mono_us, first=first, last_type=last_type, policies=tuple(sorted(policies)), observe=observe,
        broken=broken,
    )  # fmt: skip


def _problem(link: _Link, seq: int, head: str, session: str) -> str | None:
    if link.seq != seq:
        return f"line {seq + 1} has seq {link.seq}"
    if link.prev != head:
        return f"line {seq + 1} does not follow the line before it"
    if link.session != session:
        return f"line {seq + 1} belongs to {link.session}"
    return None
