"""What a wider scope covers, and everything that it must not (threats.md, A10)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from harness.people import ALICE, BOB, CAROL
from harness.requests import START, draft
from interlock.approvals import authority, desk, grants
from interlock.approvals.authority import House
from interlock.approvals.grants import Grant, GrantState
from interlock.approvals.model import ApprovalRequest, RequestDraft, Scope, State, Vote, VoteVerdict
from interlock.approvals.portable import grant_form, read_grant
from interlock.commands.model import Analysis, Command, Effect, HeldInput, Kind, Opaque, ShellContext, SqlContext, Wire
from interlock.commands.sql.shape import shape
from interlock.policy.model import ReviewTerms, Risk, StepUp, Target

HOUSE = House(longest_grant=3600)
TERMS = ReviewTerms(groups=("sre",), scopes=("once", "exact", "rule_in_session"))


def shell(text: str, *effects: Effect, **more: Any) -> RequestDraft:
    command = Command(Wire.SSH, Kind.EXEC, text.encode(), context=ShellContext("bash"))
    return draft(command, terms=TERMS, analysis=Analysis(effects=effects, sent=text), **more)


def removal(path: str, *, argv: tuple[str, ...] | None = None, **more: Any) -> Effect:
    words = argv if argv is not None else ("rm", "-rf", path)
    return Effect("delete", path, program="rm", argv=words, recursive="-rf" in words, **more)


def rm(*paths: str, **more: Any) -> RequestDraft:
    words = ("rm", "-rf", *paths)
    return shell(" ".join(words), *(removal(path, argv=words, **more) for path in paths))


def sql(text: str, verb: str = "delete", table: str = "public.orders", **more: Any) -> RequestDraft:
    command = Command(Wire.POSTGRES, Kind.QUERY, text.encode(), context=SqlContext())
    effect = Effect(verb, table, relation_kind="table", **more)
    target = Target("orders", "postgres", {"env": "prod"}, role="app", database="orders")
    return draft(command, terms=TERMS, analysis=Analysis(effects=(effect,)), target=target)


def granted(asked: RequestDraft, scope: Scope = Scope.RULE_IN_SESSION, match: str = "hmac-sha256:1") -> Grant:
    request = desk.open_request(asked, request_id="req_1", nonce="00", match=match, now=START)
    until = START + timedelta(minutes=10) if scope is Scope.EXACT else None
    ballot = Vote(BOB, "bob", "cli", "bob", VoteVerdict.APPROVE, request.digest, START, scope, valid_until=until)
    voter = authority.Voter(BOB, "bob", desk.Kind.HUMAN, frozenset(("sre",)))
    approved = desk.vote(request, ballot, voter, now=START, house=HOUSE)
    wider = desk.scope_of(approved, START, HOUSE)
    assert wider is not None
    return grants.made(approved, *wider, HOUSE.longest_grant)


def covers(grant: Grant, asked: RequestDraft, *, match: str = "hmac-sha256:2", after: float = 60) -> bool:
    return grants.covers(grant, asked, match, START + timedelta(seconds=after))


# -- this rule in this session, bound to its words ----------------------------------------------------------------------


@pytest.mark.parametrize("paths", [("/tmp/x",), ("/tmp/x/a",), ("/tmp/x/a", "/tmp/x/b"), ("/tmp/x/deep/er",)], ids=str)
def test_below_the_same_path_is_covered(paths: tuple[str, ...]) -> None:
    assert covers(granted(rm("/tmp/x")), rm(*paths))


@pytest.mark.parametrize(
    "other",
    [
        rm("/"), rm("/tmp"), rm("/tmp/xy"), rm("/tmp/x/.."), rm("/tmp/x/../y"), rm("//tmp/x"), rm("/tmp/x/*"), rm("x"),
        rm("/tmp/x", "/etc"),
        shell("rm -rf --no-preserve-root /tmp/x", removal("/tmp/x", argv=("rm", "-rf", "--no-preserve-root", "/tmp/x"))),
        shell("rm /tmp/x", removal("/tmp/x", argv=("rm", "/tmp/x"))),
        rm("/tmp/x", via=("sudo",)), rm("/tmp/x", host="elsewhere"), rm("/tmp/x", origin="stdin"), rm("/tmp/x", force=True),
        shell("shred /tmp/x", replace(removal("/tmp/x", argv=("shred", "-rf", "/tmp/x")), program="shred")),
        shell("rm -rf /tmp/x; reboot", removal("/tmp/x"), Effect("kernel", "reboot", program="reboot", argv=("reboot",))),
        replace(rm("/tmp/x"), session="01OTHER"),
        replace(rm("/tmp/x"), target=Target("web-1", "ssh", {"env": "prod"}, account="root")),
        replace(rm("/tmp/x"), target=Target("web-2", "ssh", {"env": "prod"}, account="deploy")),
        replace(rm("/tmp/x"), terms=replace(TERMS, quorum=2)),
        replace(rm("/tmp/x"), decision=replace(rm("/tmp/x").decision, rule="linux/other")),
        replace(rm("/tmp/x"), principal=replace(rm("/tmp/x").principal, acting_for=(CAROL,))),
        replace(rm("/tmp/x"), principal=replace(rm("/tmp/x").principal, owner=BOB)),
    ],
    ids=lambda d: f"{d.command.text.decode()} {d.session} {d.target.account}@{d.target.name}",
)  # fmt: skip
def test_anything_beyond_the_words_is_asked(other: RequestDraft) -> None:
    assert not covers(granted(rm("/tmp/x")), other)


def sudo(*paths: str) -> RequestDraft:
    """As the analyser sees it: the wrapper is an effect of its own, with the whole line as its arguments."""
    words = ("sudo", "rm", "-rf", *paths)
    root = Effect("privilege", "root", program="sudo", argv=words, via=("sudo",))
    return shell(" ".join(words), root, *(removal(path, argv=words[1:], via=("sudo",)) for path in paths))


def test_a_wrapper_does_not_widen_and_does_not_hinder() -> None:
    grant = granted(sudo("/tmp/x"))
    assert grant.words.startswith("`sudo rm -rf` on /tmp/x and below (links there lead elsewhere), as deploy on web-1")
    assert covers(grant, sudo("/tmp/x/below"))
    assert not covers(grant, sudo("/tmp/y"))
    assert not covers(grant, rm("/tmp/x"))
    assert not covers(granted(rm("/tmp/x")), sudo("/tmp/x"))


def test_what_the_words_cannot_bind_is_not_offered() -> None:
    whole = rm("/tmp/x")
    assert grants.offered(whole) == (Scope.ONCE, Scope.EXACT, Scope.RULE_IN_SESSION)
    unbound = [
        replace(whole, analysis=replace(whole.analysis, opaque=(Opaque("command-substitution", "$(x)"),))),
        replace(whole, analysis=replace(whole.analysis, sent=None)),
        replace(whole, analysis=Analysis(sent="x")),
        replace(whole, command=whole.command.with_stdin(HeldInput(b"y\n"))),
        replace(whole, command=replace(whole.command, env=(("LC_ALL", "C"),))),
        replace(whole, command=replace(whole.command, pty=True)),
        replace(whole, session=""),
        shell("thing", Effect("opaque-thing", "x")),
        sql("SET ROLE admin", "set", ""),
        sql("DROP TABLE orders", "drop"),
        sql("DELETE FROM orders WHERE " + " OR ".join(f"id = {n}" for n in range(2000))),
    ]
    for asked in unbound:
        assert grants.offered(asked) == (Scope.ONCE, Scope.EXACT), asked.command.text[:40]


@pytest.mark.parametrize(
    "terms",
    [replace(TERMS, risk=Risk.CRITICAL), replace(TERMS, step_up=StepUp.PASSKEY), replace(TERMS, scopes=("once",))],
    ids=["critical", "passkey", "once"],
)
def test_a_critical_rule_offers_once_alone(terms: ReviewTerms) -> None:
    asked = replace(rm("/tmp/x"), terms=terms)
    assert grants.offered(asked) == (Scope.ONCE,)
    assert not covers(granted(rm("/tmp/x")), asked)


@pytest.mark.parametrize(
    ("other", "covered"),
    [
        (sql("DELETE FROM orders WHERE id = 8"), True),
        (sql("delete from orders  where id=7"), True),
        (sql("DELETE FROM orders WHERE total = 7"), False),
        (sql("DELETE FROM orders WHERE id > 7"), False),
        (sql("DELETE FROM orders", filtered=False), False),
        (sql("DELETE FROM orders WHERE id = 7", table="audit.orders"), False),
        (sql("UPDATE orders SET total = 7 WHERE id = 7", "update"), False),
        (sql("DELETE FROM orders WHERE id = 7 RETURNING *"), False),
        (sql("DELETE FROM orders WHERE id = 7 -- and a comment"), True),
        (sql("DELETE FROM orders WHERE id = '7'"), False),
        (sql("DELETE FROM orders WHERE id = 7.5"), False),
        (sql("DELETE FROM orders WHERE id = NULL"), False),
        (sql('DELETE FROM "Orders" WHERE id = 7'), False),
    ],
    ids=lambda value: value.command.text.decode() if isinstance(value, RequestDraft) else "",
)
def test_sql_is_bound_to_the_shape_of_the_statement(other: RequestDraft, covered: bool) -> None:
    assert covers(granted(sql("DELETE FROM orders WHERE id = 7")), other) is covered


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t WHERE id > 7 AND false", "SELECT a FROM t WHERE id > 0 AND true"),
        ("UPDATE t SET (a, b) = (c, d) WHERE id = 1", "UPDATE t SET (a, b) = (d, c) WHERE id = 1"),
        ("SELECT power(b, c) FROM t", "SELECT power(c, b) FROM t"),
        ("INSERT INTO t(a, b) VALUES (1, 2)", "INSERT INTO t(b, a) VALUES (1, 2)"),
        ("SELECT a FROM t WHERE id IN (1)", "SELECT a FROM t WHERE id IN (1, 2)"),
        ("SET ROLE a", "SET ROLE b"),
    ],
)
def test_order_names_and_truth_are_a_part_of_a_shape(one: str, other: str) -> None:
    assert shape(one.encode()) != shape(other.encode()) != ""


def test_a_call_whose_constant_may_be_a_statement_is_bound_to_nothing() -> None:
    call = "SELECT query_to_xml('select 1', true, false, '')"
    effect = Effect("select", functions=("pg_catalog.query_to_xml",))
    asked = replace(sql(call), analysis=Analysis(effects=(effect, Effect("function", "pg_catalog.query_to_xml"))))
    assert Scope.RULE_IN_SESSION not in grants.offered(asked)
    assert Scope.RULE_IN_SESSION not in grants.offered(replace(asked, analysis=Analysis(effects=(effect,))))


@pytest.mark.parametrize(
    "text",
    [
        "cd /tmp/x && rm -rf data",
        "rm -rf /tmp/x; rm -rf /tmp/x",
        "rm -rf /tmp/x | tee log",
        "rm -rf /tmp/x > /tmp/x/log",
        "! rm -rf /tmp/x",
        "rm -rf /tmp/x &",
        "A=b rm -rf /tmp/x",
        "if true; then rm -rf /tmp/x; fi",
    ],
)
def test_only_one_simple_command_is_bound_to_its_words(text: str) -> None:
    asked = replace(rm("/tmp/x"), command=replace(rm("/tmp/x").command, text=text.encode()))
    asked = replace(asked, analysis=replace(asked.analysis, sent=text))
    assert grants.offered(asked) == (Scope.ONCE, Scope.EXACT)
    assert not covers(granted(rm("/tmp/x")), asked)


def test_a_command_of_many_words_or_effects_is_not_compared_at_all() -> None:
    many = rm(*(f"/tmp/x/{n}" for n in range(9)))
    wordy = shell("rm " + "-f " * 80 + "/tmp/x", removal("/tmp/x", argv=("rm", *["-f"] * 80, "/tmp/x")))
    for asked in (many, wordy):
        assert grants.offered(asked) == (Scope.ONCE, Scope.EXACT)
        assert not covers(granted(rm("/tmp/x")), asked)


def test_the_words_say_what_is_covered() -> None:
    assert granted(rm("/tmp/x")).words == (
        "`rm -rf` on /tmp/x and below (links there lead elsewhere), as deploy on web-1, in this session, for at most 60m"
    )  # fmt: skip
    assert granted(sql("DELETE FROM orders WHERE id = 7")).words.startswith(
        "the same statement with other constants (delete on public.orders), as app on orders"
    )


# -- exactly this, until a time -----------------------------------------------------------------------------------------


def test_exactly_this_is_its_match_until_its_time() -> None:
    grant = granted(rm("/tmp/x"), Scope.EXACT)
    elsewhere = replace(rm("/tmp/x"), session="01OTHER")
    assert covers(grant, elsewhere, match=grant.match)
    assert not covers(grant, rm("/tmp/x"), match="hmac-sha256:2")
    assert not covers(grant, elsewhere, match=grant.match, after=600)


@pytest.mark.parametrize("state", [GrantState.REVOKED, GrantState.EXPIRED])
def test_a_grant_that_ended_covers_nothing(state: GrantState) -> None:
    grant = replace(granted(rm("/tmp/x"), Scope.EXACT), state=state)
    assert not covers(grant, rm("/tmp/x"), match=grant.match)


def test_a_grant_survives_the_store() -> None:
    for grant in (granted(rm("/tmp/x")), granted(sql("DELETE FROM orders WHERE id = 7")), granted(rm("/tmp/x"), Scope.EXACT)):
        assert read_grant(grant_form(grant)) == grant


# -- how a scope comes about ----------------------------------------------------------------------------------------------


def answered(*ballots: tuple[Any, Scope, timedelta | None], quorum: int = 2) -> ApprovalRequest:
    asked = replace(rm("/tmp/x"), terms=replace(TERMS, quorum=quorum))
    request = desk.open_request(asked, request_id="req_1", nonce="00", match="m", now=START)
    for who, scope, life in ballots:
        until = START + life if life is not None else None
        ballot = Vote(who, who.subject, "cli", "", VoteVerdict.APPROVE, request.digest, START, scope, valid_until=until)
        voter = authority.Voter(who, who.subject, desk.Kind.HUMAN, frozenset(("sre",)))
        request = desk.vote(request, ballot, voter, now=START, house=HOUSE)
    return request


def test_the_narrowest_of_what_people_chose_holds() -> None:
    minutes = timedelta(minutes=5)
    both = answered((BOB, Scope.EXACT, minutes), (CAROL, Scope.EXACT, 2 * minutes))
    assert both.state is State.APPROVED
    assert desk.scope_of(both, START, HOUSE) == (Scope.EXACT, START + minutes)
    mixed = answered((BOB, Scope.EXACT, minutes), (CAROL, Scope.ONCE, None))
    assert desk.scope_of(mixed, START, HOUSE) is None
    apart = answered((BOB, Scope.EXACT, minutes), (CAROL, Scope.RULE_IN_SESSION, None))
    assert desk.scope_of(apart, START, HOUSE) is None


@pytest.mark.parametrize(
    ("scope", "life"),
    [
        (Scope.ONCE, timedelta(minutes=1)), (Scope.EXACT, None), (Scope.EXACT, timedelta(0)), (Scope.EXACT, timedelta(hours=2)),
        (Scope.RULE_IN_SESSION, timedelta(hours=2)), (Scope.RULE_IN_SESSION, timedelta(seconds=-1)), ("forever", None),
    ],
    ids=str,
)  # fmt: skip
def test_a_scope_without_its_proper_end_is_refused(scope: Any, life: timedelta | None) -> None:
    with pytest.raises(desk.VoteError) as refused:
        answered((BOB, scope, life), quorum=1)
    assert refused.value.code is desk.Reason.SCOPE_NOT_OFFERED


def test_a_request_under_a_grant_is_born_approved_and_no_longer_than_it() -> None:
    grant = granted(rm("/tmp/x"), Scope.EXACT)
    now = grant.valid_until - timedelta(seconds=5)
    born = desk.open_under(grant, rm("/tmp/x"), request_id="req_2", nonce="01", match=grant.match, now=now, house=HOUSE)
    assert (born.state, born.valid_until, born.grant) == (State.APPROVED, grant.valid_until, grant.id)
    assert born.votes == grant.votes
    assert born.digest != desk.open_request(rm("/tmp/x"), request_id="req_2", nonce="01", match=grant.match, now=now).digest
    bob = authority.Voter(BOB, "bob", desk.Kind.HUMAN, frozenset(("sre",)))
    assert desk.standing(born, {BOB: bob})
    assert not desk.standing(born, {})
    assert not desk.standing(born, {BOB: replace(bob, linked=frozenset((ALICE,)))})
