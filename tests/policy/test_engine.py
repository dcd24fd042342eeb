"""The semantics of policy.md, as a dialogue: these rules, this command, that answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from textwrap import dedent

import pytest

from harness.people import agent, person
from interlock.commands.model import Analysis, Command, Effect, Kind, Opaque, ShellContext, Stdin, Unreadable, Wire
from interlock.errors import PolicyError, Reason
from interlock.identity.principal import Identity
from interlock.policy.assembly import assemble
from interlock.policy.document import Document
from interlock.policy.engine import MAX_ALLOWED_EFFECTS, MAX_EFFECTS, PolicySet
from interlock.policy.model import Decision, Facts, Need, ReviewTerms, Risk, SessionFacts, StepUp, Target, Verdict

PROD = Target("web-1", "ssh", {"env": "prod"}, account="deploy")
ORDERS = Target("orders", "postgres", {"env": "prod"}, role="app_ro", database="orders")
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
READ = Effect("read", "/srv/x", program="cat", argv=("cat", "/srv/x"))
UNKNOWN = Effect("execute", "new-thing", program="new-thing", argv=("new-thing",))
DELETE = Effect("delete", "/srv/x", program="rm", argv=("rm", "-r", "/srv/x"), recursive=True)


def policy(text: str, *more: str, terms: ReviewTerms | None = None) -> PolicySet:
    files = [Document(f"{i}.yaml", dedent(t).encode()) for i, t in enumerate((text, *more))]
    return assemble(files, terms=terms)


def rules(text: str) -> PolicySet:
    return policy("version: 1\npack: p\nrules:\n" + dedent(text))


def shell(text: bytes = b"x") -> Command:
    return Command(Wire.SSH, Kind.EXEC, text, context=ShellContext("bash"))


def facts(
    *effects: Effect,
    opaque: Sequence[Opaque] = (),
    text: bytes = b"x",
    now: datetime = NOON,
    target: Target = PROD,
    **more: object,
) -> Facts:
    analysis = Analysis(tuple(effects), tuple(opaque), sent="x")
    made = Facts(agent(), target, shell(text), analysis, SessionFacts("s1", "10.0.0.9"), now)
    return replace(made, **more)  # type: ignore[arg-type]  # tests name the fields they change


ALLOW_READS = """
  - {id: reads, title: Reading, when: effect.verb == "read", decide: allow}
