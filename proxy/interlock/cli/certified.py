"""The key of a login: made here, certified by the daemon, kept in the SSH agent or in files.

The private key never leaves this machine and no process but this one and the agent ever has it in memory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from interlock.cli.client import Client
from interlock.cli.kept import MARGIN, Kept, write
from interlock.clock import SystemClock

if TYPE_CHECKING:
    import asyncssh  # where it is needed it is imported late: `interlock connect` stands before every ssh


class NewKey:
    """A key that was made just now: the public half is asked a certificate for, the private one is kept with it."""

    def __init__(self) -> None:
        import asyncssh

        self._key = asyncssh.generate_private_key("ssh-ed25519", comment="interlock")
        self.public = " ".join(self._key.export_public_key().decode().split()[:2])

    def keep(self, kept: Kept, client: Client, answer: Mapping[str, Any]) -> str:
        """Keep the key and its certificate, and how ssh knows the proxy; return when it ends."""
        line, expires = str(answer["certificate"]), str(answer["expires"])
        about = client.get("/v1/connect")
        in_agent = _to_agent(self._key, line, datetime.fromisoformat(expires))
        kept.key.unlink(missing_ok=True)  # an older key never stands beside a newer certificate
        write(kept.key.with_name("id.pub"), self.public + "\n")
        write(kept.certificate, line + "\n")
        if not in_agent:
            write(kept.key, self._key.export_private_key().decode())
        if about["ssh"]:
            write(kept.known_hosts, known_hosts(about["ssh"]))
        kept.keep_about({**about, "certificate_expires": expires, "agent": in_agent})
        return expires


def renew(kept: Kept, client: Client) -> str:
    """Make a new key, have it certified, keep it; return when it ends. Raise what the daemon answers."""
    key = NewKey()
    return key.keep(kept, client, client.post("/v1/certificate", {"public_key": key.public}))


def fresh(kept: Kept) -> bool:
    """Whether the certificate is there and good for another minute."""
    ends = kept.about().get("certificate_expires")
    return kept.certificate.exists() and isinstance(ends, str) and datetime.fromisoformat(ends) > SystemClock().now() + MARGIN


def known_hosts(ssh: dict[str, object]) -> str:
    """Return the lines by which ssh knows the proxy: its authority for every node, and this node's own key."""
    host = str(ssh["host"]) if ssh["port"] == 22 else f"[{ssh['host']}]:{ssh['port']}"
    return f"@cert-authority {host} {ssh['host_authority']}\n{host} {ssh['host_key']}\n"


def _to_agent(key: asyncssh.SSHKey, line: str, ends: datetime) -> bool:
    """Give the key to the SSH agent until the certificate ends; False where there is none that takes it."""
    if not os.environ.get("SSH_AUTH_SOCK"):
        return False
    import asyncssh

    lifetime = min(max(1, int((ends - SystemClock().now()).total_seconds())), 2**31 - 1)  # 32 bits in the agent's protocol

    async def add() -> bool:
        try:
            async with asyncio.timeout(10), asyncssh.connect_agent() as agent:
                await agent.add_keys([(key, asyncssh.import_certificate(line))], lifetime=lifetime)
        except (OSError, ValueError, TimeoutError, asyncssh.Error):
            return False
        return True

    return asyncio.run(add())
