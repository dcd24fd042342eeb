"""Personal proofs, checked apart from whoever wrote them: SSHSIG by `ssh-keygen`, WebAuthn by `openssl`.

What was signed must say what the vote says (digest, verdict, scope, end), so a vote that was changed after it was signed
does not verify. Whose a key is, is the node's word, unless the auditor lists it in `reviewers`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from interlock.verify import cose
from interlock.verify.strict import b64url, parse_object, to_b64url

NAMESPACE = "approve@interlock"
REVIEWERS = "reviewers"
GLASS = "break_glass"
"""What stands for the scope where the glass was broken."""
KINDS = ("none", "channel", "personal")
TIMEOUT = 30
_MAGIC = b"SSHSIG\x00\x00\x00\x01"
_COLUMNS = 70
USER_PRESENT, USER_VERIFIED = 0x01, 0x04


class UnprovenError(ValueError):
    """The proof does not hold; the message says why."""


def fingerprint(public: bytes) -> str:
    """Return OpenSSH's fingerprint, for both kinds of key."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).rstrip(b"=").decode("ascii")


def reviewers(trust: Path | None) -> dict[str, frozenset[str]] | None:
    """Return whose keys the auditor lists, by fingerprint, or None without a list. A line is `FINGERPRINT IDENTITY`."""
    if trust is None or not (trust / REVIEWERS).is_file():
        return None
    known: dict[str, frozenset[str]] = {}
    for line in (trust / REVIEWERS).read_text("utf-8", "replace").splitlines():
        key, _, who = line.strip().partition(" ")
        if key and not key.startswith("#"):
            known[key] = known.get(key, frozenset()) | {who.strip()}
    return known


def check(vote: dict[str, Any], statement: str) -> bytes:
    """Return the public key that signed this vote. Raise UnprovenError, MalformedError.

    The statement is canonical JSON with the request's nonce beside the facts of the vote.
    """
    signed = vote.get("signed")
    if not isinstance(signed, dict):
        raise UnprovenError("there is no signature")
    message = statement.encode()
    said = parse_object(message)
    facts = {name: vote.get(name) for name in ("digest", "verdict", "scope", "valid_until")}
    if vote.get("break_glass") is True:
        facts["scope"] = GLASS
    elif vote.get("scope") == GLASS:
        raise UnprovenError("a signature that breaks the glass is no ordinary answer")
    if not isinstance(said.pop("nonce", None), str) or said != facts:
        raise UnprovenError("what was signed is another answer")
    public, signature = b64url(signed["public"]), b64url(signed["signature"])
    match signed["kind"]:
        case "sshsig":
            if signed["key"] != fingerprint(public):
                raise UnprovenError("the key is not the one that is named")
            _sshsig(message, public, signature)
        case "webauthn":
            _webauthn(message, public, signature, b64url(signed["client_data"]), b64url(signed["authenticator_data"]))
        case other:
            raise UnprovenError(f"nobody has said what a signature of kind {other!r} is")
    return public


# -- SSHSIG (OpenSSH PROTOCOL.sshsig) -------------------------------------------------------------------------------------


def _sshsig(statement: bytes, public: bytes, blob: bytes) -> None:
    if not blob.startswith(_MAGIC):
        raise UnprovenError("it is not an SSH signature")
    held, rest = _string(blob[len(_MAGIC) :])
    if held != public:
        raise UnprovenError("another key made the signature")
    for _ in range(3):  # the namespace, what is reserved and the hash: ssh-keygen looks at these
        _, rest = _string(rest)
    signature, rest = _string(rest)
    if rest:
        raise UnprovenError("the signature has bytes after its end")
    if _string(public)[0].startswith(b"sk-"):  # PROTOCOL.u2f; `ssh-keygen -Y` does not ask for the touch
        _, after = _string(signature)
        _, tail = _string(after)
        if len(tail) != 5 or not tail[0] & USER_PRESENT:
            raise UnprovenError("nobody touched the security key")
    text = base64.b64encode(blob).decode("ascii")
    lines = "".join(text[at : at + _COLUMNS] + "\n" for at in range(0, len(text), _COLUMNS))
    armored = f"-----BEGIN SSH SIGNATURE-----\n{lines}-----END SSH SIGNATURE-----\n"
    with tempfile.TemporaryDirectory(prefix="interlock-") as folder:
        path = Path(folder) / "signature"
        path.write_text(armored)
        _run(["ssh-keygen", "-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(path)], statement)


def _string(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 + length:
        raise UnprovenError("the signature is cut short")
    return data[4 : 4 + length], data[4 + length :]


# -- WebAuthn (Level 3, §7.2) ---------------------------------------------------------------------------------------------


def _webauthn(statement: bytes, public: bytes, signature: bytes, client_data: bytes, authenticator_data: bytes) -> None:
    try:
        client = json.loads(client_data)
    except (ValueError, RecursionError):
        raise UnprovenError("the client data is not JSON") from None
    if not isinstance(client, dict) or client.get("type") != "webauthn.get":
        raise UnprovenError("the client data is not of an assertion")
    if client.get("challenge") != to_b64url(hashlib.sha256(statement).digest()):
        raise UnprovenError("what was signed is another answer")
    if client.get("crossOrigin", False) is not False or "topOrigin" in client:
        raise UnprovenError("it was made inside a frame of another page")
    host = _host(client.get("origin"))
    if len(authenticator_data) < 37 or authenticator_data[:32] != hashlib.sha256(host.encode()).digest():
        raise UnprovenError("the authenticator signed for another page than the browser")
    if not authenticator_data[32] & USER_PRESENT or not authenticator_data[32] & USER_VERIFIED:
        raise UnprovenError("the authenticator did not verify its user")
    try:
        algorithm, pem = cose.public_key(public)
    except cose.CoseError as error:
        raise UnprovenError(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="interlock-") as folder:
        key, proof, data = (Path(folder) / name for name in ("key.pem", "signature", "data"))
        key.write_text(pem)
        proof.write_bytes(signature)
        data.write_bytes(authenticator_data + hashlib.sha256(client_data).digest())
        if algorithm == cose.EDDSA:
            command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(key), "-rawin", "-in", str(data)]
            _run([*command, "-sigfile", str(proof)])
        else:
            _run(["openssl", "dgst", "-sha256", "-verify", str(key), "-signature", str(proof), str(data)])


def _host(origin: object) -> str:
    try:
        parts = urlsplit(origin) if isinstance(origin, str) else None
        host = (parts.hostname or "") if parts else ""
    except ValueError:
        parts, host = None, ""
    local = host == "localhost" or host.endswith(".localhost")
    if parts is None or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise UnprovenError("the page that it was made on is no secure one")
    return host


def _run(command: list[str], given: bytes = b"") -> None:
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise UnprovenError(f"{command[0]} is missing; install it") from None
    except subprocess.TimeoutExpired:
        raise UnprovenError(f"{command[0]} gave no answer in {TIMEOUT} s") from None
    if done.returncode != 0:
        raise UnprovenError(f"{command[0]} does not accept the signature")
