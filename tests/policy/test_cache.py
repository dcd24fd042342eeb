"""Attacks on the decision cache (threats.md, A14): whatever a rule can read, another value of it is another decision.

The attack is a comparison: a policy that has decided thousands of commands answers each new one as a policy does that has
never decided anything. The facts come from small pools, so that nearly everything has been asked before in another mixture.
"""

from __future__ import annotations

import os
import random  # noqa: TID251 - seeded, so that a failure comes again
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from harness.policy_facts import BASE, one_fact_apart, random_analysis, random_facts, random_principal, random_target
from interlock.commands.model import Analysis, Effect
from interlock.policy.assembly import assemble
from interlock.policy.document import Document
from interlock.policy.engine import PolicySet
from interlock.policy.facts import FACTS, VARIABLES
from interlock.policy.model import Facts

FUZZ = bool(os.environ.get("FUZZ"))

ONE_FACT_EACH = [
    'command.protocol == "ssh"', 'command.kind == "pg.bind"', 'command.text == "y"', "command.statements > 1",
    'command.stdin == "data"', "command.effects.size() > 1", "command.opaque.size() > 0",
    'effects.exists(e, e.verb == "delete")', 'effects.exists(e, e.object == "/etc/x")', 'effects.exists(e, e.program == "rm")',
    'effects.exists(e, e.argv.size() > 1)', "effects.exists(e, e.via.size() > 0)", 'effects.exists(e, e.origin == "wrapper")',
    "effects.exists(e, e.recursive)", "effects.exists(e, e.force)", 'effects.exists(e, e.host != "")',
    "effects.exists(e, !e.filtered)", 'effects.exists(e, e.detail != "")',
    'opaque.exists(o, o.reason == "glob")', 'opaque.exists(o, o.text == "$x")',
    'principal.subject == "local:bob"', 'principal.handle.endsWith("-2")', 'principal.kind == "agent"',
    '"ops" in principal.groups',
    'principal.owner == "local:carol"', "principal.acting_for.size() > 0", 'principal.assurance.acr == "gold"',
    '"hwk" in principal.assurance.amr', 'target.name == "web-1"', 'target.protocol == "postgres"', '"tier" in target.labels',
    'target.labels["env"] == "prod"', 'target.account == "root"', 'target.role == "app"', 'target.database == "db"',
    'session.id == "s1"', 'session.client == "10.0.0.1"', "time.hour < 6", 'time.weekday == "monday"', "time.minute > 30",
]  # fmt: skip
"""Every fact at least once (checked below), but those of SQL effects, which take the same way as the others."""


def policy(conditions: list[str], verdicts: list[str]) -> PolicySet:
    rules = [
        f"  - {{id: r{i}, title: R, when: '{when}', decide: {verdict}}}\n"
        for i, (when, verdict) in enumerate(zip(conditions, verdicts, strict=True))
    ]
    rules.append("  - {id: all, title: All, decide: allow}\n")
    return assemble([Document("p.yaml", ("version: 1\npack: p\nrules:\n" + "".join(rules)).encode())])


def afresh(warm: PolicySet) -> PolicySet:
    return PolicySet(rules=warm.rules, access=(), default=warm.default, digest=warm.digest, files={})


