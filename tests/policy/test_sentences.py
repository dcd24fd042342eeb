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
from interlock.commands.model import SHELL_VERBS, SQL_VERBS, Analysis, Effect, Opaque
from interlock.policy import packs
from interlock.policy.assembly import assemble
from interlock.policy.document import Document
from interlock.policy.engine import PolicySet
from interlock.policy.loader import load
from interlock.policy.model import Facts, SessionFacts, Target, Verdict
from interlock.policy.question import EXAMPLES, Question, classified, decide
from interlock.policy.sentences import REASONS, does, phrases, unknown_part, why

CORPORA = Path(__file__).parents[1] / "data" / "corpora"
DOCS = Path(__file__).parents[2] / "docs"
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
            "It would only read /etc/hostname and read what is piped into it. The rule linux/read allows that "
            "without asking anybody."
        ),
    ),
    (
        "ssh",
        "sudo rm -rf /srv/app",
        (
            "It would delete /srv/app and everything below, by way of sudo. The rule linux/recursive-delete wants"
            " a person to decide about that: A whole directory tree would be deleted. So does the rule "
            "linux/privilege, and a person must look at all of it."
        ),
    ),
    (
        "ssh",
        "rm -rf /",
        (
            "It would delete / and everything below. The rule linux-deny/system-tree forbids that: The machine "
            "would not survive this."
        ),
    ),
    (
        "ssh",
        "cat a b c d e f",
        ("It would only read a, b, c and 3 more things. The rule linux/read allows that without asking anybody."),
    ),
    (
        "ssh",
        "cat $(x)",
        (
            "Nobody can know beforehand what the program x does and what $(x) will put into the command. So a "
            "person looks at it before it runs."
        ),
    ),
    (
        "ssh",
        "ls $HOME/x",
        ("Nobody can know beforehand what $HOME/x holds. So a person looks at it before it runs."),
    ),
    (
        "ssh",
        "kubectl exec web-1 -- ls",
        (
            "It would run something inside of web-1 in the cluster. The rule kubernetes-cli/enter wants a person "
            "to decide about that: The command would run inside of a pod, with what the pod may see and do. So "
            "does the rule linux/platform, and a person must look at all of it."
        ),
    ),
    (
        "postgres",
        "DELETE FROM orders",
        (
            "It would delete every row of public.orders. The rule postgres/unfiltered-write wants a person to "
            "decide about that: Rows of the whole table would change."
        ),
    ),
    (
        "postgres",
        "SELECT id FROM orders WHERE id = 7",
        ("It would only read rows of public.orders. The rule postgres/read-rows allows that without asking anybody."),
    ),
    (
        "postgres",
        "SET work_mem = '8GB'",
        ("It would set work_mem. No rule says that this may be done without asking, so a person decides."),
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
        assert len(sentence) < 900, (text, sentence)
        assert not JARGON.search(own), (text, own)
        if decision.rule == "default":
            assert "a person" in sentence, sentence
        elif facts.analysis.unreadable is None:
            assert decision.rule in sentence, sentence
    print(f"\n{len(answers)} commands explained")


def test_only_what_a_rule_is_about_is_held_against_a_command() -> None:
    effects = (Effect("read", "/srv/a", "cat"), Effect("delete", "/srv/b", "rm"), Effect("write", "/srv/c", "tee"))
    sentence = said(asked(Analysis(effects)))
    assert "delete /srv/b" in sentence
    assert "/srv/a" not in sentence


def test_a_rule_that_is_about_the_hour_says_nothing_of_what_the_command_does() -> None:
    text = "version: 1\npack: p\nrules: [{id: n, title: Nobody works at night, decide: deny, when: time.hour == 14}]\n"
    policy = assemble([Document("p", text.encode())])
    assert said(asked(Analysis((Effect("read", "/x", "cat"),))), policy) == "The rule p/n forbids: Nobody works at night."


def test_a_rule_that_needs_two_things_together_names_all() -> None:
    text = (
        "version: 1\npack: p\nrules:\n  - id: n\n    title: Both\n    decide: deny\n"
        '    when: effects.exists(e, e.verb == "read") && effects.exists(e, e.verb == "network")\n'
    )
    policy = assemble([Document("p", text.encode())])
    both = (Effect("read", "/x", "cat"), Effect("network", "h", "nc"))
    assert said(asked(Analysis(both)), policy).startswith("It would read /x and talk to h over the network.")


def test_a_rule_that_could_not_be_worked_out_is_named() -> None:
    text = 'version: 1\npack: p\nrules: [{id: n, title: Gold, decide: deny, when: \'target.labels["tier"] == "gold"\'}]\n'
    policy = assemble([Document("p", text.encode())])
    assert said(asked(Analysis((Effect("read", "/x", "cat"),))), policy).endswith(
        "The rule p/n could not be worked out, which counts against the command."
    )


def test_every_verb_has_words_and_none_loses_its_object() -> None:
    for protocol, verbs in (("ssh", SHELL_VERBS), ("postgres", SQL_VERBS)):
        for verb in verbs:
            (phrase,) = phrases([Effect(verb, "THING", "prog")], protocol)
            silent = {"explain", "transaction", "fetch", "nothing"}
            assert "THING" in phrase or verb in silent, phrase
            assert "{" not in phrase
    hostile = Effect("read", "{0} {} %s {x.__class__}", host="{1}")
    assert does(Analysis((hostile,)), "ssh") == "read {0} {} %s {x.__class__} at {1}"


@pytest.mark.parametrize("page", ["commands.md", "sql.md"])
def test_every_documented_reason_is_explained(page: str) -> None:
    table = (DOCS / page).read_text().split("## Opaque")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [reason for row in rows for reason in re.findall(r"`([a-z][a-z-]+)`", row)]
    assert len(named) > 20
    for reason in named:
        part = unknown_part(Opaque(reason, "THIS"))
        assert part
        assert not part.startswith("everything about it") or reason in UNWORDED, reason


UNWORDED = {
    "nested-too-deep", "too-long-to-classify", "unknown-node", "not-understood", "unknown-sampling-method", "copy-format",
    "every-relation", "stored-query", "dynamic-setting", "set-from-current", "dynamic-channel", "refers-to-itself",
    "unreadable-text", "numeral-of-newer-grammar", "user-type", "user-cast", "type-of-column", "parser-limit", "parser-crash",
    "pool-closed", "redirection-",
}  # fmt: skip
"""Rare, and their names say as much as a phrase would: "everything about it (nested too deep: …)"."""


def test_phrases_are_templates_that_fit() -> None:
    for reason in REASONS:
        assert unknown_part(Opaque(reason, "a {b} c")).count("{b}") <= 1


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
