"""`--sign`: an SSHSIG over exactly this answer, by a key of the reviewer's own (approvals.md, "Critical rules").

`ssh-keygen -Y sign` does it, so that keys in an agent and on security keys work, and whatever it asks for it asks at the
terminal: no passphrase passes through here, and nothing secret stands in an argument.
"""

from __future__ import annotations

import subprocess
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from interlock.approvals.proof import NAMESPACE, SSHSIG, statement
from interlock.errors import InterlockError, Reason
from interlock.identity.sshkey import parse

AGENT = "agent"


def sign(row: dict[str, Any], verdict: str, scope: str, valid_until: datetime | None, key: str) -> dict[str, str]:
    """Return the proof of an answer to the request `row`, as the API takes it. `row` carries the nonce.

    `key` is a path (a private key, or a public one whose private half an agent holds), `agent`, or `agent:SHA256:…`. Raise
    InterlockError when nothing was signed.
    """
    signed = statement(row["digest"], row["nonce"], verdict, scope, valid_until)
    if key == AGENT or key.startswith(f"{AGENT}:"):
        with tempfile.NamedTemporaryFile("w", suffix=".pub") as public:
            public.write(_from_agent(key.partition(":")[2]) + "\n")
            public.flush()
            armored = _keygen(Path(public.name), signed)
    else:
        armored = _keygen(Path(key).expanduser(), signed)
    return {"kind": SSHSIG, "signature": armored}


def _keygen(key: Path, signed: bytes) -> str:
    # stderr and the terminal stay ssh-keygen's: it asks for the passphrase, or to touch the security key.
    argv = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", NAMESPACE]
    try:
        done = subprocess.run(argv, input=signed, stdout=subprocess.PIPE, check=False)
    except FileNotFoundError:
        raise InterlockError("ssh-keygen is not installed, so nothing was signed", reason=Reason.PROOF_REJECTED) from None
    if done.returncode != 0 or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise InterlockError(f"ssh-keygen signed nothing with {key}", reason=Reason.PROOF_REJECTED)
    return done.stdout.decode("ascii", "replace")


def _from_agent(wanted: str) -> str:
    """Return the public key line of the agent's only key, or of the one with that fingerprint."""
    try:
        done = subprocess.run(["ssh-add", "-L"], capture_output=True, check=False)
    except FileNotFoundError:
        raise InterlockError("ssh-add is not installed; name a key file", reason=Reason.PROOF_REJECTED) from None
    lines = done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 else []
    keys: dict[str, str] = {}
    for line in lines:
        try:
            keys[parse(line).fingerprint] = line
        except InterlockError:
            continue  # a certificate, or a kind that nobody can register
    if wanted:
        if wanted not in keys:
            raise InterlockError(f"the SSH agent holds no key {wanted}", reason=Reason.PROOF_REJECTED)
        return keys[wanted]
    if len(keys) != 1:
        told = "holds no key" if not keys else f"holds several keys: name one as --key agent:{next(iter(keys))}"
        raise InterlockError(f"the SSH agent {told}", reason=Reason.PROOF_REJECTED)
    return next(iter(keys.values()))
