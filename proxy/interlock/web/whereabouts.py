"""Where a person's own clients find this proxy: host names, ports, and the keys by which SSH knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from interlock.config import split_address

_ANY = frozenset(("", "0.0.0.0", "::"))  # noqa: S104  compared with, not bound to


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Addresses are where the listeners really are. `host_authority` certifies the host key, so that clients need not learn
    each node's."""

    public_url: str
    ssh: str | None
    postgres: str | None
    host_key: str
    host_authority: str
    tls: bool

    def described(self, asked: str) -> dict[str, Any]:
        """Return it for a client that reached us as `asked`: what listens on every address is there under that name, too."""
        public = urlsplit(self.public_url).hostname or asked
        found: dict[str, Any] = {"ssh": None, "postgres": None}
        if self.ssh is not None:
            host, port = _at(self.ssh, public)
            found["ssh"] = {"host": host, "port": port, "host_key": self.host_key, "host_authority": self.host_authority}
        if self.postgres is not None:
            host, port = _at(self.postgres, public)
            found["postgres"] = {"host": host, "port": port, "tls": self.tls}
        return found


def _at(address: str, public: str) -> tuple[str, int]:
    host, port = split_address(address)
    return (public if host in _ANY else host), port
