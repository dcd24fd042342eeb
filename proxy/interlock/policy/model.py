"""The words of policy: the facts that rules read and the decision they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from interlock.commands.model import Analysis, Command
from interlock.identity.principal import Principal


class Verdict(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    REVIEW = "review"


class StepUp(StrEnum):
    NONE = "none"
    REAUTH = "reauth"
    PASSKEY = "passkey"


class Risk(StrEnum):
    LOW = "low"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Target:
    """What rules may know of a target. `account` is the SSH account, `role` and `database` are Postgres's.

    The labels are a copy that nobody can change: decisions are cached under the target they were made for.
    """

    name: str
    protocol: str  # ssh | postgres | tcp
    labels: Mapping[str, str] = field(default_factory=dict)
    account: str = ""
    role: str = ""
    database: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))


@dataclass(frozen=True, slots=True)
class SessionFacts:
    id: str = ""
    client: str = ""  # source address, without the port
    opened: datetime | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a rule can read, and nothing else. `now` is passed in: rules that read time are not cached."""

    principal: Principal
    target: Target
    command: Command
    analysis: Analysis
    session: SessionFacts
    now: datetime


@dataclass(frozen=True, slots=True)
class Need:
    """So many distinct people, each in one of these groups."""

    groups: tuple[str, ...] = ()
    quorum: int = 1


@dataclass(frozen=True, slots=True)
class ReviewTerms:
    """Who must answer, and for how long the question stands. Durations in seconds.

    `groups` and `quorum` are the first need; `also` are further ones, from rules that no group could answer for together.
    Every need is met by people of its own: one person counts for one of them. `escalate` is when more people are told, 0
    for never; it never changes who may answer.
    """

    groups: tuple[str, ...] = ()
    quorum: int = 1
    expires: int = 900
    hold: int = 60
    returns: bool = True  # False: hold-only
    step_up: StepUp = StepUp.NONE
    risk: Risk = Risk.HIGH
    scopes: tuple[str, ...] = ("once",)
    also: tuple[Need, ...] = ()
    escalate: int = 0

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need(self.groups, self.quorum), *self.also)

    @property
    def people(self) -> int:
        """How many people must approve, all needs together."""
        return sum(max(1, need.quorum) for need in self.needs)

    @property
    def all_groups(self) -> tuple[str, ...]:
        """Every group whose members may answer, each once."""
        return tuple(dict.fromkeys(group for need in self.needs for group in need.groups))

    @property
    def critical(self) -> bool:
        """Whether a personal proof is asked for: no scope but once, no approve button in chat."""
        return self.risk is Risk.CRITICAL or self.step_up is StepUp.PASSKEY


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of policy to one command.

    `rule` is `pack/id` of the rule that carried the verdict, or `default`. `policy` is `sha256:…` of the loaded
    policy bytes. `matched` lists every rule that matched, `observed` those in observe mode. `lasts`: as long as this
    policy is in force, the same text with the same analysis is decided the same for this principal at this target,
    whenever it comes (no rule that can apply reads `time`). `blind`: that holds for any other text of the same kind with the same
    effects and opaque parts (no rule that is asked reads `command`).
    """

    verdict: Verdict
    rule: str
    reason: str
    policy: str
    hint: str = ""
    review: ReviewTerms | None = None
    matched: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    lasts: bool = field(default=False, compare=False, repr=False)
    blind: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """Whether a principal may open a target at all. `rule` is the index in `access:` that granted it."""

    granted: bool
    rule: str
    reason: str
