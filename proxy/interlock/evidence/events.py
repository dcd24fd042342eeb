"""Event drafts and the registry of event types. Pure.

An event is one RFC 8785 object a line in `events.jsonl`. Whatever can hold a secret or personal data is not in it:
`secret` values become salted commitments (RFC 9901 §4.2) whose disclosures live in a file of their own.
docs/evidence/events.md is generated from `TYPES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Union

Json = Union[str, int, bool, None, Sequence["Json"], Mapping[str, "Json"]]
"""No floats, no integer of 2^53 or more, bytes as base64: what RFC 8785 and every reader agree on."""

TYPES: dict[str, str] = {
    "session.open": "A principal opened a target: who, for whom, by what proof, from where.",
    "session.close": "The session ended: why, and its totals.",
    "session.kill": "An operator ended a session: whose, and why.",
    "channel.open": "A channel (SSH) was opened.",
    "channel.close": "A channel ended: exit status or signal.",
    "channel.refuse": "A request of the client was refused before it became a command.",
    "term.output": "Bytes the target printed (stream 1 or 2).",
    "term.input": "Bytes the client sent to a running command.",
    "term.resize": "The terminal changed size.",
    "pg.query": "A simple Query: its text is committed to. `secret_literals` counts the values in it for secret columns.",
    "pg.parse": "A Parse: a decision of its own, the server only analyses.",
    "pg.bind": "A Bind: the statement's text and its values are committed to. `secret_binds` are those for secret columns.",
    "pg.copy": "A COPY stream ended: direction, bytes and rows.",
    "pg.result": "The server's answer to a released command: tag, rows, SQLSTATE.",
    "command": "An SSH exec: its text is committed to.",
    "sftp": "A file operation over SFTP, or a name in the old protocol of scp: its text is committed to.",
    "sftp.result": "The target's answer to a released file operation: the status code of SFTP. Refers to the forward by seq.",
    "sftp.content": "What passed through an open file: direction, bytes; the SHA-256 of the content is committed to.",
    "git.push": "What a push changes in a repository, before receive-pack hears of it: its text is committed to.",
    "decision": "The answer of policy: verdict, rule, policy hash. Refers to the command by seq.",
    "approval.request": "A human is asked: request id, digest, groups, quorum, expiry. What exactly is committed to.",
    "approval.response": "The request got a terminal state: verdict, reviewer, channel, proof.",
    "forward": "The bytes of a decided command were released. Refers to the decision by seq.",
    "block": "A command was refused. Refers to the decision by seq.",
    "heartbeat": "The session lives, every 30 s.",
    "clock.step": "Wall and monotonic clock parted by more than the bound.",
    "gap": "Bytes were not recorded: how many and why.",
    "recovery": "The node restarted: what was torn from the end of the file.",
    "journal.open": "A node journal begins.",
    "journal.close": "A node journal is sealed and continues in another file.",
    "access.refused": "A connection was refused: no access rule, or not authenticated.",
    "channel.alert": "A channel met what must not happen (a card answered from elsewhere), or could not reach people.",
    "vote": "A vote was counted or refused.",
    "approval.escalated": "Nobody decided a request for a while: more people are told.",
    "approval.edited": "A reviewer proposed another text: the request that it ends, and the one that it becomes.",
    "grant": "A grant began or ended: its scope, what it covers in words, until when, who revoked it.",
    "requester.lock": "A requester kept asking for what was denied: nothing is asked for them until then.",
    "requester.unlock": "A person lifted the lock of a requester.",
    "glass.reviewed": "Somebody else looked at an approval that broke the glass.",
    "identity.change": "The directory changed.",
    "config.change": "Configuration or policy was loaded.",
    "login": "A login or step-up, also a failed one, and the end of a login.",
    "certificate.issue": "The login authority signed an SSH certificate: its serial, key id, principal and end.",
    "authority.change": "The login authority got a new key: which, and until when certificates of the old one count.",
    "message.given_up": "A channel could not deliver a message: which, after how many attempts, and why.",
    "account": "The proxy asked an account of an SSH target for its login shell and charset, and what it said.",
    "catalog": "The proxy read a Postgres target's catalog for itself.",
}


EVERY_EVENT = frozenset(("_sd", "mono_us", "prev", "seq", "session", "ts", "type", "v"))
"""Names that the writer itself gives to fields."""


def reserved(fields: Mapping[str, Json]) -> bool:
    """Whether one of these names is the writer's own."""
    return not EVERY_EVENT.isdisjoint(fields)


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event before it has a place in a chain. `fields` are plain, `secret` values are committed to."""

    type: str
    fields: Mapping[str, Json] = field(default_factory=dict)
    secret: Mapping[str, Json] = field(default_factory=dict)

    def placed(self, seq: int) -> EventDraft:
        del seq
        return self


class Draft(Protocol):
    """What a recorder takes: an `EventDraft`, or one that is encoded already but for its place (`forms.FormedDraft`)."""

    def placed(self, seq: int) -> EventDraft:
        """Return the event in plain values, as it is when it gets this `seq`."""
        ...


class Recorder(Protocol):
    """The one writer of a transcript (or of the node's journal).

    `append` writes whole lines to the file before it returns; disclosures go first. After any failed write every
    later call raises `EvidenceError`: a broken transcript never becomes whole again by luck.
    """

    @property
    def session(self) -> str: ...

    @property
    def next_seq(self) -> int:
        """The `seq` that the next appended event gets."""
        ...

    @property
    def sync_every(self) -> bool:
        """True when each decision must be synced before its bytes go on (`evidence.sync: every`)."""
        ...

    def append(self, *drafts: Draft) -> int:
        """Write all drafts in one write; return the `seq` of the first. Raise EvidenceError."""
        ...

    async def sync(self) -> None:
        """Return once everything appended so far is on stable storage. Raise EvidenceError."""
        ...

    async def close(self, fields: Mapping[str, Json]) -> None:
        """Append `session.close` (or `journal.close`), seal, and destroy the session's key."""
        ...
