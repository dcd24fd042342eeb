"""What loads but is probably not meant: found without running anything, reported as warnings. Pure.

Only what is certain from the rules themselves is said; whether rules do what their author wants is shown by cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from interlock.policy.model import Verdict
from interlock.policy.rule import AccessRule, Case, Match, Rule


def warnings(rules: Sequence[Rule], access: Sequence[AccessRule], cases: Sequence[Case]) -> list[str]:
    """Return sentences, each beginning with the place."""
    found: list[str] = []
    for rule in rules:
        found += _alone(rule)
    for first, second in combinations(rules, 2):
        found += _pair(first, second)
    found += _uncovered(rules, cases)
    if not access:
        found.append("access: no file has access rules, so nobody can open any target")
    return found


def _alone(rule: Rule) -> Iterator[str]:
    if rule.observe:
        yield f"{rule.place}: {rule.name} is in observe mode: it is recorded and does not count"
    unconditional = rule.condition is None
    everything = unconditional and rule.match == Match()
    if everything and rule.verdict is Verdict.ALLOW:
        yield f"{rule.place}: {rule.name} allows everything on every target"
    elif everything and rule.verdict is Verdict.DENY:
        yield f"{rule.place}: {rule.name} denies everything, so no other rule is ever reached"
    if rule.opaque:
        yield f"{rule.place}: {rule.name} allows commands of which nobody knows what they would do"
    reads = rule.condition.reads if rule.condition is not None else frozenset()
    if rule.verdict is Verdict.ALLOW and "command" in reads and not reads & {"effect", "effects"}:
        yield f"{rule.place}: {rule.name} looks at the command and not at `effect`, so it allows whatever else the command does"
    if rule.verdict is Verdict.ALLOW and "effects" in reads:
        yield f"{rule.place}: {rule.name} reads `effects`, which in an allow rule is only the effect being judged; write `effect`"
    if rule.condition is not None and not reads:
        yield f"{rule.place}: {rule.name} has a condition that reads no fact, so it is always the same"


def _pair(first: Rule, second: Rule) -> Iterator[str]:
    if first.verdict is Verdict.REVIEW and second.verdict is Verdict.REVIEW and first.terms and second.terms:
        same_protocol = first.match.protocol == second.match.protocol or not (first.match.protocol and second.match.protocol)
        if same_protocol and set(first.terms.groups).isdisjoint(second.terms.groups):
            yield (
                f"{second.place}: {second.name} and {first.name} ask groups that have none in common; "
                "a command that matches both is denied"
            )
    if _condition(first) != _condition(second) or first.observe != second.observe:
        return
    if first.match != second.match:
        return
    if first.verdict is second.verdict:
        yield f"{second.place}: {second.name} says the same as {first.name}; remove one"
    else:
        stricter, looser = sorted((first, second), key=lambda r: _STRICTNESS.index(r.verdict))
        yield f"{looser.place}: {looser.name} is never reached: {stricter.name} has the same condition and is stricter"


_STRICTNESS = (Verdict.DENY, Verdict.REVIEW, Verdict.ALLOW)


def _condition(rule: Rule) -> str:
    return "" if rule.condition is None else " ".join(rule.condition.source.split())


def _uncovered(rules: Sequence[Rule], cases: Sequence[Case]) -> Iterator[str]:
    """Every rule needs a case that hits and a near miss, or a typo in its logic goes unseen."""
    for rule in rules:
        own = [case for case in cases if case.scope == rule.name]
        hits = any(case.expect == rule.verdict for case in cases if rule.name in (case.scope, case.rule))
        if not hits:
            yield f"{rule.place}: {rule.name} has no case that hits (expect: {rule.verdict})"
        if not any(case.expect == "none" for case in own):
            yield f"{rule.place}: {rule.name} has no near miss (expect: none)"
