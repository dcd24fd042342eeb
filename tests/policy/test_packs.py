"""The shipped packs: their cases, the corpora, introspection of real clients, and mutations that must each fail a case."""

from __future__ import annotations

import json
from collections import Counter
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
from interlock.policy.cases import Outcome
from interlock.policy.engine import PolicySet
from interlock.policy.loader import load
from interlock.policy.model import Decision, Verdict
from interlock.policy.mutation import Mutation, mutations, survives, survivors
from interlock.policy.question import EXAMPLES, decide
from interlock.policy.rule import Rule

BY_DEFAULT = ("cloud-cli", "git", "kubernetes-cli", "linux", "linux-deny", "postgres", "postgres-deny")
OPTIONAL = ("read-only-agent",)
NOW = datetime(2026, 1, 5, 14, 0, tzinfo=UTC)


@lru_cache
def shipped() -> PolicySet:
    return load([packs.shipped()])


@lru_cache
def everything() -> PolicySet:
    """The packs that are loaded by default, and those that are not."""
    return load([packs.shipped(), packs.shipped() / packs.OPTIONAL])


@lru_cache
def outcomes() -> tuple[Outcome, ...]:
    return tuple(run_cases(everything()))


@lru_cache
def analyses() -> dict[tuple[object, ...], Analysis]:
    return {(o.case.command.wire, o.case.command.text, o.case.command.stdin): o.analysis for o in outcomes()}


def classified(command: Command) -> Analysis:
    return analyses()[command.wire, command.text, command.stdin]


def test_the_packs_are_there() -> None:
    assert set(packs.names()) == {*BY_DEFAULT, *OPTIONAL}
    assert {rule.pack for rule in shipped().rules} == set(BY_DEFAULT)


def test_a_pack_by_itself_says_what_it_says_beside_the_others() -> None:
    """A case of a rule or a pack asks it alone, so each file can be loaded without the rest."""
    for name in packs.names():
        path = packs.find(name)
        assert path is not None
        alone = load([path])
        assert {rule.pack for rule in alone.rules} == {name}
        mine = [replace(case, place="") for case in everything().cases if case.scope.partition("/")[0] == name]
        assert [replace(case, place="") for case in alone.cases] == mine


def test_every_case_passes() -> None:
    assert [o.say() for o in outcomes() if not o.passed] == []
    print(f"\n{len(outcomes())} cases, {len(everything().rules)} rules")


def test_nothing_is_probably_not_meant() -> None:
    """The lint finds nothing: every rule has a hit and a near miss, none is shadowed, nobody allows opaque commands."""
    for policy in (shipped(), everything()):
        assert [w for w in policy.warnings if not w.startswith("access:")] == []


def test_the_floors_are_floors() -> None:
    for rule in everything().rules:
        assert rule.opaque is False
        assert rule.observe is False
        if rule.pack.endswith("-deny"):
            assert rule.verdict is Verdict.DENY
    assert {path.stem for path in packs.shipped().glob("*-deny.yaml")} == set(packs.DENY_PACKS)


def test_packs_ask_the_installations_own_reviewers() -> None:
    policy = everything()
    for rule in policy.rules:
        if rule.terms is not None:
            assert rule.terms.groups == policy.default.groups


# -- mutations -------------------------------------------------------------------------------------------------------------


EQUIVALENT = {
    # What happens on another host always comes with an effect of its own (network), which nothing here allows. The
    # condition is for sites that allow that one.
    ("linux/read", "condition removed"),
    # What it leaves out, linux/code and linux/sed ask about. The condition is for sites that leave those out.
    ("linux/filter", "condition removed"),
}


@pytest.mark.parametrize("rule", everything().rules, ids=lambda rule: rule.name)
def test_every_mutation_of_a_rule_fails_a_case(rule: Rule) -> None:
    tried, survived = survivors(everything(), rule, classified)
    assert tried >= 3
    assert [m.how for m in survived if (rule.name, m.how) not in EQUIVALENT] == []


