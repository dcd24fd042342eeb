"""One question about a command, and its answer without a target: what it would do and what would be decided.

The same classification and the same decision as the data path; only the target is missing, and nothing is sent anywhere.
Knows policies and grammars; must not know who shows the answer: `interlock explain` and the console both do. Spec:
interface.md, "explain".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from interlock.commands.model import Analysis, Command, Kind, ShellContext, SqlContext, Wire
from interlock.commands.pushes import kind_of
from interlock.config import TargetConfig
from interlock.errors import SENTENCES
from interlock.identity.principal import Principal
from interlock.policy.engine import PolicySet
from interlock.policy.model import Decision, Facts, SessionFacts, Target, Verdict
from interlock.policy.sentences import why
from interlock.ports import Classifier

EXAMPLES = {
    "ssh": Target("web-1", "ssh", {"env": "prod"}, account="deploy"),
    "postgres": Target("orders", "postgres", {"env": "prod"}, role="app", database="orders"),
}
"""Where nothing is named: what most people have."""

_RETRIES, _SHORT = 4, 4096


@dataclass(frozen=True, slots=True)
class Question:
    """One command to explain, and where."""

    text: bytes
    target: Target
    shell: str = "bash"
    search_path: tuple[str, ...] = ("public", "pg_temp")
    id: Any = None
    has_id: bool = False
    operation: bool = False  # an operation on files, or a push, as the record shows it

    @property
    def command(self) -> Command:
        if self.target.protocol == "postgres":
            context = SqlContext(search_path=self.search_path, assume_tables=True)
            return Command(Wire.POSTGRES, Kind.QUERY, self.text, context=context)
        kind = kind_of(self.text.decode("utf-8", "replace")) if self.operation else Kind.EXEC
        return Command(Wire.SSH, kind, self.text, context=ShellContext(self.shell))


def facts_of(target: TargetConfig) -> Target:
    """Return what rules may know of a configured target."""
    return Target(target.name, target.protocol, target.labels, account=target.account, role=target.role, database=target.database)


def search_path(target: TargetConfig) -> tuple[str, ...]:
    """Return the schemas in which unqualified names are looked up there."""
    return tuple(part.strip().strip('"') for part in target.search_path.split(","))


async def classified(classify: Classifier, command: Command) -> Analysis:
    """Classify as the data path does. A short text that ran out of time is read again: here the answer is about the
    text, not about how busy the machine is at the moment."""
    analysis = classify.classify_now(command) or await classify.classify(command)
    for _ in range(_RETRIES if len(command.text) <= _SHORT else 0):
        if not any(part.reason == "parser-limit" for part in analysis.opaque):
            break
        analysis = await classify.classify(command)
    return analysis


async def answer(
    policy: PolicySet, principal: Principal, question: Question, classify: Classifier, now: datetime, *, access: bool
) -> tuple[Analysis, dict[str, Any]]:
    """Classify and decide as the data path does; return what was understood, and the JSON of interface.md.

    With `access`, the answer also says whether the principal may open the target at all.
    """
    command = question.command
    analysis = await classified(classify, command)
    decision = decide(policy, principal, question.target, command, analysis, now)
    shown = to_json(question, analysis, decision)
    shown["why"] = why(policy, Facts(principal, question.target, command, analysis, SessionFacts(id="explain"), now), decision)
    if access:
        opened = policy.may_open(principal, question.target)
        shown["access"] = {"granted": opened.granted, "rule": opened.rule}
    return analysis, shown


def decide(
    policy: PolicySet, principal: Principal, target: Target, command: Command, analysis: Analysis, now: datetime
) -> Decision:
    if analysis.unreadable is not None:
        return Decision(
            Verdict.DENY, "interlock/unreadable", analysis.unreadable.message, policy.digest,
            hint=SENTENCES[analysis.unreadable.reason],
        )  # fmt: skip
    return policy.decide(Facts(principal, target, command, analysis, SessionFacts(id="explain"), now))


def to_json(question: Question, analysis: Analysis, decision: Decision) -> dict[str, Any]:
    """Return the stable JSON of `explain` (interface.md); durations in seconds, offsets in bytes."""
    terms = decision.review
    shown: dict[str, Any] = {"v": 1}
    if question.has_id:
        shown["id"] = question.id
    shown |= {
        "protocol": question.target.protocol,
        "target": question.target.name,
        "text_sha256": sha256(question.text).hexdigest(),
        "effects": [effect.to_json() for effect in analysis.effects],
        "opaque": [part.to_json() for part in analysis.opaque],
        "sent": analysis.sent,
        "decision": str(decision.verdict),
        "rule": decision.rule,
        "reason": decision.reason,
        "policy": decision.policy,
        "review": None,
        "hint": decision.hint,
        "matched": list(decision.matched),
        "observed": list(decision.observed),
        "errors": list(decision.errors),
        "assumed": list(analysis.assumed),
        "notes": list(analysis.notes),
        "statements": analysis.statements,
        "stdin": str(analysis.stdin),
        "parser": analysis.parser,
    }
    if terms is not None:
        shown["review"] = {
            "groups": list(terms.all_groups), "quorum": terms.people, "expires": terms.expires, "step_up": str(terms.step_up),
            "needs": [{"groups": list(need.groups), "quorum": need.quorum} for need in terms.needs],
            "hold": terms.hold, "escalate": terms.escalate, "return": terms.returns,
            "risk": str(terms.risk), "scopes": list(terms.scopes),
        }  # fmt: skip
    if analysis.unreadable is not None:
        shown["reason_code"] = str(analysis.unreadable.reason)
    return shown