class Walk:
    """Facts of which one part changes at a time, from a few parts that come again: as the same object, or as an equal one."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.pools: dict[str, list[object]] = {
            "principal": [random_principal(rng) for _ in range(3)], "target": [random_target(rng) for _ in range(3)],
            "analysis": [random_analysis(rng) for _ in range(4)], "command": [random_facts(rng).command for _ in range(3)],
            "session": [random_facts(rng).session for _ in range(2)], "now": [random_facts(rng).now for _ in range(3)],
        }  # fmt: skip
        self.facts = random_facts(rng)

    def step(self) -> Facts:
        part = self.rng.choice(list(self.pools))
        value = self.rng.choice(self.pools[part])
        if self.rng.random() < 0.3 and part != "now":
            value = replace(value)  # type: ignore[type-var]  # all the others are dataclasses
        self.facts = replace(self.facts, **{part: value})  # type: ignore[arg-type]
        return self.facts


def policies(rng: random.Random) -> Iterator[PolicySet]:
    yield policy(ONE_FACT_EACH, ["review"] * len(ONE_FACT_EACH))
    for when in ONE_FACT_EACH:  # one fact alone: the keys that are left out of the cache differ with what the rules read
        yield policy([when], [rng.choice(["deny", "review"])])
    for _ in range(20):
        some = rng.sample(ONE_FACT_EACH, 4)
        yield policy(some, [rng.choice(["deny", "review"]) for _ in some])


def test_a_warm_policy_decides_as_one_that_never_decided() -> None:
    rng = random.Random() if FUZZ else random.Random(14)
    asked = again = 0
    for warm in policies(rng):
        walk = Walk(rng)
        known: list[object] = []
        for _ in range(2000 if FUZZ else 120):
            facts = walk.step()
            decision = warm.decide(facts)
            again += any(decision is one for one in known)
            known.append(decision)
            asked += 1
            assert decision == afresh(warm).decide(facts), facts
    print(f"\n{asked} decisions, {again} of them from the cache")
    assert again > asked / 10, "otherwise nothing was attacked"


@pytest.mark.parametrize("when", ONE_FACT_EACH)
def test_one_fact_apart_is_another_decision(when: str) -> None:
    """Each rule reads one fact; facts that differ in that one alone are told apart, whatever was asked before."""
    warm = policy([when], ["deny"])
    fresh = [afresh(warm).decide(facts) for facts in one_fact_apart()]
    for _ in range(2):  # the second time everything is in the cache
        assert warm.decide(BASE) == afresh(warm).decide(BASE)
        assert [warm.decide(facts) for facts in one_fact_apart()] == fresh
    base = afresh(warm).decide(BASE)
    assert any(decision.verdict is not base.verdict for decision in fresh), "otherwise this rule attacks nothing"


def test_every_fact_is_attacked() -> None:
    written = " ".join(ONE_FACT_EACH)
    names = {"Command": "command", "Principal": "principal", "Target": "target", "Session": "session"}
    missing = [
        f"{name}.{fact.name}"
        for message, name in names.items()
        for fact in FACTS[message]
        if f"{name}.{fact.name}" not in written
    ]
    assert missing == []
    assert {name for name in VARIABLES if name not in written} == set()


@pytest.mark.parametrize("count", [1, 40])
def test_an_analysis_that_is_gone_leaves_no_decision_behind(count: int) -> None:
    """Ids of objects are used again by Python: an entry of the cache must keep what its key stands for alive."""
    warm = policy(['effects.exists(e, e.verb == "delete")'], ["deny"])
    rng = random.Random(count)
    facts = replace(random_facts(rng), now=datetime(2026, 1, 5, tzinfo=UTC))
    for round_ in range(400):
        verb = "delete" if round_ % 2 else "read"
        effects = tuple(Effect(verb, f"/srv/{i}") for i in range(count))
        decision = warm.decide(replace(facts, analysis=Analysis(effects, sent="x")))
        assert (decision.verdict == "deny") == (verb == "delete")


def test_labels_that_change_behind_the_policys_back_do_not_change_a_target() -> None:
    """A target is what it was when it was made: nobody holds a mapping that reaches into a decision."""
    labels = {"env": "dev"}
    rng = random.Random(1)
    facts = replace(random_facts(rng), target=replace(random_target(rng), labels=labels))
    warm = policy(['target.labels["env"] == "prod"'], ["deny"])
    before = warm.decide(facts)
    labels["env"] = "prod"
    assert facts.target.labels["env"] == "dev"
    assert warm.decide(facts) == before == afresh(warm).decide(facts)
