"""What `policy check` says of rules that load: only what is certain, and all of that.

The pairs below are decided as well, over many random commands: where the lint says that a rule never changes a decision,
deleting it never does.
"""

from __future__ import annotations

import os
import random  # noqa: TID251 - seeded, so that a failure comes again
from textwrap import dedent

import pytest

from harness.policy_facts import random_facts
from interlock.policy.assembly import assemble
from interlock.policy.clauses import alternatives
from interlock.policy.document import Document
from interlock.policy.engine import PolicySet
from interlock.policy.lint import unmatched
from interlock.policy.model import Target
from interlock.policy.rule import Rule
from interlock.policy.terms import merge

FUZZ = bool(os.environ.get("FUZZ"))
HEAD = "version: 1\npack: p\nrules:\n"


def policy(rules: str, head: str = HEAD) -> PolicySet:
    return assemble([Document("p.yaml", (head + dedent(rules)).encode())])


def said(rules: str) -> list[str]:
    """Return what is said of the rules beside missing cases and access."""
    dull = (" has no case that hits", " has no near miss", "no file has access rules")
    return [warning for warning in policy(rules).warnings if not any(part in warning for part in dull)]


CERTAIN = [
    # -- never reached: something stricter always matches too
    ("{decide: deny}", "{decide: allow, when: effect.verb == 'read'}", "p/b is never reached: p/a"),
    ("{decide: deny, match: {verbs: [delete, write]}}", "{decide: review, match: {verbs: [delete]}}", "p/b is never reached"),
    ("{decide: deny, match: {verbs: [delete]}}", "{decide: allow, when: effect.verb == 'delete'}", "p/b is never reached"),
    (
        "{decide: review, when: 'effects.exists(e, e.verb in [\"read\", \"secret\"])'}",
        "{decide: allow, match: {verbs: [read]}, when: 'effect.object.startsWith(\"/srv/\")'}",
        "p/b is never reached: p/a (p.yaml:4) matches wherever it does, and says review",
    ),
    (
        "{decide: deny, when: 'effects.exists(x, x.verb == \"delete\" && x.recursive)'}",
        "{decide: review, when: 'effects.exists(e, e.recursive && e.force && e.verb == \"delete\")'}",
        "p/b is never reached",
    ),
    ("{decide: deny, match: {target: {env: [prod, stage]}}}", "{decide: review, match: {target: {env: prod, t: x}}}", "p/b is"),
    ("{decide: deny, match: {who: {kinds: [agent]}}}", "{decide: review, when: principal.kind == 'agent'}", "p/b is"),
    ("{decide: deny, match: {who: {groups: [a, b]}}}", "{decide: allow, match: {who: {groups: [a], kinds: [agent]}}}", "p/b is"),
    ("{decide: deny, match: {target: '*'}}", "{decide: review, match: {target: [web-1]}}", "p/b is never reached"),
    ("{decide: deny, when: time.hour < 6}", "{decide: review, when: time.hour < 5}", "p/b is never reached"),
    ("{decide: deny, when: time.hour < 6}", "{decide: review, when: 5 > time.hour && time.minute == 3}", "p/b is never reached"),
    ("{decide: deny, match: {protocol: ssh}}", "{decide: review, when: target.protocol == 'ssh'}", "p/b is never reached"),
    ("{decide: deny, when: time.hour < 6 || time.minute > 9}", "{decide: review, when: time.minute > 10}", "p/b is"),
    ("{decide: deny, when: target.name != 'a'}", "{decide: review, when: target.name == 'b'}", "p/b is never reached"),
    ("{decide: deny, when: target.name != 'a'}", "{decide: allow, opaque: true, when: target.name == 'b'}", "p/b is"),
    # -- shadowed: something of the same verdict says it already
    ("{decide: allow, match: {verbs: [read]}}", "{decide: allow, when: effect.verb == 'read' && effect.host == ''}", "p/b is sh"),
    ("{decide: allow, when: effect.verb == 'read' && effect.host == ''}", "{decide: allow, match: {verbs: [read]}}", "p/a is sh"),
    ("{decide: deny, match: {verbs: [delete]}}", "{decide: deny, match: {verbs: [delete], target: {env: prod}}}", "p/b is sh"),
    ("{decide: review, match: {verbs: [delete]}}", "{decide: review, match: {verbs: [delete]}, risk: low}", "p/b is sh"),
    ("{decide: deny, when: time.hour < 6}", "{decide: deny, when: time.hour  < 6}", "p/b says the same as p/a"),
    ("{decide: allow, when: effect.filtered}", "{decide: allow, when: (effect.filtered)}", "p/b says the same as p/a"),
]  # fmt: skip