"""


def test_what_nobody_decided_is_reviewed_by_the_default_group() -> None:
    decision = rules(ALLOW_READS).decide(facts(UNKNOWN))
    assert decision.verdict is Verdict.REVIEW
    assert decision.rule == "default"
    assert decision.review == ReviewTerms(groups=("reviewers",))
    assert "execute new-thing" in decision.reason


def test_one_default_for_the_installation() -> None:
    site = "version: 1\ndefault: {review: {groups: [sre], quorum: 2, expires: 1h, hold: 10s, return: false}}\n"
    decision = policy(site).decide(facts(UNKNOWN))
    assert decision.review == ReviewTerms(groups=("sre",), quorum=2, expires=3600, hold=10, returns=False)
    with pytest.raises(PolicyError, match=r"(?s)1\.yaml:2:1: a second default:.*\^"):
        policy(site, site)


def test_rules_inherit_the_terms_they_leave_out() -> None:
    site = "version: 1\ndefault: {review: {groups: [sre], expires: 1h}}\n"
    pack = "version: 1\npack: p\nrules: [{id: a, title: A, decide: review, risk: low, review: {hold: 5s}}]\n"
    assert policy(site, pack).decide(facts(READ)).review == ReviewTerms(groups=("sre",), expires=3600, hold=5, risk=Risk.LOW)


def test_allow_is_per_effect() -> None:
    p = rules(ALLOW_READS)
    assert p.decide(facts(READ)).verdict is Verdict.ALLOW
    assert p.decide(facts(READ, UNKNOWN)).verdict is Verdict.REVIEW
    assert p.decide(facts(READ, replace(READ, object="/srv/y"))).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    "when",
    [
        'effects.exists(e, e.verb == "read")',
        '!effects.all(e, e.verb != "read")',
        'effects.filter(e, e.verb == "read").size() > 0',
        'effects[0].verb == "read"',
        'command.effects.exists(e, e.verb == "read")',
        'effect.verb.size() > 0 && effects.exists(e, e.verb == "read")',
        '"read" in effects.map(e, e.verb)',
    ],
)
def test_a13_an_allow_rule_with_exists_does_not_let_a_companion_pass(when: str) -> None:
    """The author meant "commands that read"; `cat x; new-thing` is one that also runs something else."""
    p = rules(f"\n  - {{id: reads, title: Reading, when: '{when}', decide: allow}}")
    assert p.decide(facts(READ)).verdict is Verdict.ALLOW
    assert p.decide(facts(READ, UNKNOWN)).verdict is Verdict.REVIEW
    assert p.decide(facts(UNKNOWN, READ)).verdict is Verdict.REVIEW


def test_different_allow_rules_may_cover_different_effects() -> None:
    p = rules("""
      - {id: reads, title: Reading, when: effect.verb == "read", decide: allow}
      - {id: programs, title: Known, when: effect.program == "new-thing", decide: allow}
    """)
    decision = p.decide(facts(READ, UNKNOWN))
    assert decision.verdict is Verdict.ALLOW
    assert decision.rule == "p/reads"
    assert decision.matched == ("p/reads", "p/programs")


def test_deny_beats_review_beats_allow_in_any_order() -> None:
    allow = '{id: a, title: A, when: effect.verb == "read", decide: allow}'
    review = "{id: r, title: R, when: 'effects.exists(e, e.verb == \"read\")', decide: review}"
    deny = "{id: d, title: D, when: 'effects.exists(e, e.verb == \"read\")', decide: deny, hint: Ask Bob.}"
    for order in ((allow, review, deny), (deny, review, allow), (review, deny, allow)):
        decision = rules("".join(f"\n  - {r}" for r in order)).decide(facts(READ))
        assert (decision.verdict, decision.rule, decision.hint) == (Verdict.DENY, "p/d", "Ask Bob.")
        assert set(decision.matched) == {"p/a", "p/r", "p/d"}
    assert rules(f"\n  - {allow}\n  - {review}").decide(facts(READ)).verdict is Verdict.REVIEW


def test_no_effects_is_never_allowed() -> None:
    p = rules("\n  - {id: all, title: All, decide: allow}")
    assert p.decide(facts(READ)).verdict is Verdict.ALLOW
    assert p.decide(facts()).verdict is Verdict.REVIEW


def test_opaque_is_not_allowed_by_an_ordinary_rule() -> None:
    part = Opaque("command-substitution", "$(x)", 0, 4)
    everything = rules("\n  - {id: all, title: All, decide: allow}")
    assert everything.decide(facts(READ, opaque=[part])).verdict is Verdict.REVIEW
    assert "command-substitution" in everything.decide(facts(opaque=[part])).reason
    permissive = rules("\n  - {id: all, title: All, decide: allow, opaque: true}")
    assert permissive.decide(facts(READ, opaque=[part])).verdict is Verdict.ALLOW
    assert permissive.decide(facts(opaque=[part])).verdict is Verdict.ALLOW
    narrow = rules("""
      - {id: all, title: All, decide: allow}
      - {id: subst, title: Some, decide: allow, opaque: true, when: effect.object == "command-substitution"}
    """)
    assert narrow.decide(facts(READ, opaque=[part])).verdict is Verdict.ALLOW
    assert narrow.decide(facts(READ, opaque=[part, Opaque("eval")])).verdict is Verdict.REVIEW


def test_unreadable_text_is_never_allowed() -> None:
    p = rules("\n  - {id: all, title: All, decide: allow, opaque: true}")
    analysis = Analysis((READ,), unreadable=Unreadable(Reason.DECEPTIVE_TEXT, "bidi"))
    assert p.decide(facts(analysis=analysis)).verdict is Verdict.REVIEW


def test_a_condition_that_fails_counts_against_the_command() -> None:
    absent = 'target.labels["tier"] == "gold"'
    for verdict, expected in (("deny", Verdict.DENY), ("review", Verdict.REVIEW)):
        p = rules(ALLOW_READS + f"  - {{id: bad, title: Bad, when: '{absent}', decide: {verdict}}}")
        decision = p.decide(facts(READ))
        assert (decision.verdict, decision.rule, decision.errors) == (expected, "p/bad", ("p/bad: NOT_FOUND",))
    p = rules(f"\n  - {{id: bad, title: Bad, when: 'effect.verb == \"read\" && {absent}', decide: allow}}")
    decision = p.decide(facts(READ))
    assert (decision.verdict, decision.rule) == (Verdict.REVIEW, "default")
    assert decision.errors == ("p/bad: NOT_FOUND",)


def test_an_error_never_quotes_the_command() -> None:
    p = rules("\n  - {id: bad, title: Bad, when: 'target.labels[effects[0].object] == \"x\"', decide: deny}")
    decision = p.decide(facts(replace(READ, object="hunter2")))
    assert decision.verdict is Verdict.DENY
    assert "hunter2" not in str(decision)


def test_a_condition_that_costs_too_much_counts_against_the_command() -> None:
    many = [replace(READ, object=f"/srv/{i}") for i in range(200)]
    loops = "effects.all(a, effects.all(b, effects.all(c, a.verb == b.verb && b.verb == c.verb)))"
    decision = rules(f"\n  - {{id: slow, title: Slow, when: '{loops}', decide: deny}}").decide(facts(*many))
    assert decision.verdict is Verdict.DENY
    assert decision.errors == ("p/slow: INTERNAL",)


def test_too_many_different_effects_need_a_human_and_equal_ones_count_once() -> None:
    p = rules(ALLOW_READS)
    assert p.decide(facts(*[READ] * 60_000)).verdict is Verdict.ALLOW
    many = [replace(READ, object=f"/srv/{i}") for i in range(MAX_ALLOWED_EFFECTS + 1)]
    assert p.decide(facts(*many[:-1])).verdict is Verdict.ALLOW
    decision = p.decide(facts(*many))
    assert (decision.verdict, decision.rule) == (Verdict.REVIEW, "default")


def test_far_too_many_effects_are_denied_without_asking_the_rules() -> None:
    p = rules("\n  - {id: all, title: All, decide: allow}")
    many = [replace(READ, object=f"/srv/{i}") for i in range(MAX_EFFECTS + 1)]
    assert p.decide(facts(*many[:-1])).verdict is Verdict.REVIEW
    decision = p.decide(facts(*many))
    assert (decision.verdict, decision.rule) == (Verdict.DENY, "interlock/too-many-effects")
    assert decision.hint == "Split it into several commands."


def two_reviews(first: str, second: str) -> Decision:
    return rules(f"""
      - {{id: one, title: One, decide: review, review: {first}}}
      - {{id: two, title: Two, decide: review, risk: critical, review: {second}}}
    """).decide(facts(READ))


def test_of_several_reviews_all_must_be_satisfied() -> None:
    decision = two_reviews(
        "{groups: [sre, dba], quorum: 2, expires: 1h, hold: 10s, scopes: [once, exact]}",
        "{groups: [dba, lead], expires: 15m, hold: 60s, return: false, step_up: reauth}",
    )
    assert decision.verdict is Verdict.REVIEW
    assert decision.rule == "p/two"  # the one of the highest risk is named
    assert decision.matched == ("p/one", "p/two")
    assert decision.review == ReviewTerms(
        groups=("dba",), quorum=2, expires=900, hold=10, returns=False, step_up=StepUp.REAUTH, risk=Risk.CRITICAL
    )


def test_reviews_that_no_group_can_answer_together_wait_for_people_of_both() -> None:
    decision = two_reviews("{groups: [sre], quorum: 2, escalate: 5m}", "{groups: [dba], escalate: 2m}")
    assert decision.review is not None
    assert decision.review.needs == (Need(("dba",), 1), Need(("sre",), 2))
    assert (decision.review.people, decision.review.escalate) == (3, 120)


def test_a_rule_may_need_people_of_several_groups() -> None:
    needs = "{needs: [{groups: [sre]}, {groups: [dba, lead], quorum: 2}]}"
    decision = two_reviews(needs, "{groups: [lead]}")
    assert decision.review is not None
    assert decision.review.needs == (Need(("lead",), 2), Need(("sre",), 1))
    assert decision.review.all_groups == ("lead", "sre")


def test_a_passkey_rule_is_critical_and_once() -> None:
    decision = rules("\n  - {id: k, title: K, decide: review, review: {step_up: passkey}}").decide(facts(READ))
    assert decision.review is not None
    assert (decision.review.risk, decision.review.scopes) == (Risk.CRITICAL, ("once",))


def test_observe_mode_is_recorded_and_does_not_count() -> None:
    p = rules("""
      - {id: a, title: A, when: effect.verb == "read", decide: allow}
      - {id: d, title: D, when: 'effects.exists(e, e.verb == "read")', decide: deny, mode: observe}
      - {id: x, title: X, when: effect.program == "new-thing", decide: allow, mode: observe}
    """)
    decision = p.decide(facts(READ))
    assert (decision.verdict, decision.rule, decision.observed) == (Verdict.ALLOW, "p/a", ("p/d:deny",))
    decision = p.decide(facts(UNKNOWN))
    assert (decision.verdict, decision.observed) == (Verdict.REVIEW, ("p/x:allow",))
    assert p.observed == ("p/d", "p/x")
    whole = policy("version: 1\npack: q\nmode: observe\nrules: [{id: a, title: A, decide: deny}]")
    assert whole.decide(facts(READ)).observed == ("q/a:deny",)


def test_match_filters_by_protocol_target_person_and_verb() -> None:
    p = rules("""
      - {id: pg, title: Pg, match: {protocol: postgres}, decide: deny}
      - {id: prod, title: Prod, match: {target: {env: [prod, stage], tier: gold}}, decide: deny}
      - {id: named, title: Named, match: {target: [web-2]}, decide: deny}
      - {id: people, title: People, match: {who: {kinds: [human], groups: [ops]}}, decide: deny}
      - {id: kill, title: Kill, match: {verbs: [process, kernel]}, decide: deny}
    """)

    def matched(target: Target = PROD, effect: Effect = READ, **more: object) -> tuple[str, ...]:
        return p.decide(facts(effect, target=target, **more)).matched

    assert matched() == ()
    assert matched(ORDERS) == ("p/pg",)
    assert matched(replace(PROD, labels={"env": "stage", "tier": "gold"})) == ("p/prod",)
    assert matched(replace(PROD, labels={"env": "dev", "tier": "gold"})) == ()
    assert matched(replace(PROD, name="web-2")) == ("p/named",)
    assert matched(principal=person(groups=("ops",))) == ("p/people",)
    assert matched(principal=person(groups=("sre",))) == ()
    assert matched(principal=agent(groups=("ops",))) == ()
    assert matched(effect=Effect("kernel", "modprobe")) == ("p/kill",)


def test_rules_read_every_fact() -> None:
    everything = [
        'command.protocol == "ssh" && command.kind == "command" && command.text == "x" && command.statements == 1',
        'command.stdin == "ignored" && command.effects.size() == 1 && command.opaque.size() == 1',
        'effects[0].argv == ["cat", "/srv/x"] && effects[0].via.size() == 0 && effects[0].filtered && effects[0].limited',
        'opaque[0].reason == "eval" && opaque[0].start == 2 && opaque[0].end == 5 && opaque[0].text == "abc"',
        'principal.subject == "local:claude-ci" && principal.kind == "agent" && "agents" in principal.groups',
        'principal.owner == "local:alice" && principal.acting_for == ["local:bob"] && principal.assurance.acr == ""',
        'target.name == "web-1" && target.labels["env"] == "prod" && target.account == "deploy" && target.database == ""',
        'session.id == "s1" && session.client == "10.0.0.9"',
        'time.hour == 12 && time.minute == 0 && time.weekday == "monday"',
        "time.year == 2026 && time.month == 1 && time.day == 5",
    ]
    p = rules("".join(f"\n  - {{id: r{i}, title: R, when: '{w}', decide: deny}}" for i, w in enumerate(everything)))
    asked = facts(READ, opaque=[Opaque("eval", "abc", 2, 5)], principal=agent(acting_for=(Identity("local", "bob"),)))
    decision = p.decide(asked)
    assert decision.errors == ()
    assert len(decision.matched) == len(everything)


def test_time_is_utc_and_is_passed_in() -> None:
    p = rules("\n  - {id: night, title: N, when: time.hour < 6, decide: deny}")
    asked = facts(READ)
    assert p.decide(asked).verdict is Verdict.REVIEW
    assert p.decide(replace(asked, now=datetime.fromisoformat("2026-01-05T03:00:00+02:00"))).verdict is Verdict.DENY
    assert p.decide(replace(asked, now=datetime.fromisoformat("2026-01-05T07:00:00+02:00"))).verdict is Verdict.DENY


class TestCache:
    """A14: a cached decision never outlives anything it was made from."""

    def test_the_same_command_again_is_the_same_decision(self) -> None:
        p, asked = rules(ALLOW_READS), facts(READ)
        assert p.decide(asked) is p.decide(replace(asked, now=datetime(2027, 1, 1, tzinfo=UTC)))

    def test_an_equal_principal_in_another_session_shares_it(self) -> None:
        p, asked = rules(ALLOW_READS), facts(READ)
        assert p.decide(asked) is p.decide(replace(asked, principal=agent(), session=SessionFacts("s2")))

    def test_everything_a_rule_reads_is_in_the_key(self) -> None:
        p = rules("""
          - {id: g, title: G, when: 'effect.verb == "read" && "ops" in principal.groups', decide: allow}
          - {id: c, title: C, when: 'effect.verb == "read" && principal.acting_for.size() > 0', decide: allow}
          - {id: t, title: T, when: 'effect.verb == "read" && target.account == "root"', decide: allow}
          - {id: s, title: S, when: 'effect.verb == "read" && session.client == "10.0.0.1"', decide: allow}
          - {id: x, title: X, when: 'effect.verb == "read" && command.text == "y"', decide: allow}
          - {id: k, title: K, when: 'effect.verb == "read" && command.stdin == "data"', decide: allow}
        """)
        asked = facts(READ)
        for _ in range(2):
            assert p.decide(asked).verdict is Verdict.REVIEW
            assert p.decide(replace(asked, principal=agent(groups=("ops",)))).rule == "p/g"
            assert p.decide(replace(asked, principal=agent(acting_for=(Identity("a", "b"),)))).rule == "p/c"
            assert p.decide(replace(asked, target=replace(PROD, account="root"))).rule == "p/t"
            assert p.decide(replace(asked, session=SessionFacts("s1", "10.0.0.1"))).rule == "p/s"
            assert p.decide(replace(asked, command=shell(b"y"))).rule == "p/x"
            assert p.decide(replace(asked, analysis=replace(asked.analysis, stdin=Stdin.DATA))).rule == "p/k"

    def test_a_new_analysis_of_the_same_text_is_decided_anew(self) -> None:
        p, asked = rules(ALLOW_READS), facts(READ)
        assert p.decide(asked).verdict is Verdict.ALLOW
        assert p.decide(replace(asked, analysis=Analysis((UNKNOWN,), sent="x"))).verdict is Verdict.REVIEW

    def test_texts_of_the_same_effects_share_it_when_no_rule_reads_texts(self) -> None:
        p = rules(
            ALLOW_READS
            + """
  - {id: x, title: X, match: {verbs: [write]}, when: 'command.text == "y"', decide: deny}
