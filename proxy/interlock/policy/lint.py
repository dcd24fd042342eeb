"""What loads but is probably not meant: found without running anything, reported as warnings. Pure.

Only what is certain from the rules themselves is said; whether rules do what their author wants is shown by cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from interlock.policy.clauses import (
    NOT_OPAQUE,
    Alternative,
    about_the_command,
    alternatives,
    among,
    contradiction,
    of_one_effect,
    subject,
)
from interlock.policy.model import Target, Verdict
from interlock.policy.rule import ANY, AccessRule, Case, Match, Rule, Targets, Who
from interlock.policy.terms import merge, severity


def warnings(rules: Sequence[Rule], access: Sequence[AccessRule], cases: Sequence[Case]) -> list[str]:
    """Return sentences, each beginning with the place."""
    found: list[str] = []
    for rule in rules:
        found += _alone(rule)
    read = _read(rules)
    for one in read:
        found += _impossible(one)
    found += _overlapping(read)
    found += _uncovered(rules, cases)
    found += _doors(access)
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


@dataclass(frozen=True, slots=True)
class _Read:
    """A rule beside what its condition says for certain, and where it stands among the others."""

    rule: Rule
    order: int
    ways: tuple[Alternative, ...]


def _read(rules: Sequence[Rule]) -> list[_Read]:
    found: list[_Read] = []
    for order, rule in enumerate(rules):
        ways = alternatives(rule.condition.source if rule.condition is not None else None)
        if ways is not None:
            found.append(_Read(rule, order, tuple(_with_match(rule, way) for way in ways)))
    return found


def _with_match(rule: Rule, way: Alternative) -> Alternative:
    """Write what `match` says as clauses, as far as a condition could say the same."""
    match, clauses, some = rule.match, set(way.clauses), list(way.some)
    if match.protocol:
        clauses.add(among("target.protocol", (match.protocol,)))
    if match.who is not None and match.who.kinds:
        clauses.add(among("principal.kind", match.who.kinds))
    if match.verbs:
        some.append(frozenset((among("effect.verb", match.verbs),)))
    if rule.verdict is not Verdict.ALLOW:
        return Alternative(frozenset(clauses), tuple(some))
    if not rule.opaque:
        clauses.add(NOT_OPAQUE)
    return Alternative(of_one_effect(Alternative(frozenset(clauses), tuple(some))))


def _impossible(read: _Read) -> Iterator[str]:
    """Find conditions that contradict themselves, or the rule's own `match`."""
    rule = read.rule
    whys = [contradiction(way) for way in read.ways]
    if whys and all(whys):
        yield f"{rule.place}: {rule.name} can never match: no value of {whys[0]} fulfils its condition"
    else:
        for why in filter(None, whys):
            yield f"{rule.place}: {rule.name} has an alternative that can never be true: no value of {why} fulfils it"
    if rule.opaque and rule.match.verbs:
        yield f"{rule.place}: {rule.name} says opaque: true, which does nothing beside verbs:; what is opaque has none of them"


def _overlapping(read: Sequence[_Read]) -> Iterator[str]:
    """Find rules that never change a decision, because another one matches wherever they do."""
    for one, others in _candidates(read):
        for other in others:
            said = _beside(one, other)
            if said:
                yield f"{one.rule.place}: {one.rule.name} {said}"
                break


def _beside(one: _Read, other: _Read) -> str:
    """Say why `one` never changes a decision beside `other`, or nothing when that is not certain."""
    rule, stricter = one.rule, other.rule
    if stricter.observe or rule.observe != stricter.observe or not _covered(one, other):
        return ""
    if stricter.verdict is not rule.verdict:
        if _STRICTNESS.index(stricter.verdict) > _STRICTNESS.index(rule.verdict):
            return ""
        return f"is never reached: {stricter.name} ({stricter.place}) matches wherever it does, and says {stricter.verdict}"
    if rule.pack != stricter.pack:
        return ""  # a pack must be able to stand without the others
    same = _covered(other, one)
    if same and other.order > one.order:
        return ""  # said of the later one
    if rule.verdict is Verdict.DENY and other.order > one.order:
        return ""  # the first of several denials is the one that is shown
    if rule.verdict is Verdict.REVIEW and not _adds_nothing(one, other):
        return ""
    if same and rule.terms == stricter.terms:
        return f"says the same as {stricter.name} ({stricter.place}); remove one"
    return f"is shadowed by {stricter.name} ({stricter.place}), which says {rule.verdict} wherever it does"


def _adds_nothing(one: _Read, other: _Read) -> bool:
    """Whether a review beside another one neither asks more of anybody nor is the one that is shown."""
    mine, theirs = one.rule.terms, other.rule.terms
    if mine is None or theirs is None or other.order > one.order or severity(mine) > severity(theirs):
        return False
    return merge([theirs, mine]) == theirs