UNCERTAIN = [
    ("{decide: allow}", "{decide: deny, match: {verbs: [delete]}}"),
    ("{decide: deny, match: {verbs: [delete]}}", "{decide: allow, match: {verbs: [delete, read]}}"),
    ("{decide: deny, match: {verbs: [delete]}}", "{decide: allow}"),
    ("{decide: deny, match: {verbs: [delete]}}", "{decide: allow, opaque: true}"),
    ("{decide: deny, match: {protocol: ssh, verbs: [delete]}}", "{decide: review, match: {verbs: [delete]}}"),
    ("{decide: deny, match: {target: {env: prod}}}", "{decide: review, match: {target: {env: [prod, stage]}}}"),
    ("{decide: deny, match: {target: {env: prod}}}", "{decide: review, match: {target: [web-1]}}"),
    ("{decide: deny, match: {who: {groups: [a]}}}", "{decide: review, match: {who: {groups: [a, b]}}}"),
    ("{decide: deny, when: effects.size() == 1}", "{decide: allow, when: effects.size() == 1}"),
    ("{decide: deny, when: command.effects.size() == 1}", "{decide: allow, when: command.effects.size() == 1}"),
    ("{decide: deny, when: effects.size() == 1, mode: observe}", "{decide: review, when: effects.size() == 1}"),
    ("{decide: deny, when: time.hour < 6 || time.minute > 9}", "{decide: review, when: time.minute > 8}"),
    ("{decide: deny, when: 'effects.exists(e, e.force) == false'}", "{decide: allow, when: effect.force}"),
    ("{decide: deny, when: '!effects.exists(e, e.force)'}", "{decide: allow, when: effect.force}"),
    ("{decide: deny, when: 'effects.exists(e, e.force) ? false : true'}", "{decide: allow, when: effect.force}"),
    ("{decide: deny, when: 'effects.all(e, e.force)'}", "{decide: allow, when: effect.force}"),
    (
        "{decide: deny, when: 'effects.exists(e, e.force) && effects.exists(e, e.recursive)'}",
        "{decide: review, when: 'effects.exists(e, e.recursive || e.force)'}",
    ),
    (
        "{decide: deny, when: 'effects.exists(e, e.force && e.recursive)'}",
        "{decide: review, when: 'effects.exists(e, e.force) && effects.exists(e, e.recursive)'}",
    ),
    # a later denial with words of its own is never shown, an earlier one is
    ("{decide: deny, match: {verbs: [delete], target: {env: prod}}}", "{decide: deny, match: {verbs: [delete]}}"),
    # a review that asks more of people is no repetition
    ("{decide: review, match: {verbs: [delete]}}", "{decide: review, match: {verbs: [delete]}, review: {groups: [dba]}}"),
    ("{decide: review, match: {verbs: [delete]}}", "{decide: review, match: {verbs: [delete]}, risk: critical}"),
    ("{decide: review, match: {verbs: [delete], target: {env: prod}}}", "{decide: review, match: {verbs: [delete]}}"),
]  # fmt: skip


