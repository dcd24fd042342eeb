"""Which rules the cases exercise: who hits a rule, who nearly does, and whose mistakes would be noticed. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from interlock.policy.cases import Classify, Outcome, ask
from interlock.policy.engine import PolicySet
from interlock.policy.mutation import Mutation, survivors
from interlock.policy.rule import Rule


@dataclass(frozen=True, slots=True)
class Covered:
    """One rule beside its cases.

    `hits`: cases that say the rule's own outcome, or name it, and pass. `misses`: near misses that pass. `elsewhere`:
    cases of other rules and of the whole whose commands it matches. `unnoticed`: mutations of it that no case notices.
    """

    rule: Rule
    hits: int
    misses: int
    elsewhere: int
    tried: int
    unnoticed: tuple[Mutation, ...]

    @property
    def exercised(self) -> bool:
        """Whether there is a case on each side, and one that fails when the rule is deleted or says something else."""
        return self.hits > 0 and self.misses > 0 and not any(mutation.gross for mutation in self.unnoticed)

    @property
    def lacks(self) -> str:
        """Say what is missing, or nothing: of mistakes that are hard to notice as well."""
        missing = []
        if not self.hits:
            missing.append(f"a case that hits (expect: {self.rule.verdict})")
        if not self.misses:
            missing.append("a near miss (expect: none)")
        if self.unnoticed:
            missing.append(f"a case that fails when it is {', '.join(mutation.how for mutation in self.unnoticed)}")
        return "; ".join(missing)


def cover(policy: PolicySet, outcomes: Sequence[Outcome], classify: Classify, *, mutate: bool = True) -> Iterator[Covered]:
    """Yield every rule with its cases. `outcomes` are those of the policy's own cases."""
    hits: Counter[str] = Counter()
    misses: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for outcome in outcomes:
        case = outcome.case
        if outcome.passed and case.rule:
            hits[case.rule] += 1
        elif outcome.passed and case.expect == "none":
            misses[case.scope] += 1
        elif outcome.passed:
            hits[case.scope] += 1
        elsewhere.update(name for name in _matched(policy, outcome) if name != case.scope)
    for rule in policy.rules:
        tried, unnoticed = survivors(policy, rule, classify) if mutate else (0, [])
        yield Covered(rule, hits[rule.name], misses[rule.name], elsewhere[rule.name], tried, tuple(unnoticed))


def _matched(policy: PolicySet, outcome: Outcome) -> list[str]:
    """Return the rules that match a case's command when everything that is loaded is asked."""
    decision = ask(policy, outcome.case, outcome.analysis).decision
    if decision is None:
        return []
    return [*decision.matched, *(name.rpartition(":")[0] for name in decision.observed)]
