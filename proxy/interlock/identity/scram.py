"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides, as state machines without I/O.

Knows: RFC 5802 (messages, proofs), RFC 7677 (SHA-256), RFC 5929 §4 (tls-server-end-point).
Must not know: sockets, Postgres framing, the directory, asyncio.

The server side differs from a plain one in two points. A principal may have several live passwords, stored under one
salt and iteration count; the one whose proof matches names the credential of the session. And a name that nobody has
gets credentials that look the same and match nothing (`impostor`), so an exchange tells no more than "wrong".

Theory of operation: each side is a table of (state, call) → state. A call out of turn is our own defect
(`LocalProtocolError`); a message that breaks the grammar is the peer's (`RemoteProtocolError`); a proof, binding or
signature that does not match is an `AuthenticationError`. After any error the exchange is dead.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from interlock.clock import Entropy
from interlock.errors import AuthenticationError, LocalProtocolError, RemoteProtocolError
from interlock.identity.saslprep import saslprep

PLAIN = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"

ITERATIONS = 4096
"""For verifiers of our own passwords: they hold 256 random bits, so stretching adds nothing (RFC 7677 §4 minimum)."""

MIN_ITERATIONS = 4096
MAX_ITERATIONS = 1_000_000
"""What we do for a server that asks: less would weaken our password, more would be a denial of service."""

MAX_VERIFIERS = 8
SALT_BYTES = 16
NONCE_BYTES = 18
MAX_MESSAGE = 2048

_BINDING = b"tls-server-end-point"
_NONCE = re.compile(rb"[\x21-\x2b\x2d-\x7e]{1,256}\Z")
_EXTENSION = re.compile(rb"[A-Za-z]=[^\x00,]+\Z")


# -- keys --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verifier:
    """What is stored for one password (RFC 5802 §3): enough to check it, not to use it. `id` names the credential."""

    id: str
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScramCredentials:
    """The live verifiers of one principal, at most `MAX_VERIFIERS`, all under one salt and iteration count."""

    salt: bytes
    iterations: int
    verifiers: tuple[Verifier, ...] = ()

    def __post_init__(self) -> None:
        if len(self.verifiers) > MAX_VERIFIERS:
            raise LocalProtocolError(f"a principal has at most {MAX_VERIFIERS} live passwords")


def derived_salt(secret: bytes, name: str) -> bytes:
    """Return the salt of a name, 16 bytes, the same for ever under one installation secret.

    Real and unknown names get theirs this way alike, so that neither asking twice nor asking before and after
    somebody was registered tells who exists (as PostgreSQL's mock authentication does).
    """
    return hmac.digest(secret, b"interlock scram salt\0" + name.encode("utf-8", "surrogateescape"), "sha256")[:SALT_BYTES]


def impostor(secret: bytes, name: str) -> ScramCredentials:
    """Return credentials for a name that nobody has: well-formed, stable, and matched by no password."""
    return ScramCredentials(derived_salt(secret, name), ITERATIONS)


def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """Stretch a password: Hi() of RFC 5802 §2.2. Takes about 0.3 µs an iteration; many belong in a thread."""
    return hashlib.pbkdf2_hmac("sha256", saslprep(password), salt, iterations)


