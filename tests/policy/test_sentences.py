"""`explain` says why in sentences that somebody understands who has never seen the product."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pytest

from interlock.cli.asker import parse_who
from interlock.cli.explain import _bytes, classifier
from interlock.cli.explanation import lines
from interlock.commands.model import Analysis, Effect
from interlock.policy import packs
from interlock.policy.assembly import assemble
from interlock.policy.document import Document
from interlock.policy.engine import PolicySet
from interlock.policy.loader import load
from interlock.policy.model import Facts, SessionFacts, Target, Verdict
from interlock.policy.question import EXAMPLES, Question, classified, decide
from interlock.policy.sentences import why

CORPORA = Path(__file__).parents[1] / "data" / "corpora"
NOON = datetime(2026, 1, 5, 14, 0, tzinfo=UTC)
JARGON = re.compile(r"\b(opaque|effects?|static|AST|CEL|verb|argv|classif\w+|verdict|predicate|None|True|False)\b")


@lru_cache
def shipped() -> PolicySet:
    return load([packs.shipped()])


def asked(analysis: Analysis, text: str = "x", target: Target = EXAMPLES["ssh"]) -> Facts:
    command = Question(_bytes(text), target).command
    return Facts(parse_who("agent"), target, command, analysis, SessionFacts("s"), NOON)


EXPECTED = [
    (
        "ssh",
        "cat /etc/hostname | grep y",
        (
            "It reads /etc/hostname and reads its standard input, and nothing else. The rule linux/read allows "
            "that without asking anybody."
        ),
    ),
    (
        "ssh",
        "sudo rm -rf /srv/app",
        (
            "It deletes /srv/app and everything below it, by force, as root. The rule linux/recursive-delete "
            "wants a person to decide about that: A whole directory tree would be deleted. So does the rule "
            "linux/privilege, and a person must look at all of it."
        ),
    ),
    (
        "ssh",
        "rm -rf /",
        (
            "It deletes / (the whole machine) and everything below it, by force. The rule linux-deny/system-tree "
            "forbids that: The machine would not survive this."
        ),
    ),
    (
        "ssh",
        "cat a b c d e f",
        (
            "It reads a, reads b, reads c and 3 more things, and nothing else. The rule linux/read allows that "
            "without asking anybody."
        ),
    ),
    (
        "ssh",
        "cat $(x)",
        (
            "Not everything it does can be known beforehand: a program that Interlock does not know: x; it "
            "depends on what another command prints: $(x). So a person looks at it before it runs."
        ),
    ),
    (
        "ssh",
        "timeout 5 uptime",
        (
            "It shows facts about the machine, through timeout, and nothing else. The rules linux/wrapper and "
            "linux/read allow that without asking anybody."
        ),
    ),
    (
        "postgres",
        "DELETE FROM orders",
        (
            "It deletes every row of public.orders (no WHERE that leaves any out). The rule postgres/unfiltered-"
            "write wants a person to decide about that: Rows of the whole table would change."
        ),
    ),
    (
        "postgres",
        "SET work_mem = '8GB'",
        ("It sets work_mem for this session to 8GB. No rule says that this may be done without asking, so a person decides."),
    ),
    (
        "postgres",
        "SELEC 1",
        ("Such a text is refused before any rule is asked."),
    ),
]


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, str], Facts]:
    """Everything that is asked below, classified once."""
    import asyncio

    async def run() -> dict[tuple[str, str], Facts]:
        found: dict[tuple[str, str], Facts] = {}
        async with classifier() as classify:
            for protocol, text in {(p, t) for p, t, _ in EXPECTED} | set(corpus()):
                command = Question(_bytes(text), EXAMPLES[protocol]).command
                found[protocol, text] = asked(await classified(classify, command), text, EXAMPLES[protocol])
        return found

    return asyncio.run(run())


def corpus() -> Iterator[tuple[str, str]]:
    for name, protocol, every in (
        ("shell_commands", "ssh", 1),
        ("sql_statements", "postgres", 1),
        ("everyday_commands", "ssh", 7),
    ):
        for line in (CORPORA / f"{name}.jsonl").read_text().splitlines()[::every]:
            yield protocol, json.loads(line)["text"]


def said(facts: Facts, policy: PolicySet | None = None) -> str:
    policy = policy or shipped()
    decision = decide(policy, facts.principal, facts.target, facts.command, facts.analysis, facts.now)
    return why(policy, facts, decision)


@pytest.mark.parametrize(("protocol", "text", "wanted"), EXPECTED)
def test_the_sentence(answers: dict[tuple[str, str], Facts], protocol: str, text: str, wanted: str) -> None:
    sentence = said(answers[protocol, text])
    assert sentence == wanted or (wanted.startswith("Such") and sentence.endswith(wanted)), sentence


def test_every_answer_is_a_few_plain_sentences(answers: dict[tuple[str, str], Facts]) -> None:
    """No words of the trade, not long, and the rule that decides is named."""
    for (_, text), facts in answers.items():
        decision = decide(shipped(), facts.principal, facts.target, facts.command, facts.analysis, facts.now)
        sentence = why(shipped(), facts, decision)
        own = sentence
        for shown in (text, *(e.object for e in facts.analysis.effects), *(o.text for o in facts.analysis.opaque)):
            own = own.replace(" ".join(shown.split())[:59], "") if shown.strip() else own
        assert not sentence[0].islower() and sentence.endswith("."), sentence
        assert len(sentence) < 1200, (text, sentence)
        assert not JARGON.search(own), (text, own)
        if decision.rule == "default":
            assert "a person" in sentence, sentence
        elif facts.analysis.unreadable is None:
            assert decision.rule in sentence, sentence
    print(f"\n{len(answers)} commands explained")


def test_only_what_a_rule_is_about_is_held_against_a_command() -> None:
    effects = (Effect("read", "/srv/a", "cat"), Effect("delete", "/srv/b", "rm"), Effect("write", "/srv/c", "tee"))
    sentence = said(asked(Analysis(effects)))
    assert "deletes /srv/b" in sentence
    assert "/srv/a" not in sentence


def test_a_rule_that_is_about_the_hour_says_nothing_of_what_the_command_does() -> None:
    text = "version: 1\npack: p\nrules: [{id: n, title: Nobody works at night, decide: deny, when: time.hour == 14}]\n"
    policy = assemble([Document("p", text.encode())])
    assert said(asked(Analysis((Effect("read", "/x", "cat"),))), policy) == "The rule p/n forbids it: Nobody works at night."


def test_a_rule_that_needs_two_things_together_names_all() -> None:
    text = (
        "version: 1\npack: p\nrules:\n  - id: n\n    title: Both\n    decide: deny\n"
        '    when: effects.exists(e, e.verb == "read") && effects.exists(e, e.verb == "network")\n'
    )
    policy = assemble([Document("p", text.encode())])
    both = (Effect("read", "/x", "cat"), Effect("network", "h", "nc"))
    assert said(asked(Analysis(both)), policy).startswith("It connects to h and reads /x.")


def test_a_rule_that_could_not_be_worked_out_is_named() -> None:
    text = 'version: 1\npack: p\nrules: [{id: n, title: Gold, decide: deny, when: \'target.labels["tier"] == "gold"\'}]\n'
    policy = assemble([Document("p", text.encode())])
    assert said(asked(Analysis((Effect("read", "/x", "cat"),))), policy).endswith(
        "The rule p/n could not be worked out, which counts against the command."
    )


def test_observe_mode_is_said() -> None:
    text = "version: 1\npack: p\nrules: [{id: n, title: N, decide: deny, mode: observe}]\n"
    policy = assemble([Document("p", text.encode())])
    facts = asked(Analysis((Effect("read", "/x", "cat"),)))
    decision = policy.decide(facts)
    assert decision.verdict is Verdict.REVIEW
    answer = {
        "target": "web-1", "protocol": "ssh", "decision": "review", "why": why(policy, facts, decision), "rule": decision.rule,
        "hint": "", "review": None, "effects": [], "opaque": [], "assumed": [], "notes": [], "errors": [],
        "observed": list(decision.observed), "sent": None, "policy": policy.digest,
    }  # fmt: skip
    shown = "\n".join(line.plain for line in lines(b"cat /x", answer))
    assert "p/n would have denied it; observe mode is on, so that is recorded and does not count" in shown


def test_too_much_is_said_in_a_sentence() -> None:
    many = tuple(Effect("read", f"/srv/{i}") for i in range(1500))
    assert said(asked(Analysis(many))).startswith("The command does more than 1000 different things.")
    some = replace(asked(Analysis(many[:300])))
    assert "more than 256 different things" in said(some)