def pair(first: str, second: str) -> str:
    return f"  - {{id: a, title: A, {first[1:]}\n  - {{id: b, title: B, {second[1:]}\n"


@pytest.mark.parametrize(("first", "second", "message"), CERTAIN)
def test_rules_that_never_change_a_decision_are_named(first: str, second: str, message: str) -> None:
    found = said(pair(first, second))
    assert any(message in warning for warning in found), found


@pytest.mark.parametrize(("first", "second"), UNCERTAIN)
def test_what_is_not_certain_is_not_said(first: str, second: str) -> None:
    found = said(pair(first, second))
    assert [w for w in found if "never reached" in w or "shadowed" in w or "says the same" in w] == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{decide: deny, when: time.hour >= 22 && time.hour < 5}", "p/a can never match: no value of time.hour"),
        ("{decide: deny, when: time.hour > 23}", "p/a can never match: no value of time.hour"),
        ("{decide: deny, when: target.name == 'a' && target.name == 'b'}", "no value of target.name"),
        ("{decide: deny, when: target.name == 'a' && target.name != 'a'}", "no value of target.name"),
        ("{decide: deny, match: {protocol: ssh}, when: target.protocol == 'postgres'}", "no value of target.protocol"),
        ("{decide: deny, match: {who: {kinds: [human]}}, when: principal.kind == 'agent'}", "no value of principal.kind"),
        ("{decide: allow, match: {verbs: [read]}, when: effect.verb == 'write'}", "no value of effect.verb"),
        ("{decide: allow, when: 'effect.verb in [\"read\"] && effect.force && !effect.force'}", "no value of effect.force"),
        ("{decide: allow, when: effect.verb == 'opaque'}", "no value of effect.verb"),
        ("{decide: deny, when: 'effects.exists(e, e.verb == \"opaque\")'}", "no value of effect.verb"),
        ("{decide: deny, when: 'effects.exists(e, e.verb == \"read\" && e.verb == \"write\")'}", "no value of effect.verb"),
        ("{decide: deny, when: time.hour < 3 || time.hour > 23}", "p/a has an alternative that can never be true"),
        ("{decide: allow, opaque: true, match: {verbs: [read]}}", "says opaque: true, which does nothing beside verbs:"),
        ("{decide: deny, when: '1 == 2'}", "reads no fact"),
    ],
)  # fmt: skip
def test_conditions_that_contradict_themselves(rule: str, message: str) -> None:
    found = said(f"  - {{id: a, title: A, {rule[1:]}\n")
    assert any(message in warning for warning in found), found


@pytest.mark.parametrize(
    "when",
    [
        "time.hour >= 22 || time.hour < 5",
        "target.name == 'a' || target.name == 'b'",
        "target.name != 'a' && target.name != 'b'",
        "effects.exists(e, e.verb == \"read\") && effects.exists(e, e.verb == \"write\")",
        "effects.exists(e, e.verb == \"read\") && !effects.exists(e, e.verb == \"read\" && e.force)",
        "effects.exists(time, time.verb == \"read\") && time.hour == 3",
        "command.text == 'time.hour > 23'",
        "command.text == \"\"\"a\"\"\" || time.hour > 30 - 10",
        "time.hour > 30 - 10",
        "-1 < time.hour",
        "target.labels.env == 'a' && target.labels['env'] == 'b' || time.hour == 1",
    ],
)  # fmt: skip
def test_conditions_that_can_be_true_are_left_alone(when: str) -> None:
    text = HEAD + f"  - id: a\n    title: A\n    decide: deny\n    when: |\n      {when}\n"
    assert [w for w in assemble([Document("p.yaml", text.encode())]).warnings if "never" in w] == []


