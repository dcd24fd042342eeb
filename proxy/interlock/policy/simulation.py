"""What another policy would have said: recorded commands decided again, and every decision that would change.

Pure. The facts of then come from history.py; nothing is asked of anybody and nothing is sent anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from interlock.commands.model import Kind
from interlock.policy.engine import PolicySet
from interlock.policy.history import Asked, Event, Fixed, Past, Unknown, read
from interlock.policy.model import Decision, Verdict
from interlock.policy.tokens import tokens

_ORDER = (Verdict.ALLOW, Verdict.REVIEW, Verdict.DENY)


@dataclass(frozen=True, slots=True)
class Change:
    """One command that the other policy would have answered otherwise."""

    past: Past
    would: Decision
    asked: tuple[tuple[tuple[str, ...], int], ...] | None = None  # whom it asked then, where the answer is a review both times

    @property
    def direction(self) -> str:
        """`stricter`, `looser`, or `asks others`."""
        before, after = _ORDER.index(self.past.verdict), _ORDER.index(self.would.verdict)
        return "stricter" if after > before else "looser" if after < before else "asks others"

    def to_json(self) -> dict[str, Any]:
        facts, review = self.past.facts, self.would.review
        would: dict[str, Any] = {"verdict": str(self.would.verdict), "rule": self.would.rule, "reason": self.would.reason}
        if review is not None:
            would["needs"] = [{"groups": list(need.groups), "quorum": need.quorum} for need in review.needs]
        was: dict[str, Any] = {"verdict": str(self.past.verdict), "rule": self.past.rule}
        if self.asked is not None:
            was["needs"] = [{"groups": list(groups), "quorum": quorum} for groups, quorum in self.asked]
        return {
            "session": facts.session.id, "seq": self.past.seq, "at": facts.now.isoformat(), "direction": self.direction,
            "who": facts.principal.handle, "target": facts.target.name, "text": self.past.text, "was": was, "would": would,
        }  # fmt: skip


@dataclass(slots=True)
class Simulation:
    """Feed it sessions; it keeps what would change and counts the rest."""

    policy: PolicySet
    since: datetime
    sessions: int = 0
    commands: int = 0
    same: int = 0
    other_rule: int = 0  # the same answer, carried by another rule: part of `same`
    changes: list[Change] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    _reads: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._reads = reads(self.policy)

    def feed(self, events: Iterable[tuple[Event, Event]]) -> None:
        """Decide the commands of one session again."""
        reviews: dict[int, tuple[Past, Decision]] = {}
        for found in read(events):
            match found:
                case Asked(seq, needs):
                    if seq in reviews:
                        self._compare_people(*reviews.pop(seq), needs)
                case Past():
                    if found.facts.now >= self.since:
                        self._decide(found, reviews)
                case Unknown(_, at, reason):
                    if at >= self.since:
                        self.commands += 1
                        self.unknown[reason] += 1
                case Fixed(_, at):
                    if at >= self.since:
                        self.commands += 1
                        self.same += 1
        self.sessions += 1

    def lose(self) -> None:
        """Count a session that can't be read, or not to its end."""
        self.sessions += 1
        self.unknown["session-not-readable"] += 1

    def _decide(self, past: Past, reviews: dict[int, tuple[Past, Decision]]) -> None:
        self.commands += 1
        missing = sorted(past.lacks & self._reads)
        if missing:
            self.unknown[missing[0]] += 1
            return
        would = as_the_gate(self.policy, past)
        if would.verdict is not past.verdict:
            self.changes.append(Change(past, would))
            return
        self.same += 1
        self.other_rule += would.rule != past.rule
        if would.verdict is Verdict.REVIEW:
            reviews[past.seq] = (past, would)

    def _compare_people(self, past: Past, would: Decision, asked: tuple[tuple[tuple[str, ...], int], ...]) -> None:
        now = tuple((need.groups, need.quorum) for need in would.review.needs) if would.review is not None else ()
        if _alike(now) != _alike(asked):
            self.same -= 1
            self.other_rule -= would.rule != past.rule
            self.changes.append(Change(past, would, asked))


def as_the_gate(policy: PolicySet, past: Past) -> Decision:
    """Decide as the gate does: the server only analyses a Parse, so what a rule reviews there is asked at its Bind."""
    decision = policy.decide(past.facts)
    if past.facts.command.kind is Kind.PARSE and decision.verdict is Verdict.REVIEW:
        return replace(decision, verdict=Verdict.ALLOW, review=None)
    return decision


def reads(policy: PolicySet) -> frozenset[str]:
    """Return the facts that this policy reads and that older records lack, by the reason that says so."""
    words: set[str] = set()
    for rule in policy.rules:
        if rule.match.who is not None and rule.match.who.groups:
            words.add("groups")
        if rule.match.target is not None and rule.match.target.labels:
            words.add("labels")
        if rule.condition is not None:
            words |= {word.text for word in tokens(rule.condition.source) if word.kind == "name"}
    return frozenset(f"{name}-not-recorded" for name in ("groups", "labels", "assurance", "stdin") if name in words)


def _alike(needs: tuple[tuple[tuple[str, ...], int], ...]) -> list[tuple[list[str], int]]:
    return sorted((sorted(groups), quorum) for groups, quorum in needs)
