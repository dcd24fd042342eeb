"""The principal: who is asking, for whom, and by what proof. Established once a connection, carried everywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

HANDLE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
"""A handle is the unique name of a principal in addresses (`psql user=HANDLE`). Authority never follows from it."""

MAX_CHAIN = 3
"""Longest delegation chain that is accepted (newest first)."""


class Kind(StrEnum):
    HUMAN = "human"
    AGENT = "agent"
    SERVICE = "service"


class CredentialKind(StrEnum):
    SSH_KEY = "ssh-key"
    TOKEN = "token"
    SCRAM = "scram"
    JWT = "jwt"
    CERTIFICATE = "certificate"
    EXCHANGED = "exchanged"
    LOGIN = "login"
    SSH_CERTIFICATE = "ssh-certificate"
    PASSPHRASE = "passphrase"
    PEER = "unix-peer"


@dataclass(frozen=True, slots=True)
class Identity:
    """A stable identifier: the issuer that vouches and its subject. Names and e-mails are not part of it."""

    issuer: str
    subject: str

    def __str__(self) -> str:
        return f"{self.issuer}:{self.subject}"


@dataclass(frozen=True, slots=True)
class Origin:
    """The issuer's own words in a token of its: whom it is about and who acts for them, by their subjects there, its own
    session (`sid`, empty where it says none), and when it was issued. By these it says later that a login is over."""

    issuer: str
    accounts: tuple[str, ...]
    session: str
    issued: datetime


@dataclass(frozen=True, slots=True)
class Credential:
    """What was proven. `ident` is a key fingerprint, token id or jti: never the secret itself. `origins` are the issuers'
    tokens that it is, or that it was made from."""

    kind: CredentialKind
    ident: str
    expires: datetime | None = None
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Assurance:
    """How strongly, in the words of OIDC Core §2 (acr, amr, auth_time)."""

    acr: str = ""
    amr: tuple[str, ...] = ()
    auth_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Authority:
    """What somebody in a delegation chain may do by themselves: whoever acts for them may do no more."""

    identity: Identity
    handle: str
    kind: Kind
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking.

    `acting_for` is the delegation chain, newest first, at most `MAX_CHAIN`; `behind` is what those in it may do, who must all
    be allowed what is asked (`views`). `groups` are the principal's own. `owner` answers for an agent.
    """

    identity: Identity
    handle: str
    kind: Kind
    credential: Credential
    groups: frozenset[str] = frozenset()
    owner: Identity | None = None
    acting_for: tuple[Identity, ...] = ()
    linked: frozenset[Identity] = frozenset()
    assurance: Assurance = field(default_factory=Assurance)
    acting_for_handles: tuple[str, ...] = ()
    owner_handle: str = ""
    behind: tuple[Authority, ...] = ()

    def views(self) -> tuple[Principal, ...]:
        """Return everybody who must be allowed what is asked, each as alone: the principal itself, then those behind it.

        Groups are not simply intersected: a rule that denies something to a group would not see that group any more.
        """
        return _views(self) if self.behind else (self,)

    def excluded(self) -> frozenset[Identity]:
        """Everybody who can't answer a request of this principal: itself, its linked accounts, chain and owner."""
        chain = {self.identity, *self.linked, *self.acting_for}
        if self.owner is not None:
            chain.add(self.owner)
        return frozenset(chain)

    def expired(self, now: datetime) -> bool:
        return self.credential.expires is not None and now >= self.credential.expires


@lru_cache(1024)
def _views(principal: Principal) -> tuple[Principal, ...]:
    """Kept, so that whoever caches by object finds the same ones again."""
    return (
        replace(principal, behind=()),
        *(
            Principal(one.identity, one.handle, one.kind, principal.credential, one.groups, assurance=principal.assurance)
            for one in principal.behind
        ),
    )
