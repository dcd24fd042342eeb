"""Asks `ssh-keygen` whether the seal was signed by a key that the auditor's own trust file accepts."""

from __future__ import annotations

import base64
import binascii
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

NAMESPACE = "session-seal@interlock"
SIGNERS = "allowed_signers"
REVOKED = "revoked.krl"
TIMEOUT = 30
_BEGIN, _END, _COLUMNS = "-----BEGIN SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----\n", 70


def check(seal: bytes, signature: bytes, session: str, closed: datetime, trust: Path) -> str | None:
    """Return None when the signature holds at the time of closing, else why not.

    `ssh-keygen` reads armor leniently, so the armor is first held to its only spelling. The session's id is the
    principal that the certificate must name: a key of another session proves nothing here.
    """
    if not _exact(signature):
        return "the signature file is not an SSH signature in its exact form"
    signers = trust / SIGNERS
    if not signers.is_file():
        return f"there is no {SIGNERS} in {trust}"
    when = closed.astimezone(UTC).strftime("%Y%m%d%H%M%SZ")
    with tempfile.NamedTemporaryFile(prefix="interlock-", suffix=".sig") as file:
        file.write(signature)
        file.flush()
        command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", session, "-n", NAMESPACE]
        command += ["-s", file.name, f"-Overify-time={when}"]
        if (trust / REVOKED).is_file():
            command += ["-r", str(trust / REVOKED)]
        try:
            done = subprocess.run(command, input=seal, capture_output=True, timeout=TIMEOUT, check=False)
        except FileNotFoundError:
            return "ssh-keygen is missing; install the OpenSSH client"
        except subprocess.TimeoutExpired:
            return f"ssh-keygen gave no answer in {TIMEOUT} s"
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        return "ssh-keygen does not accept the signature: " + ("; ".join(said[-3:]) or f"exit {done.returncode}")
    return None


def _exact(signature: bytes) -> bool:
    try:
        text = signature.decode("ascii")
        body = text.removeprefix(_BEGIN).removesuffix(_END)
        blob = base64.b64decode(body.replace("\n", ""), validate=True)
    except (UnicodeDecodeError, binascii.Error):
        return False
    encoded = base64.b64encode(blob).decode("ascii")
    lines = "".join(encoded[at : at + _COLUMNS] + "\n" for at in range(0, len(encoded), _COLUMNS))
    return text == _BEGIN + lines + _END