def _covered(one: _Read, other: _Read) -> bool:
    """Whether `other` surely matches whenever `one` does.

    That holds for conditions that fail as well: `false` beside a failing clause is false, and a review or deny rule that
    fails counts as matched.
    """
    if not _within(one.rule.match, other.rule.match):
        return False
    allow, allow_too = one.rule.verdict is Verdict.ALLOW, other.rule.verdict is Verdict.ALLOW
    if allow_too and not allow:
        return False
    if one.rule.opaque and not (other.rule.opaque and allow_too):
        # What is opaque is no effect that another rule would see.
        plain = all(not way.some and all(map(about_the_command, way.clauses)) for way in other.ways)
        return plain and _needed(one, other, per_effect=False)
    return _needed(one, other, per_effect=allow and not allow_too)


def _needed(one: _Read, other: _Read, *, per_effect: bool) -> bool:
    """Whether each way for `one` to be true is one for `other`. `per_effect`: `one` sees an effect, `other` all of them."""
    if not per_effect:
        return all(any(mine.needs(theirs) for theirs in other.ways) for mine in one.ways)
    for mine in one.ways:
        clauses = of_one_effect(mine)
        about_all = Alternative(frozenset(filter(about_the_command, clauses)), (clauses,))
        if not any(about_all.needs(theirs) for theirs in other.ways):
            return False
    return True


def _candidates(read: Sequence[_Read]) -> Iterator[tuple[_Read, list[_Read]]]:
    """Pair each rule with those that could cover it: what each of them needs must follow from what it needs itself."""
    by_subject: dict[object, list[_Read]] = {}
    for rule in read:
        for way in rule.ways:
            by_subject.setdefault(_rarest(way), []).append(rule)
    for rule in read:
        keys = {subject(clause) for way in rule.ways for clause in of_one_effect(way)}
        found = {other.order: other for key in (None, *keys) for other in by_subject.get(key, ()) if other is not rule}
        yield rule, [found[order] for order in sorted(found)]


def _rarest(way: Alternative) -> object:
    """Return the subject that fewest rules share: a clause of its own words rather than a fact such as `effect.verb`."""
    subjects = [subject(clause) for clause in of_one_effect(way)]
    return min(subjects, key=lambda one: (isinstance(one, str), str(one)), default=None)


def _within(inner: Match, outer: Match) -> bool:
    """Whether `outer` lets through whatever `inner` does, of what is not among the clauses."""
    return _targets_within(inner.target, outer.target) and _who_within(inner.who, outer.who)


def _targets_within(inner: Targets | None, outer: Targets | None) -> bool:
    if outer is None or outer.every:
        return True
    if inner is None or inner.every:
        return False
    if not inner.names <= outer.names:
        return False
    if not inner.labels:
        return True
    return bool(outer.labels) and all(key in inner.labels and inner.labels[key] <= values for key, values in outer.labels.items())


def _who_within(inner: Who | None, outer: Who | None) -> bool:
    if outer is None:
        return True
    inner = inner or Who()
    pairs = (
        (inner.groups, outer.groups), (inner.handles, outer.handles), (inner.subjects, outer.subjects),
    )  # fmt: skip
    return all(not theirs or (bool(mine) and mine <= theirs) for mine, theirs in pairs)


_STRICTNESS = (Verdict.DENY, Verdict.REVIEW, Verdict.ALLOW)


def _doors(access: Sequence[AccessRule]) -> Iterator[str]:
    """Find entries of `access:` that open nothing which another one does not open as well."""
    for index, entry in enumerate(access):
        for earlier, other in enumerate(access):
            if other is entry or not _opens_within(entry, other) or (earlier > index and _opens_within(other, entry)):
                continue
            yield f"{entry.place}: {entry.name} opens nothing that {other.name} does not open"
            break


def _opens_within(inner: AccessRule, outer: AccessRule) -> bool:
    named = ((inner.accounts, outer.accounts), (inner.roles, outer.roles))
    return (
        _who_within(inner.who, outer.who)
        and _targets_within(inner.targets, outer.targets)
        and all(ANY in theirs or mine <= theirs for mine, theirs in named)
        and (not inner.roles or ANY in outer.databases or inner.databases <= outer.databases)
    )


def unmatched(rules: Sequence[Rule], access: Sequence[AccessRule], targets: Sequence[Target]) -> list[str]:
    """Name what no configured target can ever meet: a name or a label that was mistyped, most of the time."""
    found: list[str] = []
    for rule in rules:
        about = [t for t in targets if not rule.match.protocol or rule.match.protocol == t.protocol]
        if rule.match.target is not None and targets and not any(rule.match.target.matches(target) for target in about):
            found.append(f"{rule.place}: {rule.name} can never match: no configured target is one of its match.target")
    found += [
        f"{entry.place}: {entry.name} opens no configured target"
        for entry in access
        if targets and not any(entry.targets.matches(target) for target in targets)
    ]
    return found


def _uncovered(rules: Sequence[Rule], cases: Sequence[Case]) -> Iterator[str]:
    """Every rule needs a case that hits and a near miss, or a typo in its logic goes unseen."""
    for rule in rules:
        own = [case for case in cases if case.scope == rule.name]
        hits = any(case.expect == rule.verdict for case in cases if rule.name in (case.scope, case.rule))
        if not hits:
            yield f"{rule.place}: {rule.name} has no case that hits (expect: {rule.verdict})"
        if not any(case.expect == "none" for case in own):
            yield f"{rule.place}: {rule.name} has no near miss (expect: none)"