def test_the_lint_is_right_whenever_it_is_certain() -> None:
    """Pairs of generated rules: where one is said to change nothing, random commands agree."""
    rng = random.Random() if FUZZ else random.Random(4)
    tried = named = 0
    for _ in range(20_000 if FUZZ else 800):
        rules = pair(random_rule(rng), random_rule(rng))
        whole = policy(rules)
        useless = {
            w.split(": ", 1)[1].split(" ")[0]
            for w in whole.warnings
            if "never reached" in w or "shadowed" in w or "the same" in w
        }
        never = {w.split(": ", 1)[1].split(" ")[0] for w in whole.warnings if "can never match" in w}
        tried += 1
        named += bool(useless or never)
        for rule in whole.rules:
            if rule.name not in useless | never:
                continue
            rest = without(whole, rule)
            for _ in range(15):
                facts = random_facts(rng)
                with_it, without_it = whole.decide(facts), rest.decide(facts)
                assert (with_it.verdict, with_it.review) == (without_it.verdict, without_it.review), (rules, facts)
                if rule.name in never:
                    assert rule.name not in with_it.matched, (rules, facts)
    print(f"\n{tried} pairs, {named} of them with a rule that changes nothing")
    assert named > tried / 10


def named_by(whole: PolicySet, *parts: str) -> set[str]:
    return {w.split(": ", 1)[1].split(" ")[0] for w in whole.warnings if any(part in w for part in parts)}


def without(whole: PolicySet, rule: Rule) -> PolicySet:
    return PolicySet(rules=[r for r in whole.rules if r is not rule], access=(), default=whole.default, digest="x", files={})


ATOMS = [
    "X.verb == 'read'", "X.verb == 'delete'", "X.verb in ['read', 'write']", "X.verb != 'read'", "X.force", "!X.force",
    "X.recursive",
    "X.object.startsWith('/srv/')", "X.host == ''", "X.program == 'cat'",
]  # fmt: skip
WHOLE = [
    "time.hour < 6", "time.hour >= 3", "time.hour == 5", "4 > time.hour", "target.name == 'web-1'", "target.name != 'web-1'",
    "principal.kind == 'agent'", "target.labels['env'] == 'prod'", "command.text == 'x'", "command.statements > 1",
    "opaque.size() == 0", "target.protocol == 'ssh'",
]  # fmt: skip
MATCHES = [
    "", "verbs: [read]", "verbs: [read, delete]", "protocol: ssh", "protocol: postgres", "target: {env: prod}", "target: '*'",
    "target: {env: [prod, dev]}", "target: [web-1]", "who: {kinds: [agent]}", "who: {groups: [ops]}", "who: {groups: [ops, sre]}",
]  # fmt: skip


def random_rule(rng: random.Random) -> str:
    verdict = rng.choice(["allow", "deny", "review"])
    conjuncts = [some_effect(rng, verdict) for _ in range(rng.choice([0, 1, 1]))]
    conjuncts += rng.sample(WHOLE, rng.choice([0, 0, 1, 2]))
    if conjuncts and rng.random() < 0.15:
        conjuncts = [f"({conjuncts[0]} || {rng.choice(WHOLE)})", *conjuncts[1:]]
    rng.shuffle(conjuncts)
    match = ", ".join({m.split(":")[0]: m for m in rng.sample(MATCHES, rng.choice([0, 1, 2])) if m}.values())
    when = rng.choice([" && ", " && ", " && ", " || "]).join(conjuncts)
    parts = [f"decide: {verdict}"]
    parts += [f"match: {{{match}}}"] if match else []
    parts += [f'when: "{when}"'] if when else []
    parts += ["opaque: true"] if verdict == "allow" and rng.random() < 0.1 else []
    parts += ["risk: low"] if verdict == "review" and rng.random() < 0.3 else []
    return "{" + ", ".join(parts) + "}"


def some_effect(rng: random.Random, verdict: str) -> str:
    atoms = rng.sample(ATOMS, rng.choice([1, 1, 2, 3]))
    if verdict == "allow" and rng.random() < 0.8:
        return " && ".join(atoms).replace("X", "effect")
    name = rng.choice(["e", "x", "time"])
    return f"effects.exists({name}, {' && '.join(atoms).replace('X', name)})"


