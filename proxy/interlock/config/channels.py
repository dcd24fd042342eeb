"""`approvals.channels:`: where requests are shown and answered."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from interlock.config.values import Strict, check_sent_safely, is_loopback
from interlock.references import SecretRef


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
            check_sent_safely(key, url)
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
        check_sent_safely("api_url", self.api_url)
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
