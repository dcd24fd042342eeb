"""What loads but is probably not meant: found without running anything, reported as warnings. Pure.

Only what is certain from the rules themselves is said; whether rules do what their author wants is shown by cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from interlock.policy.model import Verdict
from interlock.policy.rule import AccessRule, Case, Match, Rule


def warnings(rules: Sequence[Rule], access: Sequence[AccessRule], cases: Sequence[Case]) -> list[str]:
    """Return sentences, each beginning with the place."""
    found: list[str] = []
    for rule in rules:
        found += _alone(rule)
    found += _repeated(rules)
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


def _repeated(rules: Sequence[Rule]) -> Iterator[str]:
    """Find rules with the same condition and filter: one of them says nothing, or is never reached."""
    known: dict[object, list[Rule]] = {}
    for rule in rules:
        known.setdefault((_condition(rule), rule.observe, _match_key(rule.match)), []).append(rule)
    for same in known.values():
        first = min(same, key=lambda rule: _STRICTNESS.index(rule.verdict))
        for other in same:
            if other is first:
                continue
            if other.verdict is first.verdict:
                yield f"{other.place}: {other.name} says the same as {first.name}; remove one"
            else:
                yield f"{other.place}: {other.name} is never reached: {first.name} has the same condition and is stricter"


def _match_key(match: Match) -> object:
    """Return something that is equal for equal filters and can be a key."""
    target = match.target
    labels = frozenset(target.labels.items()) if target is not None else None
    return (match.protocol, target and (target.every, target.names, labels), match.who, match.verbs)


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