"""
        )
        assert p.decide(facts(READ, text=b"one")) is p.decide(facts(READ, text=b"two"))

    def test_a_rule_that_reads_texts_is_asked_about_each(self) -> None:
        p = rules(ALLOW_READS + "  - {id: x, title: X, when: 'command.text == \"two\"', decide: deny}")
        assert p.decide(facts(READ, text=b"one")).verdict is Verdict.ALLOW
        assert p.decide(facts(READ, text=b"two")).verdict is Verdict.DENY

    def test_a_decision_is_blind_only_when_no_rule_that_is_asked_reads_the_command(self) -> None:
        reading = "  - {id: x, title: X, when: 'command.text == \"two\"', decide: deny}"
        elsewhere = reading.replace("when", "match: {verbs: [write]}, when")
        assert rules(ALLOW_READS).decide(facts(READ)).blind
        assert rules(ALLOW_READS + elsewhere).decide(facts(READ)).blind
        assert not rules(ALLOW_READS + reading).decide(facts(READ)).blind
        assert not rules(ALLOW_READS + "  - {id: n, title: N, when: time.hour < 6, decide: deny}").decide(facts(READ)).blind

    def test_equal_effects_beside_something_opaque_are_not_the_same(self) -> None:
        p = rules(ALLOW_READS)
        assert p.decide(facts(READ, text=b"one")).verdict is Verdict.ALLOW
        assert p.decide(facts(READ, text=b"two", opaque=[Opaque("dynamic", "$x")])).verdict is Verdict.REVIEW

    def test_rules_that_read_time_are_not_cached(self) -> None:
        p = rules(ALLOW_READS + "  - {id: night, title: N, when: time.hour < 6, decide: deny}")
        asked = facts(READ)
        assert p.decide(asked).verdict is Verdict.ALLOW
        assert p.decide(replace(asked, now=NOON.replace(hour=5))).verdict is Verdict.DENY

    def test_a_variable_that_is_called_time_is_not_the_time(self) -> None:
        p = rules("\n  - {id: a, title: A, when: 'effects.exists(time, time.verb == \"kernel\")', decide: deny}")
        condition = p.rules[0].condition
        assert condition is not None
        assert condition.reads == {"effects"}

    def test_it_is_bounded(self) -> None:
        p = rules(ALLOW_READS)
        for i in range(5000):
            p.decide(facts(READ, text=str(i).encode()))
        assert len(p._decisions) <= 4096
        assert len(p._standings) <= 4096
        assert len(p._equal) == 1
        long = facts(READ, text=b"x" * 20_000)
        assert p.decide(long) is not p.decide(long)


class TestAccess:
    OPEN = """
      version: 1
      access:
        - {who: {groups: [agents]}, targets: {env: prod}, accounts: [deploy], roles: [app_ro]}
        - {who: {handles: [bob], kinds: [human]}, targets: [web-1, orders], accounts: ["*"], roles: [dba], databases: [orders]}
        - {who: {subjects: ["local:carol"]}, targets: "*", accounts: [audit]}
    """

    def test_nobody_by_default(self) -> None:
        for p in (rules(ALLOW_READS), policy("version: 1")):
            access = p.may_open(agent(), PROD)
            assert (access.granted, access.rule) == (False, "access/none")
            assert "claude-ci" in access.reason

    def test_group_labels_account_and_role(self) -> None:
        p = policy(self.OPEN)
        assert p.may_open(agent(), PROD).granted
        assert p.may_open(agent(), PROD).rule == "0.yaml:access[0]"
        assert p.may_open(agent(), ORDERS).granted
        assert p.may_open(agent(), replace(ORDERS, database="payroll")).granted  # databases absent: the role is the floor
        assert not p.may_open(agent(), replace(PROD, account="root")).granted
        assert not p.may_open(agent(), replace(ORDERS, role="postgres")).granted
        assert not p.may_open(agent(), replace(PROD, labels={"env": "dev"})).granted
        assert not p.may_open(agent(), replace(PROD, labels={})).granted
        assert not p.may_open(agent(groups=()), PROD).granted

    def test_names_handles_kinds_and_stars(self) -> None:
        p = policy(self.OPEN)
        bob = person(Identity("local", "bob"), groups=())
        assert p.may_open(bob, replace(PROD, account="root")).granted
        assert not p.may_open(bob, replace(PROD, name="web-2")).granted
        assert p.may_open(bob, replace(ORDERS, role="dba")).granted
        assert not p.may_open(bob, replace(ORDERS, role="dba", database="payroll")).granted
        assert not p.may_open(replace(agent(groups=()), handle="bob"), PROD).granted  # not a human
        carol = person(Identity("local", "carol"), groups=())
        assert p.may_open(carol, Target("any", "ssh", account="audit")).granted
        assert not p.may_open(person(Identity("elsewhere", "carol"), groups=()), Target("any", "ssh", account="audit")).granted

    def test_an_empty_account_and_an_unknown_protocol_are_never_opened(self) -> None:
        p = policy('version: 1\naccess: [{who: {groups: [agents]}, targets: "*", accounts: ["*"], roles: ["*"]}]')
        assert p.may_open(agent(), PROD).granted
        assert not p.may_open(agent(), replace(PROD, account="")).granted
        assert not p.may_open(agent(), Target("raw", "tcp", {"env": "prod"}, account="x")).granted


def test_the_digest_is_of_what_was_loaded() -> None:
    from hashlib import sha256

    from interlock.policy.loader import load_bundle

    a, b = rules(ALLOW_READS), rules(ALLOW_READS + "  # a comment counts too\n")
    assert a.digest != b.digest
    assert a.digest == rules(ALLOW_READS).digest
    (name, bundle), *rest = a.files.items()
    assert not rest
    assert a.digest == f"sha256:{name}" == f"sha256:{sha256(bundle).hexdigest()}"
    again = load_bundle(bundle)
    assert again.digest == a.digest
    assert again.decide(facts(READ)).verdict is Verdict.ALLOW
    assert policy("version: 1", terms=ReviewTerms(groups=("x",))).digest != policy("version: 1").digest
    assert a.decide(facts(READ)).policy == a.digest
    with pytest.raises(PolicyError):
        load_bundle(b"{}")
