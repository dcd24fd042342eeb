"""The ways in, built from the configuration: the identity provider, the register of logins, the login authority.

Part of the composition root: it only builds, and holds one rule of its own, that no two authorities share a key. With one key
for both, a login certificate would open a target directly, around the proxy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from interlock.clock import Clock, Entropy
from interlock.config import CaKey, Config, Issuer, LoginConfig, OidcClient, SshCaConfig, split_address
from interlock.errors import ConfigError
from interlock.evidence.events import Recorder
from interlock.identity.asking import HttpAsking
from interlock.identity.directory import Directory
from interlock.identity.idtoken import IdTokens
from interlock.identity.issuance import Issuance
from interlock.identity.keyset import KeySet
from interlock.identity.logins import Logins
from interlock.identity.logouts import Logouts
from interlock.identity.oidc import trusting
from interlock.identity.provider import Provider, ProviderClient
from interlock.identity.signin import Clients, SignIn
from interlock.identity.ssh_ca import SshCa
from interlock.ssh.host_authority import HostAuthority
from interlock.store.logins import LoginRows

LOGIN_S = 8 * 3600.0


@dataclass(frozen=True, slots=True)
class Entrance:
    """`signin` is there when `identity.login` is configured."""

    logins: Logins
    issuance: Issuance
    host_authority: HostAuthority
    signin: SignIn | None
    connections: tuple[HttpAsking | httpx.AsyncClient, ...] = ()

    async def close(self) -> None:
        """Let what is being written end, and the connections to the provider."""
        await self.logins.close()
        for connection in self.connections:
            await (connection.aclose() if isinstance(connection, httpx.AsyncClient) else connection.close())


async def open_entrance(
    config: Config, data_dir: Path, rows: LoginRows, directory: Directory, *, journal: Recorder, clock: Clock, entropy: Entropy,
    logouts: Logouts,
) -> Entrance:  # fmt: skip
    """Build the ways in. Raise ConfigError, StoreError."""
    wanted, terms = config.identity.login, config.identity.ssh_ca
    ca = SshCa.load_or_create(_key_path(config, data_dir, terms))
    host = HostAuthority.load_or_create(data_dir / "keys" / "host_ca", _names(config))
    _check_distinct(config, data_dir, ca, host)
    logins = Logins(
        directory, rows, clock=clock, entropy=entropy, journal=journal,
        lifetime=wanted.lifetime if wanted is not None else LOGIN_S, register=wanted is not None and wanted.register_people,
    )  # fmt: skip
    await logins.load()
    issuance = Issuance(
        ca, logins, directory, clock=clock, entropy=entropy, journal=journal,
        user_ttl=terms.user_ttl if terms is not None else LOGIN_S, agent_ttl=terms.agent_ttl if terms is not None else 900.0,
    )  # fmt: skip
    issuer = config.identity.login_issuer
    if wanted is None or issuer is None:
        return Entrance(logins, issuance, host, None)
    ca_file = config.path(issuer.ca) if issuer.ca is not None else None
    asking, http = HttpAsking(ca_file), trusting(ca_file)
    signin = _signin(config, wanted, issuer, asking, logins, logouts, clock, entropy, http)
    return Entrance(logins, issuance, host, signin, (asking, http))


def _signin(
    config: Config, wanted: LoginConfig, issuer: Issuer, asking: HttpAsking, logins: Logins, logouts: Logouts, clock: Clock,
    entropy: Entropy, http: httpx.AsyncClient,
) -> SignIn:  # fmt: skip
    keys = KeySet(issuer.issuer, jwks_url=issuer.jwks_url, clock=clock, client=lambda: http)
    tokens = IdTokens(issuer, keys, clock=clock, handle_claim=wanted.handle_claim)
    provider = Provider(issuer.issuer, clock=clock, asking=asking)
    clients = Clients(
        wanted.scopes,
        cli=_client(config, wanted.cli),
        device=_client(config, wanted.device_client),
        web=_client(config, wanted.web),
    )
    return SignIn(provider, tokens, logins, clients, clock=clock, entropy=entropy, logouts=logouts)


def _client(config: Config, client: OidcClient | None) -> ProviderClient | None:
    if client is None:
        return None
    return ProviderClient(
        client.client_id, client.client_secret.resolve(config.base) if client.client_secret is not None else None
    )


def _key_path(config: Config, data_dir: Path, terms: SshCaConfig | None) -> Path:
    if terms is None:
        return data_dir / "keys" / "ssh_ca"
    if terms.key.kind != "file":
        raise ConfigError("identity.ssh_ca.key must be file:PATH")
    return config.path(Path(terms.key.where))


def _names(config: Config) -> list[str]:
    """Return the host names that clients may know this proxy by."""
    names = [urlsplit(config.public_url).hostname or ""]
    if config.listen.ssh is not None:
        names.append(split_address(config.listen.ssh)[0])
    return [*names, "localhost"]


def _check_distinct(config: Config, data_dir: Path, ca: SshCa, host: HostAuthority) -> None:
    """Raise ConfigError when two authorities have one key, now or in an earlier life of the login authority."""
    import asyncssh

    blobs = {"identity.ssh_ca.key": ca.blob, "keys/host_ca": host.blob}
    others: dict[str, tuple[CaKey | None, Path | None]] = {
        "targets_ca.key": (config.targets_ca, None),
        "evidence.ca.key": (config.evidence.ca, data_dir / "keys" / "evidence_ca"),
    }
    for name, (configured, default) in others.items():
        try:
            if configured is not None:
                text = configured.key.resolve(config.base).reveal() + "\n"
                blobs[name] = asyncssh.import_private_key(text).public_data
            elif default is not None and default.exists():
                blobs[name] = asyncssh.read_private_key(default).public_data
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError):
            continue  # whoever uses it says what is wrong with it
    seen: dict[bytes, str] = {}
    for name, blob in blobs.items():
        if blob in seen:
            raise ConfigError(f"{seen[blob]} and {name} are the same key; each authority needs one of its own")
        seen[blob] = name
    for name, blob in blobs.items():
        if name != "identity.ssh_ca.key" and any(blob == old.blob for old in ca.known):
            raise ConfigError(f"{name} was the key of identity.ssh_ca; each authority needs one of its own")
