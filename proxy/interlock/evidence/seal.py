"""The seal: what is signed when a transcript ends, and the authority whose key auditors know.

`Seal` is the content of seal.json. `SealCa` certifies one ephemeral Ed25519 key a session for at most 24 hours; the key
is dropped when the session is sealed, so whoever breaks in later can't sign the past. The certificate's principals are
the session's id and the node, so a session's key can seal nothing but its own session.

No file is opened here but through `SealCa.load_or_create`, which hands over to `interlock.evidence.keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from interlock.clock import Entropy
from interlock.evidence import jcs, sshsig
from interlock.evidence.events import Json

SPEC = "interlock-transcript/1"
NAMESPACE = "session-seal@interlock"
LIFETIME = timedelta(hours=24)
EARLY = timedelta(minutes=1)
"""A certificate starts this much before the moment of its making: readers' clocks differ."""


class Status(StrEnum):
    """How a transcript ended."""

    CLOSED = "closed"  # by its own session
    ABORTED = "aborted"  # the node died; sealed at its next start
    DAMAGED = "damaged"  # the chain was broken when the node started: somebody or something changed the file


@dataclass(frozen=True, slots=True)
class Seal:
    """The content of seal.json. `head` and `root` are hex; `files` maps names in the bundle to hex SHA-256.

    `cast` is the salted commitment to the derived recording, None when there is none. `log_origin` names the global
    log that the seal was entered into, None before there is one.
    """

    session: str
    kind: str  # session | journal
    node: str
    status: Status
    events: int
    head: str
    root: str
    opened: str
    closed: str
    target: str | None
    agent: str | None
    policies: tuple[str, ...]
    files: Mapping[str, str]
    sync: str
    observe: bool
    cast: str | None
    log_origin: str | None = None
    damage: str | None = None
    spec: str = field(default=SPEC)

    def encode(self) -> bytes:
        """Return the exact bytes of seal.json: canonical JSON and a newline."""
        content: dict[str, Json] = asdict(self)
        content["status"] = str(self.status)
        return jcs.encode(content) + b"\n"


class SealKey:
    """An ephemeral key with its certificate. `destroy` forgets it; signing afterwards is an error."""

    __slots__ = ("_certificate", "_key", "key_id", "node", "session", "valid_after", "valid_before")

    def __init__(
        self, key: Ed25519PrivateKey, certificate: bytes, session: str, node: str, key_id: str, after: datetime, before: datetime
    ) -> None:
        self._key: Ed25519PrivateKey | None = key
        self._certificate = certificate
        self.session = session
        self.node = node
        self.key_id = key_id
        self.valid_after = after
        self.valid_before = before

    def __repr__(self) -> str:
        return f"SealKey({self.key_id})"

    def covers(self, moment: datetime) -> bool:
        """True while the certificate is valid; the seal must be dated inside it."""
        return self.valid_after <= moment < self.valid_before

    def sign(self, seal: bytes) -> bytes:
        """Return the armored SSHSIG over the bytes of seal.json."""
        if self._key is None:
            raise ValueError("the key was destroyed")
        return sshsig.sign(self._key, NAMESPACE, seal, self._certificate)

    def destroy(self) -> None:
        self._key = None

    def renewed(self, ca: SealCa, now: datetime, entropy: Entropy) -> SealKey:
        """Return the same key under a new certificate, for sessions that outlive theirs."""
        if self._key is None:
            raise ValueError("the key was destroyed")
        return ca.certified(self._key, self.session, self.node, self.key_id, now, entropy)


class SealCa:
    """The evidence authority: certifies seal keys and nothing else. Never the key of another authority of ours."""

    __slots__ = ("_key",)

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"SealCa({self.public_line})"

    @classmethod
    def load_or_create(cls, path: Path) -> SealCa:
        """Read the key at `path` (OpenSSH format, mode 0600), or make one. Raise EvidenceError."""
        from interlock.evidence import keys

        return cls(keys.load_or_create(path))

    @property
    def public_line(self) -> str:
        return sshsig.public_line(self._key.public_key())

    def issue(self, session: str, node: str, role: str, now: datetime, entropy: Entropy) -> SealKey:
        """Make and certify a key. `role` is `session`, `journal` or `recovery` and stands in the certificate's key id."""
        key = Ed25519PrivateKey.from_private_bytes(entropy(32))
        return self.certified(key, session, node, f"{role}:{session}@{node}", now, entropy)

    def certified(self, key: Ed25519PrivateKey, session: str, node: str, key_id: str, now: datetime, entropy: Entropy) -> SealKey:
        """Certify `key` for this transcript, from a minute ago for `LIFETIME`."""
        after, before = now - EARLY, now - EARLY + LIFETIME
        certificate = sshsig.certify(
            self._key,
            key.public_key(),
            key_id=key_id,
            principals=[session, node],
            serial=int.from_bytes(entropy(8), "big"),
            after=after,
            before=before,
        )
        return SealKey(key, certificate, session, node, key_id, after, before)


def allowed_signers_line(ca: SealCa) -> str:
    """Return the one line that an auditor needs: every seal certified by this authority, and nothing else."""
    return f'* cert-authority,namespaces="{NAMESPACE}" {ca.public_line} interlock evidence authority'


def trust_files(ca: SealCa) -> str:
    """Return the text of `trust/allowed_signers`."""
    return allowed_signers_line(ca) + "\n"
