"""interlock.yaml: strict models, the loader, and references to secrets.

An unknown key is an error that names the nearest valid one. Secrets are never in the file: `env:NAME`, `file:PATH` and
`${NAME}` refer to them, and `Secret` keeps the value out of logs, errors and `repr`.
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

from interlock.errors import ConfigError

LATER = frozenset(
    (
        "evidence.log_key", "evidence.replay_identity", "evidence.retain", "evidence.witness", "identity.groups_max_age",
        "identity.ssh_ca", "listen.proxy_protocol_from", "objects",
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


class Secret:
    """A value that never shows: not in repr, str, logs, errors or comparisons that leak."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


class SecretRef(BaseModel):
    """`env:NAME` or `file:PATH`: where a secret is, not what it is."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["env", "file"]
    where: str

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            kind, sep, where = value.partition(":")
            if sep and kind in ("env", "file") and where:
                return {"kind": kind, "where": where}
            if kind == "vault":
                raise ValueError("vault: references need the Vault provider, which this version does not have yet")
            raise ValueError("refer to a secret as env:NAME or file:PATH; never write it here")
        return value

    def resolve(self, base: Path) -> Secret:
        """Read the secret now. Raise ConfigError that names the reference, never the value."""
        if self.kind == "env":
            value = os.environ.get(self.where)
            if not value:
                raise ConfigError(f"the environment variable {self.where} is not set; set it or refer to a file")
            return Secret(value)
        path = base / self.where
        try:
            return Secret(path.read_text().rstrip("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the secret file {path} can't be read: {error.__class__.__name__}") from None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(Strict):
    name: str = "interlock"
    data_dir: Path


class Listen(Strict):
    ssh: Address | None = None
    postgres: Address | None = None
    http: Address | None = None
    metrics: Address | None = None
    postgres_auth: Literal["scram", "token"] = "scram"


class Tls(Strict):
    certificate: Path
    key: Path


class Issuer(Strict):
    name: str
    issuer: str
    audience: str
    kind: Literal["human", "agent", "service"] = "human"
    groups_claim: str = "groups"
    jwks_url: str | None = None
    algorithms: list[str] = ["RS256", "ES256", "EdDSA"]
    token_type: list[str] = ["at+jwt", "JWT"]
    max_age: Seconds = 86400


class CaKey(Strict):
    key: SecretRef


class IdentityConfig(Strict):
    issuers: list[Issuer] = []


class Credentials(Strict):
    kind: Literal["password", "ssh-ca", "key", "none"] = "none"
    source: SecretRef | None = Field(default=None, alias="from")
    key: SecretRef | None = None
    pin: Literal["reviewed", "never"] = "reviewed"


class TargetConfig(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    protocol: Literal["ssh", "postgres"]
    address: Address
    labels: dict[str, str] = {}
    credentials: Credentials = Credentials()
    account: str = ""
    host_keys: Path | SecretRef | None = None
    shell: Literal["bash", "posix", "unknown", "fish", "tcsh", "csh"] = "unknown"
    database: str = ""
    role: str = ""
    search_path: str = "public, pg_temp"
    tls: Literal["disable", "require", "verify-full"] = "verify-full"
    tls_ca: Path | None = None
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
        return self


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
        if self.listen.postgres_auth == "token" and self.tls is None:
            raise ValueError("listen.postgres_auth: token sends the token in clear, so it needs tls:")
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
