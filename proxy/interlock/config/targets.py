"""`targets:`: what may be reached, and how each target is convinced of us and we of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from interlock.config.values import Address, Seconds, Strict, is_loopback, split_address
from interlock.references import SecretRef, VaultRef, referenced


class Credentials(Strict):
    """How a target is convinced of us. Which keys a kind takes is checked, so that none is silently without effect."""

    kind: Literal["password", "certificate", "vault-database", "rds-iam", "ssh-ca", "key", "agent", "none"] = "none"
    source: Annotated[SecretRef | VaultRef | None, BeforeValidator(referenced)] = Field(default=None, alias="from")
    key: SecretRef | None = None
    certificate: Path | None = None
    agent: Path | None = None
    public_key: Path | None = None
    pin: Literal["reviewed", "never"] = "reviewed"
    md5: bool = False
    region: str = ""
    access_key: SecretRef | None = None
    secret_key: SecretRef | None = None
    session_token: SecretRef | None = None

    @model_validator(mode="after")
    def _complete(self) -> Credentials:
        if self.kind == "password" and self.source is None:
            raise ValueError("kind: password needs from: env:NAME, file:PATH or vault:PATH#FIELD")
        if isinstance(self.source, VaultRef) and (self.kind == "password") != bool(self.source.field):
            raise ValueError("kind: password needs from: vault:PATH#FIELD, and vault-database from: vault:PATH without a field")
        if self.kind == "vault-database" and not isinstance(self.source, VaultRef):
            raise ValueError("kind: vault-database needs from: vault:database/creds/ROLE")
        if self.kind == "certificate" and self.certificate is None:
            raise ValueError("kind: certificate needs certificate: PATH and key: file:PATH")
        if self.kind == "certificate" and self.source is not None:
            raise ValueError("kind: certificate takes no from:; for both write kind: password with certificate: and key:")
        if self.certificate is not None and (self.key is None or self.key.kind != "file"):
            raise ValueError("certificate: needs its key: file:PATH beside it")
        if self.kind == "rds-iam" and not self.region:
            raise ValueError("kind: rds-iam needs region:, such as eu-central-1")
        if self.kind != "rds-iam" and (self.region or self.access_key or self.secret_key or self.session_token):
            raise ValueError("region:, access_key:, secret_key: and session_token: are for kind: rds-iam")
        if (self.kind == "agent") != (self.agent is not None and self.public_key is not None):
            raise ValueError("kind: agent, and no other, needs agent: SOCKET and public_key: PATH of the one key to use")
        if self.md5 and self.kind not in ("password", "vault-database"):
            raise ValueError("md5: is for kinds with a password")
        return self

    def check(self, base: Path) -> None:
        """Read every secret that is at hand, so that a missing one is found at start. Raise ConfigError."""
        for reference in (self.source, self.access_key, self.secret_key, self.session_token):
            if isinstance(reference, SecretRef):
                reference.resolve(base)


class Reuse(Strict):
    """How one connection to an ssh target serves the allowed commands of one principal.

    `sessions` at once must be below the target's MaxSessions (10 where sshd_config is silent); `idle: 0s` closes it with its
    last command; after `age` no command begins on it, and never after its certificate has ended.
    """

    sessions: Annotated[int, Field(ge=1, le=64)] = 8
    idle: Annotated[Seconds, Field(ge=0, le=3600)] = 60
    age: Annotated[Seconds, Field(gt=0, le=86400)] = 600


class TargetConfig(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    protocol: Literal["ssh", "postgres"]
    address: Address
    labels: dict[str, str] = {}
    credentials: Credentials = Credentials()
    account: str = ""
    host_keys: Path | SecretRef | None = None
    shell: Literal["bash", "posix", "unknown", "fish", "tcsh", "csh"] = "unknown"
    reuse: Reuse = Reuse()
    database: str = ""
    role: str = ""
    search_path: str = "public, pg_temp"
    tls: Literal["disable", "require", "verify-full"] = "verify-full"
    tls_ca: Path | None = None
    tls_name: str = ""
    unsafe_client_settings: bool = False

    @model_validator(mode="after")
    def _complete(self) -> TargetConfig:
        if self.protocol == "ssh" and not self.account:
            raise ValueError("an ssh target needs account: the user name at the target")
        if self.protocol == "ssh" and self.host_keys is None:
            raise ValueError("an ssh target needs host_keys: file:known_hosts; nothing is trusted on first use")
        if self.protocol == "postgres" and not (self.database and self.role):
            raise ValueError("a postgres target needs database: and role:")
        if self.protocol == "postgres" and self.tls == "disable" and not is_loopback(split_address(self.address)[0]):
            raise ValueError("tls: disable is for a target on loopback only; use verify-full")
        if self.unsafe_client_settings and self.protocol != "postgres":
            raise ValueError("unsafe_client_settings: belongs to a postgres target")
        if self.unsafe_client_settings and not is_loopback(split_address(self.address)[0]):
            raise ValueError("unsafe_client_settings: is for tests against a server on loopback only; remove it")
        if self.protocol == "postgres":
            self._check_postgres_credentials()
        return self

    def _check_postgres_credentials(self) -> None:
        kind, loopback = self.credentials.kind, is_loopback(split_address(self.address)[0])
        if kind in ("ssh-ca", "key", "agent"):
            raise ValueError(f"credentials.kind {kind} is for ssh targets; use password, certificate, vault-database or rds-iam")
        if kind == "rds-iam" and self.tls != "verify-full":
            # The server asks for the token in clear: only a server that has proven its name may see it.
            raise ValueError("credentials.kind rds-iam needs tls: verify-full")
        if self.credentials.certificate is not None and self.tls != "verify-full":
            raise ValueError("a client certificate does not prove the server: it needs tls: verify-full")
        if self.credentials.md5 and self.tls != "verify-full" and not loopback:
            raise ValueError("credentials.md5 proves nothing about the server, so it needs tls: verify-full")
