"""Who asks, for `explain --as`: somebody registered, or somebody described on the spot."""

from __future__ import annotations

from interlock.cli.client import Client
from interlock.config import Config
from interlock.control import SOCKET
from interlock.errors import InterlockError, NotFoundError, Reason
from interlock.identity.principal import Credential, CredentialKind, Identity, Kind, Principal


class UsageError(InterlockError):
    """The call itself is wrong; the message says how it is right."""

    reason = Reason.CONFIG_INVALID  # exit code 2

    @property
    def next_step(self) -> str:
        return str(self)


def find_asker(written: str, server: str | None, config: Config | None) -> Principal:
    """Read `KIND[/HANDLE][:GROUP,…]`, or look a handle up at the daemon. Raise UsageError or what the daemon answers."""
    head = written.partition(":")[0].partition("/")[0]
    if head in [str(kind) for kind in Kind]:
        return parse_who(written)
    if ":" in written or "/" in written or not written:
        raise UsageError(f"--as {written}: write a handle or KIND[/HANDLE][:GROUP,…], such as human:sre")
    at = server or (str(config.path(config.node.data_dir) / SOCKET) if config is not None else None)
    rows = Client(at).get("/v1/principals")["principals"]
    found = next((row for row in rows if row["handle"] == written), None)
    if found is None:
        raise NotFoundError(f"nobody is registered as {written}; `interlock principals list` shows who is")
    owner = next((row for row in rows if row["handle"] == found["owner"]), None)
    return Principal(
        identity=_identity(found["identity"]), handle=written, kind=Kind(found["kind"]), credential=_CREDENTIAL,
        groups=frozenset(found["groups"]), owner=None if owner is None else _identity(owner["identity"]),
        owner_handle=found["owner"] or "",
    )  # fmt: skip


def parse_who(written: str) -> Principal:
    """Read `KIND[/HANDLE][:GROUP,…]`: an agent without groups is `agent`."""
    head, _, groups = written.partition(":")
    kind, _, handle = head.partition("/")
    name = handle or kind
    return Principal(
        identity=Identity("explain", name), handle=name, kind=Kind(kind), credential=_CREDENTIAL,
        groups=frozenset(group for group in groups.split(",") if group),
    )  # fmt: skip


_CREDENTIAL = Credential(CredentialKind.TOKEN, "explain")


def _identity(written: str) -> Identity:
    issuer, _, subject = written.rpartition(":")
    return Identity(issuer, subject)
