"""The whole of interlock.yaml: its sections, and what one asks of another.

Must not know what the file looks like or where it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from interlock.config.approvals import ApprovalsConfig
from interlock.config.identity import IdentityConfig, Issuer
from interlock.config.listen import Listen, Tls
from interlock.config.targets import TargetConfig
from interlock.config.values import Strict, check_sent_safely, is_loopback, split_address
from interlock.references import SecretRef, VaultRef


class Node(Strict):
    name: str = "interlock"
    data_dir: Path


class CaKey(Strict):
    key: SecretRef


class EvidenceConfig(Strict):
    sync: Literal["review", "every"] = "review"
    ca: CaKey | None = None


class VaultConfig(Strict):
    """Where `vault:` references lead. The token is read anew at each request, as Vault Agent renews its file."""

    address: str
    token: SecretRef
    namespace: str = ""
    ca: Path | None = None

    @model_validator(mode="after")
    def _safe(self) -> VaultConfig:
        check_sent_safely("address", self.address)
        return self


class StoreConfig(Strict):
    url: str = "sqlite:///interlock.db"


class Config(Strict):
    """The whole of interlock.yaml. `base` is the folder that relative paths start from."""

    version: Literal[1]
    node: Node
    listen: Listen = Listen()
    tls: Tls | None = None
    public_url: str = ""
    identity: IdentityConfig = IdentityConfig()
    targets_ca: CaKey | None = None
    targets: list[TargetConfig] = []
    policies: list[Path] = []
    approvals: ApprovalsConfig = ApprovalsConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    store: StoreConfig = StoreConfig()
    vault: VaultConfig | None = None
    base: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [t.name for t in self.targets]
        if len(names) != len(set(names)):
            raise ValueError("two targets have the same name; names must be unique")
        if self.tls is None:
            for kind, address in (("postgres", self.listen.postgres), ("http", self.listen.http)):
                if address is not None and not is_loopback(split_address(address)[0]):
                    raise ValueError(f"listen.{kind} without tls: may bind loopback only; add tls: or use 127.0.0.1")
        self._check_postgres_auth()
        if self.identity.login is not None and self.identity.login.web is not None and not self.public_url:
            raise ValueError("identity.login.web needs public_url:, the address that the provider sends browsers back to")
        if self.vault is None and any(isinstance(t.credentials.source, VaultRef) for t in self.targets):
            raise ValueError("a vault: reference needs vault: {address: https://…, token: file:…}")
        open_to_all = self.listen.postgres is not None and not is_loopback(split_address(self.listen.postgres)[0])
        if open_to_all and any(t.unsafe_client_settings for t in self.targets):
            raise ValueError(
                "unsafe_client_settings: is for tests on one machine; listen.postgres must be on loopback, or remove it"
            )
        slack = self.approvals.channels.slack
        if slack is not None and slack.mode == "http" and self.listen.http is None:
            raise ValueError("approvals.channels.slack.mode: http needs listen.http, where Slack posts to; or use mode: socket")
        if any(t.credentials.kind == "ssh-ca" for t in self.targets) and self.targets_ca is None:
            raise ValueError("credentials.kind ssh-ca needs targets_ca: {key: file:…}")
        return self

    def _check_postgres_auth(self) -> None:
        methods = self.listen.postgres_methods
        for method, why in (
            ("token", "sends the token in clear"), ("oauth", "sends the token in clear"), ("cert", "reads certificates of TLS"),
        ):  # fmt: skip
            if method in methods and self.tls is None:
                raise ValueError(f"listen.postgres_auth: {method} {why}, so it needs tls:")
        if "cert" in methods and (self.tls is None or self.tls.client_ca is None):
            raise ValueError("listen.postgres_auth: cert needs tls.client_ca, the CA of the clients' certificates")
        if "oauth" in methods and self.oauth_issuer is None:
            raise ValueError(
                "listen.postgres_auth: oauth needs listen.postgres_oauth.issuer, the name of one of identity.issuers"
            )

    @property
    def oauth_issuer(self) -> Issuer | None:
        """Whose token a Postgres client is told to get: the one named, or the only one there is."""
        issuers, name = self.identity.issuers, self.listen.postgres_oauth.issuer
        if not name:
            return issuers[0] if len(issuers) == 1 else None
        return next((issuer for issuer in issuers if issuer.name == name), None)

    @property
    def issuers(self) -> list[Issuer]:
        """The issuers, with paths that do not depend on where the file is."""
        return [i if i.ca is None else i.model_copy(update={"ca": self.path(i.ca)}) for i in self.identity.issuers]

    def target(self, name: str) -> TargetConfig | None:
        return next((t for t in self.targets if t.name == name), None)

    def path(self, relative: Path) -> Path:
        return relative if relative.is_absolute() else self.base / relative
