"""`identity:`: whose tokens are trusted, how people log in, and who sends users and groups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from interlock import platforms
from interlock.config.values import Seconds, Strict
from interlock.references import SecretRef


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
