"""Who acts for somebody may do what both may, and nothing that either may not: over rules of every kind."""

from __future__ import annotations

import random  # noqa: TID251 - seeded
from dataclasses import replace
from textwrap import dedent

from harness.people import BOB, agent
from harness.policy_facts import BASE, random_facts
from interlock import record
from interlock.commands.model import Analysis, Effect
from interlock.identity.principal import Authority, Kind, Principal
from interlock.policy import history
from interlock.policy.assembly import assemble
from interlock.policy.document import Document
from interlock.policy.engine import PolicySet
from interlock.policy.model import Decision, Facts, Target, Verdict

POLICY = """
    version: 1
    pack: p
    access:
      - {who: {groups: [agents]}, targets: {env: prod}, accounts: [deploy], roles: [app_ro]}
      - {who: {groups: [sre]}, targets: [web-1], accounts: [deploy, root]}
    rules:
      - {id: reads, title: Reading, when: effect.verb == "read", decide: allow}
      - {id: tidy, title: Agents tidy, when: effect.verb == "delete" && "agents" in principal.groups, decide: allow}
      - {id: people, title: People delete, when: effect.verb == "delete" && principal.kind == "human", decide: allow}
      - {id: interns, title: No interns, when: '"interns" in principal.groups', decide: deny}
      - {id: juniors, title: Ask for juniors, when: '"juniors" in principal.groups', decide: review, review: {groups: [leads]}}
      - {id: bots, title: Ask for bots, when: '"bots" in principal.groups', decide: review, review: {groups: [owners]}}
"""
PROD = Target("web-1", "ssh", {"env": "prod"}, account="deploy")
ORDERS = Target("orders", "postgres", {"env": "prod"}, role="app_ro", database="orders")
READ = Effect("read", "/srv/x", program="cat", argv=("cat", "/srv/x"))
DELETE = Effect("delete", "/srv/x", program="rm", argv=("rm", "-r", "/srv/x"), recursive=True)
STRICT = {Verdict.ALLOW: 0, Verdict.REVIEW: 1, Verdict.DENY: 2}


def policy(text: str) -> PolicySet:
    return assemble([Document("0.yaml", dedent(text).encode())])


def facts(*effects: Effect) -> Facts:
    return replace(BASE, target=PROD, analysis=Analysis(effects, sent="x"))


def acting(*groups: str, own: tuple[str, ...] = ("agents",)) -> Principal:
    return replace(
        agent(groups=own, acting_for=(BOB,)), behind=(Authority(BOB, "bob", Kind.HUMAN, frozenset(groups)),),
        acting_for_handles=("bob",),
    )  # fmt: skip


def decided(principal: Principal, *effects: Effect) -> Decision:
    return policy(POLICY).decide(replace(facts(*effects), principal=principal))


def test_a_target_opens_only_for_both() -> None:
    opened = policy(POLICY).may_open
    assert opened(acting("sre"), PROD).granted
    assert not opened(acting("dev"), PROD).granted  # the agent alone may
    assert not opened(acting("sre"), replace(PROD, account="root")).granted  # the person alone may
    assert not opened(acting("sre"), ORDERS).granted
    assert not opened(acting("sre", own=()), PROD).granted
    assert "bob" in opened(acting("dev"), PROD).reason


def test_a_denial_of_the_person_s_group_reaches_the_agent() -> None:
    """With groups intersected it would not: the agent is no intern."""
    assert decided(agent(), READ).verdict is Verdict.ALLOW
    found = decided(acting("sre", "interns"), READ)
    assert (found.verdict, found.rule) == (Verdict.DENY, "p/interns")


def test_what_one_of_them_must_ask_is_asked() -> None:
    assert decided(acting("sre"), DELETE).verdict is Verdict.ALLOW
    assert decided(acting("sre", own=()), DELETE).verdict is Verdict.REVIEW  # the person may, the agent may not
    found = decided(acting("juniors", own=("agents", "bots")), READ)
    assert found.verdict is Verdict.REVIEW and found.review is not None
    assert set(found.review.all_groups) == {"leads", "owners"}
    assert found.review.people == 2


def test_the_strictest_answer_counts_whatever_the_facts() -> None:
    whole, rng = policy(POLICY), random.Random(7)
    pool = ("agents", "sre", "interns", "juniors", "bots")
    seen = set()
    for _ in range(400):
        made = random_facts(rng)
        groups = [frozenset(name for name in pool if rng.random() < 0.3) for _ in range(3)]
        chain = tuple(Authority(BOB, f"p{n}", rng.choice(list(Kind)), one) for n, one in enumerate(groups[1:]))
        principal = replace(made.principal, groups=groups[0], behind=chain[: rng.choice([1, 2])])
        alone = [whole.decide(replace(made, principal=view)).verdict for view in principal.views()]
        found = whole.decide(replace(made, principal=principal))
        assert STRICT[found.verdict] == max(map(STRICT.__getitem__, alone))
        assert (found.review is not None) == (found.verdict is Verdict.REVIEW)
        opens = [whole.may_open(view, made.target).granted for view in principal.views()]
        assert whole.may_open(principal, made.target).granted == all(opens)
        seen.add(found.verdict)
    assert seen == set(Verdict)


def test_the_record_says_enough_to_decide_again() -> None:
    principal = acting("sre", "interns")
    opened = {**record.who(principal), **record.where(Target("web-1", "ssh", {"env": "prod"}, account="deploy"))}
    read, target, lacks = history._circumstances(opened)
    assert not lacks
    again: Facts = replace(facts(READ), principal=read, target=target)
    assert policy(POLICY).decide(again).rule == "p/interns"
    assert read.behind[0].groups == {"sre", "interns"}
    assert "behind" not in record.who(agent())
