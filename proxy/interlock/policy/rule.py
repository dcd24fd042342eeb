"""Rules as they are evaluated: compiled conditions, matchers, access, and the cases beside them.

Made by loader.py from the forms of schema.py. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from interlock.commands.model import Command
from interlock.identity.principal import Principal
from interlock.policy.condition import Condition
from interlock.policy.model import ReviewTerms, Target, Verdict

ANY = "*"


@dataclass(frozen=True, slots=True)
class Who:
    """Who is meant. Empty keys do not restrict; every other must match with any of its values."""

    groups: frozenset[str] = frozenset()
    handles: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()

    def matches(self, principal: Principal) -> bool:
        return (
            (not self.groups or not self.groups.isdisjoint(principal.groups))
            and (not self.handles or principal.handle in self.handles)
            and (not self.subjects or str(principal.identity) in self.subjects)
            and (not self.kinds or str(principal.kind) in self.kinds)
        )


@dataclass(frozen=True, slots=True)
class Targets:
    """Which targets are meant: by names, by labels (all must be there), or every one."""

    every: bool = False
    names: frozenset[str] = frozenset()
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def matches(self, target: Target) -> bool:
        if self.every or target.name in self.names:
            return True
        return bool(self.labels) and all(target.labels.get(key) in values for key, values in self.labels.items())


@dataclass(frozen=True, slots=True)
class Match:
    """The cheap filter before a condition."""

    protocol: str = ""
    target: Targets | None = None
    who: Who | None = None
    verbs: frozenset[str] = frozenset()

    def applies(self, principal: Principal, target: Target) -> bool:
        """Whether the rule can matter in this session at all; verbs are asked later."""
        return (
            (not self.protocol or self.protocol == target.protocol)
            and (self.target is None or self.target.matches(target))
            and (self.who is None or self.who.matches(principal))
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a pack. `name` is `pack/id`; `place` is `file:line` for people."""

    name: str
    title: str
    verdict: Verdict
    match: Match
    condition: Condition | None
    message: str
    hint: str
    terms: ReviewTerms | None = None
    observe: bool = False
    opaque: bool = False
    place: str = ""

    @property
    def pack(self) -> str:
        return self.name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One entry of `access:`. `name` says where it stands."""

    name: str
    who: Who
    targets: Targets
    accounts: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    databases: frozenset[str] = frozenset((ANY,))
    place: str = ""

    def leads(self, principal: Principal, target: Target) -> bool:
        """Whether this entry lets the principal open the target at all, under whatever account or role."""
        named = self.accounts if target.protocol == "ssh" else self.roles
        return bool(named) and self.who.matches(principal) and self.targets.matches(target)

    def opens(self, principal: Principal, target: Target) -> bool:
        if not self.who.matches(principal) or not self.targets.matches(target):
            return False
        match target.protocol:
            case "ssh":
                return _among(target.account, self.accounts)
            case "postgres":
                return _among(target.role, self.roles) and _among(target.database, self.databases)
            case _:
                return False  # no access rule speaks of other protocols yet


def _among(name: str, allowed: frozenset[str]) -> bool:
    return bool(name) and (name in allowed or ANY in allowed)


@dataclass(frozen=True, slots=True)
class Case:
    """An example: a command, who asks where and when, and what must come of it.

    `scope` is the rule's name (the rule alone is asked), the pack's name (the pack alone), or empty (everything).
    `expect` is a verdict or `none`; `rule` the rule that must carry the verdict, or empty.
    """

    scope: str
    command: Command
    principal: Principal
    target: Target
    expect: str
    rule: str = ""
    at: datetime = datetime(2026, 1, 5, 14, 0, tzinfo=UTC)
    place: str = ""

    @property
    def text(self) -> str:
        return self.command.text.decode("utf-8", "backslashreplace")
