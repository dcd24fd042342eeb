"""interlock.yaml: strict models and the loader.

An unknown key is an error that names the nearest valid one. Secrets are never in the file: references lead to them
(interlock.references).
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from interlock import platforms
from interlock.errors import ConfigError
from interlock.references import Secret as Secret  # noqa: PLC0414  a configuration gives these to its readers
from interlock.references import SecretRef as SecretRef  # noqa: PLC0414  a configuration gives these to its readers
from interlock.references import VaultRef as VaultRef  # noqa: PLC0414  a configuration gives these to its readers
from interlock.references import referenced

LATER = frozenset(
    (
        "evidence.log_key", "evidence.replay_identity", "evidence.retain", "evidence.witness",
        "listen.proxy_protocol_from", "objects",
    )
)  # fmt: skip
"""Keys of the contract whose controls this version can't enforce. Asking for one refuses to start; none is ignored."""

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)\Z")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _seconds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _DURATION.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("write a duration as a number and ms, s, m, h or d, such as 15m")
    return int(found[1]) * _UNITS[found[2]]


Seconds = Annotated[float, BeforeValidator(_seconds)]


def _address(value: str) -> str:
    split_address(value)
    return value


Address = Annotated[str, AfterValidator(_address)]


def split_address(value: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`. Raise ValueError with what to write instead."""
    host, sep, port = value.rpartition(":")
    if not sep or not port.isdigit() or not 0 <= int(port) < 65536 or (":" in host and not host.startswith("[")):
        raise ValueError(f"write an address as host:port or [v6]:port, not {value!r}")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(Strict):
    name: str = "interlock"
    data_dir: Path


PostgresAuth = Literal["scram", "token", "oauth", "cert"]
_POSTGRES_AUTH = ("scram", "token", "oauth", "cert")


def _postgres_auth(value: object) -> object:
    chosen = value if isinstance(value, list) else [value]
    if not chosen or any(name not in _POSTGRES_AUTH for name in chosen) or len(set(chosen)) != len(chosen):
        raise ValueError("choose scram, token, oauth or cert, or a list of different ones")
    if "token" in chosen and {"scram", "oauth"} & set(chosen):
        # PostgreSQL's protocol has one authentication request a connection, and a clear password is another than SASL.
        raise ValueError("token asks for a clear password and scram and oauth for SASL: one listener can't ask for both")
    return value


class PostgresOAuth(Strict):
    """What a client without a token is told: whose token to get, with which scope. `issuer` is a name of identity.issuers."""

    issuer: str = ""
    scope: str = "openid"


class Listen(Strict):
    ssh: Address | None = None
    postgres: Address | None = None
    http: Address | None = None
    metrics: Address | None = None
    postgres_auth: Annotated[PostgresAuth | list[PostgresAuth], BeforeValidator(_postgres_auth)] = "scram"
    postgres_oauth: PostgresOAuth = PostgresOAuth()

    @property
    def postgres_methods(self) -> frozenset[str]:
        return frozenset([self.postgres_auth] if isinstance(self.postgres_auth, str) else self.postgres_auth)


class Tls(Strict):
    """`client_ca` signs the certificates of clients that may log in with one (listen.postgres_auth: cert)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class Workload(Strict):
    """Tokens with all of these claims are this agent or service of the directory. A list is any of its values."""

    principal: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    claims: Annotated[dict[str, str | list[str]], Field(min_length=1, max_length=16)]


class Issuer(Strict):
    """A token service that is trusted. `platform` says whose tokens these are, `workloads` who of them is whom.

    `single_use`: a token is good once.
    """

    name: str
    issuer: str
    audience: Annotated[str, Field(min_length=1)]
    kind: Literal["human", "agent", "service"] = "human"
    platform: platforms.Name = "generic"
    groups_claim: str = "groups"
    subject_claim: str = ""
    jwks_url: str | None = None
    ca: Path | None = None
    algorithms: list[str] = ["RS256", "ES256", "EdDSA"]
    token_type: list[str] = []
    max_age: Annotated[Seconds, Field(gt=0)] = 86400
    trust_domain: Annotated[str, Field(pattern=r"^([a-z0-9._-]{1,255})?$")] = ""
    single_use: bool | None = None
    workloads: list[Workload] = []

    @model_validator(mode="after")
    def _complete(self) -> Issuer:
        if self.kind == "human" and (self.platform in ("github-actions", "kubernetes", "spiffe") or self.workloads):
            raise ValueError("platform: and workloads: are for kind: agent or service; people are linked by their subject")
        if (self.platform == "spiffe") != bool(self.trust_domain):
            raise ValueError("trust_domain: belongs to platform: spiffe, and names whose SPIFFE IDs are accepted")
        if self.platform == "spiffe" and self.jwks_url is None:
            raise ValueError("platform: spiffe needs jwks_url: where the keys of the trust domain are")
        for workload in self.workloads:
            platforms.check_workload(self.platform, workload.claims)
        return self

    @property
    def types(self) -> tuple[str, ...]:
        """Values of `typ` that are accepted: those that are written, or the platform's own."""
        return tuple(self.token_type) or platforms.PLATFORMS[self.platform].types

    @property
    def subject(self) -> str:
        """The claim that names who it is."""
        return self.subject_claim or platforms.PLATFORMS[self.platform].subject

    @property
    def once(self) -> bool:
        return platforms.PLATFORMS[self.platform].single_use if self.single_use is None else self.single_use

    @property
    def oldest(self) -> float:
        """Seconds since `iat` after which a token is refused: of one use no longer than is remembered which were used."""
        return min(self.max_age, 43_200) if self.once else self.max_age


class Scim(Strict):
    """Users and groups that an identity provider sends. `issuer` is a name of identity.issuers, `subject` says which
    attribute of a user is their subject there."""

    token: SecretRef
    issuer: str
    subject: Literal["externalId", "userName"] = "externalId"


class CaKey(Strict):
    key: SecretRef


class OidcClient(Strict):
    """One registration at the provider. Without client_secret it is a public client."""

    client_id: Annotated[str, Field(min_length=1, max_length=255)]
    client_secret: SecretRef | None = None


class LoginConfig(Strict):
    """How people log in at one of identity.issuers. `cli` is the registration for browsers on a person's own machine,
    `device` the one for codes (`cli` unless the provider wants another), `web` the console's."""

    issuer: str
    scopes: Annotated[str, Field(max_length=512)] = "openid profile email"
    handle_claim: Annotated[str, Field(max_length=255)] = "preferred_username"
    lifetime: Annotated[Seconds, Field(gt=0, le=86400)] = 28800
    register_people: bool = True
    cli: OidcClient | None = None
    device: OidcClient | None = None
    web: OidcClient | None = None

    @model_validator(mode="after")
    def _complete(self) -> LoginConfig:
        if "openid" not in self.scopes.split():
            raise ValueError("scopes: must hold openid, or the provider says nothing about who logged in")
        if self.cli is None and self.device is None and self.web is None:
            raise ValueError("identity.login needs cli:, device: or web: with the client_id that the provider gave")
        return self

    @property
    def device_client(self) -> OidcClient | None:
        return self.device or self.cli


class SshCaConfig(Strict):
    """The authority of logins: its certificates are trusted by this proxy and by nobody else."""

    key: SecretRef
    user_ttl: Annotated[Seconds, Field(ge=60, le=28800)] = 28800
    agent_ttl: Annotated[Seconds, Field(ge=60, le=3600)] = 900


class IdentityConfig(Strict):
    issuers: list[Issuer] = []
    groups_max_age: Annotated[Seconds, Field(gt=0, le=30 * 86400)] = 8 * 3600
    scim: Scim | None = None
    login: LoginConfig | None = None
    ssh_ca: SshCaConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> IdentityConfig:
        for what, values in (("name", [i.name for i in self.issuers]), ("issuer", [i.issuer for i in self.issuers])):
            if len(values) != len(set(values)):
                raise ValueError(f"two issuers have the same {what}")
        if self.scim is not None and not any(i.name == self.scim.issuer and i.kind == "human" for i in self.issuers):
            raise ValueError("scim.issuer: must be the name of one of issuers: of kind human")
        if self.login is not None and not any(i.name == self.login.issuer and i.kind == "human" for i in self.issuers):
            raise ValueError("identity.login.issuer must be the name of one of identity.issuers, of kind: human")
        return self

    def named(self, name: str) -> Issuer:
        return next(issuer for issuer in self.issuers if issuer.name == name)

    @property
    def login_issuer(self) -> Issuer | None:
        return next((known for known in self.issuers if self.login is not None and known.name == self.login.issuer), None)


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


def _check_sent_safely(key: str, url: str) -> None:
    """Raise ValueError unless what is sent to `url` crosses no network in clear text. Secrets and tokens go there."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{key}: carries credentials; remove them")
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname))):
        raise ValueError(f"{key}: must be https")


class TeamsConfig(Strict):
    app_id: Annotated[str, Field(min_length=1)]
    app_password: SecretRef
    tenants: Annotated[list[str], Field(min_length=1)]
    conversation: str = ""
    escalation: str = ""
    direct: bool = False
    service_url: str
    service_hosts: list[str] = ["smba.trafficmanager.net"]
    transport: Literal["native", "botbuilder"] = "native"
    keys_url: str = "https://login.botframework.com/v1/.well-known/keys"
    token_url: str = ""

    @model_validator(mode="after")
    def _safe(self) -> TeamsConfig:
        for key, url in (("service_url", self.service_url), ("keys_url", self.keys_url), ("token_url", self.token_endpoint)):
            _check_sent_safely(key, url)
        return self

    @property
    def token_endpoint(self) -> str:
        """Where a token for the bot is had: the first tenant's own service, unless the configuration names another."""
        return self.token_url or f"https://login.microsoftonline.com/{self.tenants[0]}/oauth2/v2.0/token"


class SlackConfig(Strict):
    """`mode: socket` needs `app_token` (xapp-…) and no inbound address; `http` needs `signing_secret`."""

    team: Annotated[str, Field(pattern=r"^T[A-Z0-9]{1,20}$")]
    app: Annotated[str, Field(pattern=r"^A[A-Z0-9]{1,20}$")]
    bot_token: SecretRef
    mode: Literal["socket", "http"] = "socket"
    app_token: SecretRef | None = None
    signing_secret: SecretRef | None = None
    channel: Annotated[str, Field(pattern=r"^[CGD][A-Z0-9]{1,20}$")]
    escalation: str = ""
    api_url: str = "https://slack.com/api/"

    @model_validator(mode="after")
    def _complete(self) -> SlackConfig:
        if self.mode == "socket" and self.app_token is None:
            raise ValueError("mode: socket needs app_token: (xapp-…, with connections:write)")
        if self.mode == "http" and self.signing_secret is None:
            raise ValueError("mode: http needs signing_secret:")
        _check_sent_safely("api_url", self.api_url)
        return self


class WebhookConfig(Strict):
    """Every change of a request is posted there, signed; `events` empty means all of them."""

    url: str
    secret: SecretRef
    events: list[Literal["pending", "escalated", "approved", "denied", "expired", "ended", "break_glass"]] = []

    @model_validator(mode="after")
    def _safe(self) -> WebhookConfig:
        parts = urlsplit(self.url)
        if parts.username or parts.password:
            raise ValueError("url: carries credentials; the signature authenticates, so remove them")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise ValueError("url: must be https")
        return self


class Channels(Strict):
    teams: TeamsConfig | None = None
    slack: SlackConfig | None = None
    webhook: WebhookConfig | None = None


class BreakGlassConfig(Strict):
    """Who may answer alone, in place of a rule's groups and quorum, with a passkey and a written reason."""

    groups: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    validity: Annotated[Seconds, Field(gt=0, le=3600)] = 300


class FatigueConfig(Strict):
    """`pending`: requests of one requester that may wait at once. After `denials` within `window`, a lock of `lock`."""

    pending: Annotated[int, Field(ge=1, le=10_000)] = 50
    denials: Annotated[int, Field(ge=1, le=1_000)] = 10
    window: Annotated[Seconds, Field(gt=0)] = 600
    lock: Annotated[Seconds, Field(gt=0)] = 900


class ApprovalsConfig(Strict):
    hold: Seconds = 60
    expires: Seconds = 900
    max_hold_in_transaction: Seconds = 60
    validity: Seconds = 900
    grants: Annotated[Seconds, Field(gt=0, le=86400)] = 3600
    new_reviewer_delay: Seconds | None = None
    break_glass: BreakGlassConfig | None = None
    fatigue: FatigueConfig = FatigueConfig()
    channels: Channels = Channels()


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
        _check_sent_safely("address", self.address)
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


def load(path: Path) -> Config:
    """Read and validate a configuration file whole. Raise ConfigError with every problem, one a line."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}. Name another file with --config.") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must be a mapping that begins with `version: 1`")
    return parse(data, base=path.parent.resolve(), source=str(path))


def parse(data: Mapping[str, Any], *, base: Path, source: str = "configuration") -> Config:
    """Validate data that YAML gave. Raise ConfigError."""
    try:
        return Config.model_validate({**_expand(data), "base": base})
    except ValidationError as error:
        lines = [_explain(dict(problem), data) for problem in error.errors(include_input=False, include_url=False)]
        raise ConfigError(f"{source}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _expand(value: Any) -> Any:
    """Replace `${NAME}` in strings; a variable that is not set is an error."""
    if isinstance(value, dict):
        return {k: _expand(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v) for v in value]
    if isinstance(value, str):
        return _ENV.sub(_from_environment, value)
    return value


def _from_environment(found: re.Match[str]) -> str:
    try:
        return os.environ[found[1]]
    except KeyError:
        raise ConfigError(f"${{{found[1]}}} is not set in the environment; set it or remove the reference") from None


def _explain(problem: dict[str, Any], data: Mapping[str, Any]) -> str:
    """Say where and what; for an unknown key also the nearest valid one."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{place or 'top level'}: {problem['msg'].removeprefix('Value error, ')}"
    if place in LATER:
        return f"{place}: this version can't enforce it, so it does not start with it; remove the key"
    key = str(problem["loc"][-1])
    near = difflib.get_close_matches(key, [known for known in _known_keys() if known != key], n=1)
    return f"{place}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _known_keys() -> list[str]:
    models: list[type[Strict]] = [Config, *Strict.__subclasses__()]
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})
