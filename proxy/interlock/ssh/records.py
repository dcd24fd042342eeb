"""The events that the SSH front end writes around commands. Pure.

Bytes, names and places that a client or a target chose are committed to (`secret`); codes and counts are plain.
"""

from __future__ import annotations

import base64
from functools import lru_cache

from interlock.evidence import disclosure
from interlock.evidence.events import Draft, EventDraft, Json
from interlock.evidence.forms import Form
from interlock.ssh.requests import Scope

STDOUT, STDERR = 1, 2

LARGE = 8 * 1024
"""Bytes of one read that are recorded the short way: what prints that much prints it in packets of one size."""


def refused_request(scope: Scope, request: str, *, channel: int | None = None, detail: str = "") -> EventDraft:
    """A request that the table refuses. `detail` is what it asked for: a variable, a destination, a command."""
    fields: dict[str, Json] = {"scope": str(scope), "request": request, "reason": "request-not-offered"}
    if channel is not None:
        fields["channel"] = channel
    return EventDraft("channel.refuse", fields, {"detail": detail} if detail else {})


def refused_limit(scope: Scope, what: str, *, channel: int | None = None) -> EventDraft:
    fields: dict[str, Json] = {"scope": str(scope), "request": what, "reason": "limit-reached"}
    if channel is not None:
        fields["channel"] = channel
    return EventDraft("channel.refuse", fields)


def opened(channel: int) -> EventDraft:
    """A session channel of the client."""
    return EventDraft("channel.open", {"channel": channel, "side": "client"})


def tunnelled(channel: int, target: str, protocol: str) -> EventDraft:
    """A tunnel of the client to a front end of ours. What comes through it is a session of its own."""
    return EventDraft("channel.open", {"channel": channel, "side": "client", "tunnel": target, "protocol": protocol})


def routed(channel: int, forward: int, about: dict[str, Json]) -> EventDraft:
    """A released command goes to the target: by which credential, on a connection of its own or the shared one."""
    return EventDraft("channel.open", {"channel": channel, "side": "target", "ref": forward, **about})


def output(channel: int, stream: int, data: bytes) -> Draft:
    if len(data) >= LARGE:
        return _printed(channel, stream, len(data)).draft(given=(disclosure.tail_of_bytes("data", data),))
    return EventDraft(
        "term.output",
        {"channel": channel, "stream": stream, "bytes": len(data)},
        {"data": base64.b64encode(data).decode()},
    )


@lru_cache(16)
def _printed(channel: int, stream: int, size: int) -> Form:
    return Form("term.output", {"channel": channel, "stream": stream, "bytes": size})


@lru_cache(16)
def _typed(channel: int, size: int) -> Form:
    return Form("term.input", {"channel": channel, "bytes": size})


def typed(channel: int, data: bytes) -> Draft:
    if len(data) >= LARGE:
        return _typed(channel, len(data)).draft(given=(disclosure.tail_of_bytes("data", data),))
    return EventDraft("term.input", {"channel": channel, "bytes": len(data)}, {"data": base64.b64encode(data).decode()})


def file_result(forward: int, status: int) -> EventDraft:
    """The target answered a released file operation. `status` is SFTP's (0: done)."""
    return EventDraft("sftp.result", {"ref": forward, "status": status})


def file_content(forward: int, direction: str, size: int, sha256: str | None, *, complete: bool, place: str = "") -> EventDraft:
    """What passed through an open file. `direction`: in (written) | out (read). No hash: it did not pass in one piece.

    `place`: the name that came with it, where the released text is about a whole folder.
    """
    fields: dict[str, Json] = {"ref": forward, "direction": direction, "bytes": size, "complete": complete}
    secret: dict[str, Json] = {"sha256": sha256} if sha256 is not None else {}
    return EventDraft("sftp.content", fields, {**secret, "place": place} if place else secret)


def closed(channel: int, ended: str, fields: dict[str, Json]) -> EventDraft:
    """A channel of the client ended. `ended`: exit | signal | refused | lost | left | failed."""
    return EventDraft("channel.close", {"channel": channel, "ended": ended, **fields})
