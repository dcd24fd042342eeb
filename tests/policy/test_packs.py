"""The shipped packs: their cases, the corpora, introspection of real clients, and mutations that must each fail a case."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pytest

from interlock.cli.asker import parse_who
from interlock.cli.explain import _bytes
from interlock.cli.policy import run_cases
from interlock.commands.model import Analysis, Command, Kind, SqlContext, Wire
from interlock.commands.sql.analysis import analyze_sql
from interlock.policy import packs
from interlock.policy.cases import Outcome, ask
from interlock.policy.condition import compile_condition
from interlock.policy.engine import PolicySet
from interlock.policy.loader import load
from interlock.policy.model import Decision, Verdict
from interlock.policy.question import EXAMPLES, decide
from interlock.policy.rule import Match, Rule

NAMES = ("linux", "linux-deny", "postgres", "postgres-deny")
NOW = datetime(2026, 1, 5, 14, 0, tzinfo=UTC)


@lru_cache
def shipped() -> PolicySet:
    return load([packs.shipped()])


@lru_cache
def outcomes() -> tuple[Outcome, ...]:
    return tuple(run_cases(shipped()))


@lru_cache
def analyses() -> dict[tuple[object, ...], Analysis]:
    return {(o.case.command.wire, o.case.command.text, o.case.command.stdin): o.analysis for o in outcomes()}


def classified(command: Command) -> Analysis:
    return analyses()[command.wire, command.text, command.stdin]


def test_the_packs_are_there() -> None:
    assert set(packs.names()) >= set(NAMES)


def test_every_case_passes() -> None:
    assert [o.say() for o in outcomes() if not o.passed] == []
    print(f"\n{len(outcomes())} cases, {len(shipped().rules)} rules")


def test_nothing_is_probably_not_meant() -> None:
    """The lint finds nothing: every rule has a hit and a near miss, none is shadowed, nobody allows opaque commands."""
    assert [w for w in shipped().warnings if not w.startswith("access:")] == []


def test_the_floors_are_floors() -> None:
    for rule in shipped().rules:
        assert rule.opaque is False
        assert rule.observe is False
        if rule.pack.endswith("-deny"):
            assert rule.verdict is Verdict.DENY
    assert {path.stem for path in packs.shipped().glob("*-deny.yaml")} == set(packs.DENY_PACKS)


def test_packs_ask_the_installations_own_reviewers() -> None:
    policy = shipped()
    for rule in policy.rules:
        if rule.terms is not None:
            assert rule.terms.groups == policy.default.groups


# -- mutations -------------------------------------------------------------------------------------------------------------


EQUIVALENT = {
    # What happens on another host always comes with an effect of its own (network), which nothing here allows. The
    # condition is for sites that allow that one.
    ("linux/read", "condition removed"),
}


def mutants(rule: Rule) -> Iterator[tuple[str, Rule | None]]:
    """Yield what somebody could do to a rule by mistake."""
    yield "deleted", None
    for verdict in Verdict:
        if verdict is not rule.verdict:
            yield f"flipped to {verdict}", _flipped(rule, verdict)
    if rule.condition is not None:
        per_effect = rule.verdict is Verdict.ALLOW
        yield "condition removed", replace(rule, condition=None)
        yield (
            "condition negated",
            replace(rule, condition=compile_condition(f"!({rule.condition.source})", per_effect=per_effect)),
        )
        yield "condition false", replace(rule, condition=compile_condition("false", per_effect=per_effect))
    else:
        yield "match removed", replace(rule, match=Match(protocol=rule.match.protocol))
    if rule.match.target is not None:
        yield "targets removed", replace(rule, match=replace(rule.match, target=None))
    for verb in rule.match.verbs:
        fewer = rule.match.verbs - {verb}
        yield f"verb {verb} removed", replace(rule, match=replace(rule.match, verbs=fewer or frozenset(("replication",))))


def _flipped(rule: Rule, verdict: Verdict) -> Rule:
    """The same facts with another verdict; what was said of one effect becomes "of some effect", and the reverse."""
    source = rule.condition.source if rule.condition is not None else None
    condition = None
    if source is not None and (rule.verdict is Verdict.ALLOW) != (verdict is Verdict.ALLOW):
        condition = compile_condition(
            f"effects.exists(effect, {source})" if rule.verdict is Verdict.ALLOW else source, per_effect=verdict is Verdict.ALLOW
        )
    elif source is not None:
        condition = rule.condition
    return replace(rule, verdict=verdict, condition=condition, terms=None if verdict is not Verdict.REVIEW else shipped().default)


def mutated(rule: Rule, mutant: Rule | None) -> PolicySet:
    policy = shipped()
    rules = [r if r.name != rule.name else mutant for r in policy.rules]
    return PolicySet(
        rules=[r for r in rules if r is not None],
        access=(),
        default=policy.default,
        digest="sha256:0",
        files={},
        cases=policy.cases,
    )


def survives(rule: Rule, mutant: Rule | None) -> bool:
    """Run the cases that the rule can change, as they are written."""
    policy = mutated(rule, mutant)
    alone = None if mutant is None else policy.only(mutant)
    pack = policy.only(*(r for r in policy.rules if r.pack == rule.pack))
    for case in policy.cases:
        analysis = classified(case.command)
        if case.scope == rule.name:
            # Whoever deletes a rule deletes the cases inside of it as well; those of the pack must notice.
            passed = alone is None or ask(alone, case, analysis, mutant).got == case.expect
        elif case.scope == rule.pack:
            passed = ask(pack, case, analysis).passed
        else:
            continue
        if not passed:
            return False
    return True


@pytest.mark.parametrize("rule", shipped().rules, ids=lambda rule: rule.name)
def test_every_mutation_of_a_rule_fails_a_case(rule: Rule) -> None:
    survivors = [how for how, mutant in mutants(rule) if survives(rule, mutant)]
    assert [how for how in survivors if (rule.name, how) not in EQUIVALENT] == []


@pytest.mark.parametrize("rule", shipped().rules, ids=lambda rule: rule.name)
def test_no_rule_is_without_effect_in_the_whole(rule: Rule) -> None:
    """With all packs loaded, deleting a rule changes what comes of some case: no rule only repeats another."""
    assert answers(mutated(rule, None)) != answers(shipped())


@lru_cache
def answers(policy: PolicySet) -> list[tuple[Verdict, str]]:
    """Decide every case's command with everything that is loaded."""
    asker = parse_who("agent")
    decisions = (decide(policy, asker, c.target, c.command, classified(c.command), NOW) for c in shipped().cases)
    return [(decision.verdict, decision.rule) for decision in decisions]


