"""What somebody could do to a rule by mistake, and whether a case would notice.

A rule is worth its cases: delete it, let it say something else, take its condition or a part of its filter away, and some
case must fail. A mutation that every case survives is a mistake that nobody would see. Pure: the analysis of each command
is handed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from interlock.policy.cases import Classify, ask
from interlock.policy.condition import Condition, ConditionError, compile_condition
from interlock.policy.engine import PolicySet
from interlock.policy.model import ReviewTerms, Verdict
from interlock.policy.rule import Match, Rule


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule and what stands in its place; `instead` None: nothing does."""

    rule: Rule
    how: str
    instead: Rule | None

    @property
    def gross(self) -> bool:
        """Whether the rule is gone or says the opposite: no case may survive that. Others may change nothing at all."""
        return self.instead is None or self.instead.verdict is not self.rule.verdict


def mutations(rule: Rule, default: ReviewTerms) -> Iterator[Mutation]:
    """Yield the mistakes. `default` are the terms of a rule that comes to ask for a review."""
    yield Mutation(rule, "deleted", None)
    for verdict in Verdict:
        if verdict is not rule.verdict and (flipped := _flipped(rule, verdict, default)) is not None:
            yield Mutation(rule, f"flipped to {verdict}", flipped)
    match = rule.match
    per_effect = rule.verdict is Verdict.ALLOW
    if rule.condition is not None:
        yield Mutation(rule, "condition removed", replace(rule, condition=None))
        negated = compile_condition(f"!({_unended(rule.condition.source)})", per_effect=per_effect)
        yield Mutation(rule, "condition negated", replace(rule, condition=negated))
        never = compile_condition("false", per_effect=per_effect)
        yield Mutation(rule, "condition false", replace(rule, condition=never))
    elif match != Match(protocol=match.protocol):
        yield Mutation(rule, "match removed", replace(rule, match=Match(protocol=match.protocol)))
    if match.target is not None and not match.target.every:
        yield Mutation(rule, "match.target removed", replace(rule, match=replace(match, target=None)))
    if match.who is not None:
        yield Mutation(rule, "match.who removed", replace(rule, match=replace(match, who=None)))
    for verb in sorted(match.verbs):
        # Without its last verb a filter would let everything through; one that no case has stands in for it.
        fewer = match.verbs - {verb} or frozenset(("replication",))
        yield Mutation(rule, f"verb {verb} removed", replace(rule, match=replace(match, verbs=fewer)))


def _flipped(rule: Rule, verdict: Verdict, default: ReviewTerms) -> Rule | None:
    """The same facts with another verdict; what was said of one effect becomes "of some effect", and the reverse."""
    condition = rule.condition
    if condition is not None and (rule.verdict is Verdict.ALLOW) != (verdict is Verdict.ALLOW):
        source = f"effects.exists(effect, {_unended(condition.source)})" if rule.verdict is Verdict.ALLOW else condition.source
        condition = _compiled(source, per_effect=verdict is Verdict.ALLOW)
        if condition is None:
            return None
    terms = default if verdict is Verdict.REVIEW else None
    return replace(rule, verdict=verdict, condition=condition, terms=terms, opaque=rule.opaque and verdict is Verdict.ALLOW)


def _compiled(source: str, *, per_effect: bool) -> Condition | None:
    """A condition may be one that only its own kind of rule can have."""
    try:
        return compile_condition(source, per_effect=per_effect)
    except ConditionError:
        return None


def _unended(source: str) -> str:
    """End a comment in the last line, so that what follows is not part of it."""
    return f"{source}\n"


def survivors(policy: PolicySet, rule: Rule, classify: Classify) -> tuple[int, list[Mutation]]:
    """Return how many mutations of a rule there are, and those that every case survives."""
    tried = list(mutations(rule, policy.default))
    return len(tried), [mutation for mutation in tried if survives(policy, mutation, classify)]


def survives(policy: PolicySet, mutation: Mutation, classify: Classify) -> bool:
    """Run the cases that the mutation can change, as they are written."""
    rule, instead = mutation.rule, mutation.instead
    rules = [r if r.name != rule.name else instead for r in policy.rules]
    left = [r for r in rules if r is not None]
    whole = PolicySet(rules=left, access=(), default=policy.default, digest=policy.digest, files={})
    pack = policy.only(*(r for r in left if r.pack == rule.pack))
    alone = None if instead is None else policy.only(instead)
    for case in policy.cases:
        analysis = classify(case.command)
        if case.scope == rule.name:
            # Whoever deletes a rule deletes the cases inside of it as well; those around it must notice.
            passed = alone is None or ask(alone, case, analysis, instead).got == case.expect
        elif case.scope == rule.pack:
            passed = ask(pack, case, analysis).passed
        elif case.scope == "":
            passed = ask(whole, case, analysis).passed
        else:
            continue
        if not passed:
            return False
    return True