def test_alternatives_are_read_as_the_compiler_binds_them() -> None:
    found = alternatives("a.b && (c.d || e.f) || (g.h && (i.j))")
    assert found is not None
    assert [sorted(" ".join(clause) for clause in way.clauses) for way in found] == [
        ["a . b", "c . d || e . f"], ["g . h", "i . j"]
    ]  # fmt: skip


def test_many_alternatives_are_given_up() -> None:
    assert alternatives(" || ".join(f"time.hour == {i}" for i in range(100))) is None


def test_terms_of_the_pairs_are_those_that_the_lint_compares() -> None:
    rules = policy(pair("{decide: review}", "{decide: review, risk: low}")).rules
    first, second = (rule.terms for rule in rules)
    assert first is not None and second is not None
    assert merge([first, second]) == first


def test_access_that_opens_nothing_more() -> None:
    head = """\
version: 1
access:
  - {who: {groups: [sre]}, targets: '*', accounts: ['*'], roles: ['*']}
  - {who: {groups: [sre], kinds: [human]}, targets: {env: prod}, accounts: [deploy]}
  - {who: {groups: [dba]}, targets: {env: prod}, roles: [app], databases: [orders]}
  - {who: {groups: [dba]}, targets: {env: prod}, roles: [app]}
  - {who: {groups: [agents]}, targets: {env: prod}, accounts: [deploy]}
  - {who: {groups: [agents]}, targets: {env: prod}, accounts: [deploy]}
"""
    found = [w for w in policy("", head).warnings if "opens nothing" in w]
    assert found == [
        "p.yaml:4: p.yaml:access[1] opens nothing that p.yaml:access[0] does not open",
        "p.yaml:5: p.yaml:access[2] opens nothing that p.yaml:access[3] does not open",
        "p.yaml:8: p.yaml:access[5] opens nothing that p.yaml:access[4] does not open",
    ]


def test_what_no_configured_target_meets() -> None:
    text = """\
version: 1
pack: p
access:
  - {who: {groups: [sre]}, targets: {env: prodd}, accounts: ['*']}
  - {who: {groups: [sre]}, targets: [web-1], accounts: ['*']}
rules:
  - {id: a, title: A, match: {target: [web-2]}, decide: deny}
  - {id: b, title: B, match: {protocol: postgres, target: {env: prod}}, decide: deny}
  - {id: c, title: C, match: {protocol: ssh, target: {env: prod}}, decide: deny}
"""
    made = policy("", text)
    targets = [Target("web-1", "ssh", {"env": "prod"})]
    found = unmatched(made.rules, made.access, targets)
    assert [line.split(": ", 1)[1].split(" ")[0] for line in found] == ["p/a", "p/b", "p.yaml:access[0]"]
    assert unmatched(made.rules, made.access, []) == []


def test_packs_may_say_the_same_and_not_the_opposite() -> None:
    """A pack must be able to stand without the others, so what another one allows as well is no mistake in it."""
    one = "version: 1\npack: one\nrules: [{id: a, title: A, match: {verbs: [read]}, decide: allow}]\n"
    same = "version: 1\npack: two\nrules: [{id: b, title: B, match: {verbs: [read]}, when: effect.force, decide: allow}]\n"
    opposite = (
        same.replace("decide: allow", "decide: review")
        .replace("effect.force", "'effects.exists(e, e.force)'")
        .replace("[read]", "[read, write]")
    )
    assert [w for w in assemble([Document("1", one.encode()), Document("2", same.encode())]).warnings if "two/b is" in w] == []
    stricter = opposite.replace(", when: 'effects.exists(e, e.force)'", "")
    found = assemble([Document("1", one.encode()), Document("2", stricter.encode())]).warnings
    assert [w for w in found if "one/a is never reached: two/b" in w]
