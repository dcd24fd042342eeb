"""Runs the cases beside the rules through the same classification and decision as the data path.

A case in a rule asks that rule alone (`none`: it does not match); a case of a pack asks the pack alone; a case in a
file without a pack asks everything that is loaded. Pure: the analysis of each command is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from interlock.commands.model import Analysis, Command
from interlock.policy.engine import PolicySet
from interlock.policy.model import Decision, Facts, SessionFacts, Verdict
from interlock.policy.rule import Case, Rule

Classify = Callable[[Command], Analysis]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case. `got` is a verdict or `none`; `rule` the rule that carried it."""

    case: Case
    got: str
    rule: str
    decision: Decision | None
    analysis: Analysis

    @property
    def passed(self) -> bool:
        return self.got == self.case.expect and (not self.case.rule or self.rule == self.case.rule)

    def say(self) -> str:
        """Say what was expected and what came, in one line."""
        wanted = f"{self.case.expect}" + (f" by {self.case.rule}" if self.case.rule else "")
        why = f": {self.decision.reason}" if self.decision is not None and self.got != self.case.expect else ""
        return f"{self.case.place}: {self.case.text!r}: expected {wanted}, got {self.got} by {self.rule}{why}"


def run(policy: PolicySet, classify: Classify) -> Iterator[Outcome]:
    """Run every case of the policy."""
    by_name = {rule.name: rule for rule in policy.rules}
    scoped: dict[str, PolicySet] = {}
    for case in policy.cases:
        rule = by_name.get(case.scope)
        if case.scope not in scoped:
            scoped[case.scope] = _scope(policy, case.scope, rule)
        yield ask(scoped[case.scope], case, classify(case.command), rule)


def _scope(policy: PolicySet, scope: str, rule: Rule | None) -> PolicySet:
    if rule is not None:
        return policy.only(rule)
    return policy.only(*(r for r in policy.rules if r.pack == scope)) if scope else policy


def ask(policy: PolicySet, case: Case, analysis: Analysis, rule: Rule | None = None) -> Outcome:
    """Decide one case. With `rule`, the outcome is that rule's own."""
    if analysis.unreadable is not None:
        return Outcome(case, "none" if rule else str(Verdict.DENY), "interlock/unreadable", None, analysis)
    facts = Facts(case.principal, case.target, case.command, analysis, SessionFacts(id="case"), case.at)
    decision = policy.decide(facts)
    got = str(decision.verdict)
    if rule is not None:
        matched = decision.verdict is Verdict.ALLOW if rule.verdict is Verdict.ALLOW else rule.name in decision.matched
        got = str(rule.verdict) if matched else "none"
    return Outcome(case, got, decision.rule, decision, analysis)