def verifier(ident: str, password: str, salt: bytes, iterations: int = ITERATIONS) -> Verifier:
    """Make what is stored for a password."""
    salted = salted_password(password, salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return Verifier(ident, stored_key, hmac.digest(salted, b"Server Key", "sha256"))


def server_end_point(certificate: bytes) -> bytes | None:
    """Return the tls-server-end-point binding of a DER certificate (RFC 5929 §4.1).

    None where the RFC defines none (Ed25519, Ed448): then PLUS is neither offered nor taken.
    """
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if algorithm is None:
        return None
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(certificate)
    return digest.finalize()


# -- messages ----------------------------------------------------------------------------------------------------------


def _attributes(message: bytes, names: bytes) -> list[bytes]:
    """Split `a=…,b=…` whose attributes must come in exactly this order; extensions may follow (RFC 5802 §5.1)."""
    if len(message) > MAX_MESSAGE:
        raise RemoteProtocolError("the SCRAM message is too long")
    parts = message.split(b",")
    if parts and parts[0].startswith(b"m="):
        raise RemoteProtocolError("the SCRAM message asks for a mandatory extension")
    values = []
    for index, name in enumerate(names):
        if index >= len(parts) or parts[index][:2] != bytes([name]) + b"=":
            raise RemoteProtocolError(f"the SCRAM message lacks the attribute {chr(name)}=")
        values.append(parts[index][2:])
    for extension in parts[len(names) :]:
        if not _EXTENSION.match(extension):
            raise RemoteProtocolError("the SCRAM message has a malformed extension")
    return values


def _unbase64(value: bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise RemoteProtocolError("the SCRAM message holds malformed base64") from None


def _nonce(value: bytes) -> bytes:
    if not _NONCE.match(value):
        raise RemoteProtocolError("the SCRAM nonce is malformed")
    return value


def _saslname(name: str) -> bytes:
    return saslprep(name).replace(b"=", b"=3D").replace(b",", b"=2C")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _proof_key(stored_key: bytes, transcript: bytes, proof: bytes) -> bytes:
    """Undo the proof: the ClientKey it was made with, if it was made for this verifier."""
    return _xor(proof, hmac.digest(stored_key, transcript, "sha256"))


# -- the server's side -------------------------------------------------------------------------------------------------


class _ServerState(Enum):
    START = auto()
    CHALLENGED = auto()
    DONE = auto()
    DEAD = auto()


_SERVER = {
    (_ServerState.START, "first"): _ServerState.CHALLENGED,
    (_ServerState.CHALLENGED, "final"): _ServerState.DONE,
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The client knows a password: `verifier` names which, `message` is the server-final-message to send."""

    verifier: str
    message: bytes


class ScramServer:
    """One exchange with a client: `first` → send its result, `final` → `Accepted` or an error.

    `binding` is `server_end_point` of our own certificate when the connection is under TLS, else None. The name the
    client writes into the message is ignored: the connection's user name is the one that `credentials` are for.
    """

    def __init__(self, credentials: ScramCredentials, *, entropy: Entropy, binding: bytes | None = None) -> None:
        self._credentials = credentials
        self._binding = binding
        self._nonce = base64.b64encode(entropy(NONCE_BYTES))
        # Padding: an unknown name, and one with a single password, cost as many HMACs as one with eight.
        self._decoy = Verifier("", entropy(32), entropy(32))
        self._state = _ServerState.START
        self._header = b""
        self._client_first = b""
        self._server_first = b""
        self._plus = False

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What to offer, best first."""
        return (PLUS, PLAIN) if self._binding is not None else (PLAIN,)

    def first(self, mechanism: str, message: bytes) -> bytes:
        """Take the client-first-message; return the server-first-message."""
        following = self._advance("first")
        if mechanism not in self.mechanisms:
            raise RemoteProtocolError("the client chose a SASL mechanism that was not offered")
        self._plus = mechanism == PLUS
        flag, authzid, bare = self._gs2(message)
        self._check_flag(flag)
        if authzid:
            raise RemoteProtocolError("acting as another user by SASL is not offered")
        _, nonce = _attributes(bare, b"nr")
        self._header = message[: len(message) - len(bare)]
        self._client_first = bare
        self._nonce = _nonce(nonce) + self._nonce
        salt = base64.b64encode(self._credentials.salt)
        self._server_first = b"r=%s,s=%s,i=%d" % (self._nonce, salt, self._credentials.iterations)
        self._state = following
        return self._server_first

    def final(self, message: bytes) -> Accepted:
        """Take the client-final-message. Raise AuthenticationError when binding or proof do not match."""
        following = self._advance("final")
        without_proof, sep, proof64 = message.rpartition(b",p=")
        if not sep:
            raise RemoteProtocolError("the SCRAM message lacks the attribute p=")
        channel, nonce = _attributes(without_proof, b"cr")
        proof = _unbase64(proof64)
        if len(proof) != hashlib.sha256().digest_size:
            raise RemoteProtocolError("the SCRAM proof has the wrong length")
        if not hmac.compare_digest(nonce, self._nonce):
            raise RemoteProtocolError("the SCRAM nonce is not the one of this exchange")
        expected = self._header + (self._binding or b"" if self._plus else b"")
        if not hmac.compare_digest(_unbase64(channel), expected):
            raise AuthenticationError("channel binding failed: the client sees another certificate than ours")
        transcript = b",".join((self._client_first, self._server_first, without_proof))
        matched = self._match(transcript, proof)
        if matched is None:
            raise AuthenticationError("the password was not accepted")
        signature = hmac.digest(matched.server_key, transcript, "sha256")
        self._state = following
        return Accepted(matched.id, b"v=" + base64.b64encode(signature))

    def _advance(self, call: str) -> _ServerState:
        """Look up the next state, and be dead until the call has come to its end."""
        following = _SERVER.get((self._state, call))
        if following is None:
            raise LocalProtocolError(f"SCRAM: {call} was called in state {self._state.name}")
        self._state = _ServerState.DEAD
        return following

    @staticmethod
    def _gs2(message: bytes) -> tuple[bytes, bytes, bytes]:
        """Split the client-first-message into gs2 flag, authzid and the bare message (RFC 5802 §7)."""
        if len(message) > MAX_MESSAGE:
            raise RemoteProtocolError("the SCRAM message is too long")
        parts = message.split(b",", 2)
        if len(parts) != 3:
            raise RemoteProtocolError("the SCRAM message has no channel binding header")
        return parts[0], parts[1], parts[2]

    def _check_flag(self, flag: bytes) -> None:
        """RFC 5802 §6: what the client says of channel binding must agree with what was offered and chosen."""
        if flag == (b"p=" + _BINDING if self._plus else b"n"):
            return
        if flag != b"y" or self._plus:
            raise RemoteProtocolError("the SCRAM channel binding header does not fit the mechanism")
        if self._binding is not None:
            # The client believes that we can't, and we offered it: somebody removed the offer on the way.
            raise AuthenticationError("channel binding was offered and the client did not see the offer")

    def _match(self, transcript: bytes, proof: bytes) -> Verifier | None:
        live = self._credentials.verifiers
        matched: Verifier | None = None
        for candidate in live + (self._decoy,) * (MAX_VERIFIERS - len(live)):
            key = hashlib.sha256(_proof_key(candidate.stored_key, transcript, proof)).digest()
            if hmac.compare_digest(key, candidate.stored_key) and candidate.id:
                matched = candidate
        return matched


# -- the client's side -------------------------------------------------------------------------------------------------


class _ClientState(Enum):
    START = auto()
    SENT = auto()
    CHALLENGED = auto()
    PROVED = auto()
    DONE = auto()
    DEAD = auto()


_CLIENT = {
    (_ClientState.START, "first"): _ClientState.SENT,
    (_ClientState.SENT, "challenge"): _ClientState.CHALLENGED,
    (_ClientState.CHALLENGED, "final"): _ClientState.PROVED,
    (_ClientState.PROVED, "verify"): _ClientState.DONE,
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """What the server wants the password stretched with, within our bounds. See `salted_password`."""

    salt: bytes
    iterations: int


class ScramClient:
    """One exchange with a server: `first`, `challenge`, `final`, `verify`.

    `offered` are the server's mechanisms; `binding` is `server_end_point` of the certificate that the server showed
    and we verified, None without TLS. `name` stays empty for Postgres, which takes the start-up packet's. PLUS is
    taken whenever both allow it. The server is authenticated only when `verify` returns: nothing may be sent to it
    before.
    """

    def __init__(
        self,
        offered: Sequence[str],
        *,
        entropy: Entropy,
        binding: bytes | None = None,
        name: str = "",
        min_iterations: int = MIN_ITERATIONS,
    ) -> None:
        self._min_iterations = min_iterations
        self._binding = binding
        if PLUS in offered and binding is not None:
            self.mechanism = PLUS
            self._header = b"p=" + _BINDING + b",,"
        elif PLAIN in offered:
            self.mechanism = PLAIN
            self._header = b"n,," if binding is None else b"y,,"
        else:
            raise RemoteProtocolError("the server offers no SCRAM-SHA-256")
        self._nonce = base64.b64encode(entropy(NONCE_BYTES))
        self._client_first = b"n=%s,r=%s" % (_saslname(name), self._nonce)
        self._state = _ClientState.START
        self._server_first = b""
        self._signature = b""

    def first(self) -> bytes:
        """Return the client-first-message."""
        self._state = self._advance("first")
        return self._header + self._client_first

    def challenge(self, message: bytes) -> Stretch:
        """Take the server-first-message; return how to stretch the password."""
        following = self._advance("challenge")
        nonce, salt64, count = _attributes(message, b"rsi")
        if not _nonce(nonce).startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise RemoteProtocolError("the SCRAM nonce is not the one of this exchange")
        salt = _unbase64(salt64)
        if not salt:
            raise RemoteProtocolError("the SCRAM salt is empty")
        if not re.fullmatch(rb"[1-9][0-9]{0,8}", count):
            raise RemoteProtocolError("the SCRAM iteration count is malformed")
        iterations = int(count)
        if not self._min_iterations <= iterations <= MAX_ITERATIONS:
            raise AuthenticationError(
                f"the server asks for {iterations} SCRAM iterations; between {self._min_iterations} and {MAX_ITERATIONS} are done"
            )
        self._nonce = nonce
        self._server_first = message
        self._state = following
        return Stretch(salt, iterations)

    def final(self, salted: bytes) -> bytes:
        """Take the stretched password; return the client-final-message."""
        following = self._advance("final")
        binding = self._binding if self.mechanism == PLUS and self._binding is not None else b""
        without_proof = b"c=%s,r=%s" % (base64.b64encode(self._header + binding), self._nonce)
        transcript = b",".join((self._client_first, self._server_first, without_proof))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        proof = _xor(client_key, hmac.digest(stored_key, transcript, "sha256"))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), transcript, "sha256")
        self._state = following
        return without_proof + b",p=" + base64.b64encode(proof)

    def verify(self, message: bytes) -> None:
        """Take the server-final-message. Return only when the server knows the password's verifier too."""
        following = self._advance("verify")
        if message.startswith(b"e="):
            raise AuthenticationError("the server refused the SCRAM exchange")
        (signature,) = _attributes(message, b"v")
        if not hmac.compare_digest(_unbase64(signature), self._signature):
            raise AuthenticationError("the server did not prove that it knows the password")
        self._state = following

    def _advance(self, call: str) -> _ClientState:
        following = _CLIENT.get((self._state, call))
        if following is None:
            raise LocalProtocolError(f"SCRAM: {call} was called in state {self._state.name}")
        self._state = _ClientState.DEAD
        return following