@pytest.mark.parametrize("protocol", ["ssh", "postgres"])
def test_what_the_database_must_never_do_holds_on_both_ways_to_it(protocol: str) -> None:
    """Through the PostgreSQL front end and inside of `psql` over SSH: narrowing a rule to one of them fails a case."""
    rules = [rule for rule in shipped().rules if rule.pack == "postgres-deny"]
    assert rules
    for rule in rules:
        narrowed = Mutation(rule, f"only {protocol}", replace(rule, match=replace(rule.match, protocol=protocol)))
        assert not survives(everything(), narrowed, classified), rule.name


def test_how_many_mutations_were_tried() -> None:
    """Deleting and flipping are among them for every rule; the count is printed for whoever reads the log."""
    policy = everything()
    every = [(rule, mutation.how) for rule in policy.rules for mutation in mutations(rule, policy.default)]
    for rule in policy.rules:
        hows = {how for of, how in every if of is rule}
        assert "deleted" in hows
        assert sum(how.startswith("flipped") for how in hows) == 2
    packs_of = {rule.pack for rule in policy.rules}
    print(f"\n{len(every)} mutations of {len(policy.rules)} rules in {len(packs_of)} packs, {len(EQUIVALENT)} change nothing")
    assert len(every) > 500


@pytest.mark.parametrize("rule", shipped().rules, ids=lambda rule: rule.name)
def test_no_rule_is_without_effect_in_the_whole(rule: Rule) -> None:
    """With all packs loaded, deleting a rule changes what comes of some case: no rule only repeats another."""
    policy = shipped()
    without = PolicySet(
        rules=[r for r in policy.rules if r is not rule], access=(), default=policy.default, digest="sha256:0", files={}
    )
    assert answers(without) != answers(policy)


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


def documented() -> set[tuple[str, str, str]]:
    """Plain rows that a person is asked about all the same, as docs/policy.md lists them with the reasons."""
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    table = page.partition("<!-- asked:")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| s")]
    assert all(len(row) == 4 and row[3] for row in rows)
    return {(row[0], row[1].strip("`"), row[2]) for row in rows}


def sql_decision(text: str, policy: PolicySet | None = None) -> Decision:
    context = SqlContext(assume_tables=True)
    command = Command(Wire.POSTGRES, Kind.QUERY, _bytes(text), context=context)
    analysis = analyze_sql(command.text, context, Kind.QUERY)
    return decide(policy or shipped(), parse_who("agent"), EXAMPLES["postgres"], command, analysis, NOW)


def test_sql_corpus() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    held: set[tuple[str, str, str]] = set()
    for row in corpus("sql_statements"):
        need = row["expected"]["need"]  # type: ignore[index]
        decision = sql_decision(str(row["text"]))
        counts[need, str(decision.verdict)] += 1
        if need != "read" and decision.verdict is Verdict.ALLOW:
            wrong.append(f"{row['id']}: {need} was allowed by {decision.rule}")
        if need == "deny" and decision.verdict is not Verdict.DENY:
            wrong.append(f"{row['id']}: {need} became {decision.verdict} by {decision.rule}")
        if need == "read" and decision.verdict is not Verdict.ALLOW:
            held.add((str(row["id"]), str(row["text"]), decision.rule))
    print(f"\n{dict(counts)}")
    assert wrong == []
    assert held == {row for row in documented() if row[0].startswith("sql-")}
    assert counts["read", "allow"] >= 9


async def test_shell_corpus() -> None:
    from interlock.cli.explain import classifier
    from interlock.policy.question import Question
    from interlock.policy.question import classified as understood

    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    held: set[tuple[str, str, str]] = set()
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
                held.add((str(row["id"]), str(row["text"]), decision.rule))
    print(f"\n{dict(counts)}")
    assert wrong == []
    assert held == {row for row in documented() if row[0].startswith("sh-")}
    assert counts["policy", "allow"] >= 12


# -- what stock clients send by themselves -----------------------------------------------------------------------------------

INTROSPECTION = Path(__file__).parents[1] / "data" / "policy"


@pytest.mark.parametrize("path", sorted(INTROSPECTION.glob("*.sql")), ids=lambda path: path.stem)
def test_introspection_of_stock_clients_passes(path: Path) -> None:
    statements = [s.strip() for s in path.read_text().split("\n-- ;;\n") if s.strip()]
    assert statements
    refused = [(d.rule, d.reason, s[:120]) for s in statements if (d := sql_decision(s)).verdict is not Verdict.ALLOW]
    assert refused == []