# -- corpora ---------------------------------------------------------------------------------------------------------------

CORPORA = Path(__file__).parents[1] / "data" / "corpora"


def corpus(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (CORPORA / f"{name}.jsonl").read_text().splitlines()]


def sql_decision(text: str, policy: PolicySet | None = None) -> Decision:
    context = SqlContext(assume_tables=True)
    command = Command(Wire.POSTGRES, Kind.QUERY, _bytes(text), context=context)
    analysis = analyze_sql(command.text, context, Kind.QUERY)
    return decide(policy or shipped(), parse_who("agent"), EXAMPLES["postgres"], command, analysis, NOW)


def test_sql_corpus() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for row in corpus("sql_statements"):
        need = row["expected"]["need"]  # type: ignore[index]
        decision = sql_decision(str(row["text"]))
        counts[need, str(decision.verdict)] += 1
        if need != "read" and decision.verdict is Verdict.ALLOW:
            wrong.append(f"{row['id']}: {need} was allowed by {decision.rule}")
        if need == "deny" and decision.verdict is not Verdict.DENY:
            wrong.append(f"{row['id']}: {need} became {decision.verdict} by {decision.rule}")
        if need == "read" and decision.verdict is not Verdict.ALLOW:
            print(f"\nnot allowed: {row['id']} {row['text']!r}: {decision.rule}")
    print(f"\n{dict(counts)}")
    assert wrong == []
    assert counts["read", "allow"] >= 9


async def test_shell_corpus() -> None:
    from interlock.cli.explain import classifier
    from interlock.policy.question import Question
    from interlock.policy.question import classified as understood

    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    async with classifier() as classify:
        for row in corpus("shell_commands"):
            need = row["expected"]["need"]  # type: ignore[index]
            command = Question(_bytes(str(row["text"])), EXAMPLES["ssh"]).command
            analysis = await understood(classify, command)
            decision = decide(shipped(), parse_who("agent"), EXAMPLES["ssh"], command, analysis, NOW)
            counts[need, str(decision.verdict)] += 1
            if need != "policy" and decision.verdict is Verdict.ALLOW:
                wrong.append(f"{row['id']}: {need} was allowed by {decision.rule}")
            if decision.verdict is Verdict.ALLOW and analysis.sent is None:
                wrong.append(f"{row['id']}: allowed without a rendering")
            if need == "policy" and decision.verdict is not Verdict.ALLOW:
                print(f"\nnot allowed: {row['id']} {row['text']!r}: {decision.rule}")
    print(f"\n{dict(counts)}")
    assert wrong == []
    assert counts["policy", "allow"] >= 12


# -- what stock clients send by themselves -----------------------------------------------------------------------------------

INTROSPECTION = Path(__file__).parents[1] / "data" / "policy"


@pytest.mark.parametrize("path", sorted(INTROSPECTION.glob("*.sql")), ids=lambda path: path.stem)
def test_introspection_of_stock_clients_passes(path: Path) -> None:
    statements = [s.strip() for s in path.read_text().split("\n-- ;;\n") if s.strip()]
    assert statements
    refused = [(d.rule, d.reason, s[:120]) for s in statements if (d := sql_decision(s)).verdict is not Verdict.ALLOW]
    assert refused == []
