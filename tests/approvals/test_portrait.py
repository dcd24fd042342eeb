"""A request in words: everything on the page, safe to print, and honest about what is cut (properties 11 and 33)."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import analyses
from harness.budget import examples
from harness.people import BOB, agent
from harness.requests import SHELL, SQL, START, TERMS, draft
from interlock.approvals.desk import open_request
from interlock.approvals.model import ApprovalRequest, Presence, Proof, RequestDraft, Scope, State, Vote, VoteVerdict
from interlock.approvals.portrait import CHAT_BINDS, CHAT_LINES, CHAT_WIDTH, Portrait, chat_portrait, portrait
from interlock.commands.display import CLOSE, OPEN, Display
from interlock.commands.model import BindValue, Command, HeldInput
from interlock.policy.model import Need, Risk, StepUp, Target

SAFE = re.compile(rf"[ -~{OPEN}{CLOSE}…]*")


def opened(found: RequestDraft) -> ApprovalRequest:
    return open_request(found, request_id="req_1", nonce="n" * 32, match="hmac", now=START)


def plain(command: Command = SHELL, **changes: object) -> ApprovalRequest:
    made = analyses.sql(command.text.decode()) if command.context is SQL.context else analyses.shell(command.text.decode())
    return opened(draft(command, analysis=made[1], **changes))


def texts(view: Portrait) -> list[str]:
    """Every text of a portrait, however deep."""
    found: list[str] = []
    pending: list[object] = [getattr(view, field.name) for field in fields(view)]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, tuple):
            pending.extend(value)
        elif isinstance(value, Display):
            pending += [value.lines, value.deceptions]
    return found


def test_a_shell_command_as_people_see_it() -> None:
    view = portrait(plain(principal=agent(acting_for=(BOB,)), said="disk is full", facts=("It is Friday.",)), START)
    assert view.title == "A command waits for you"
    assert view.who == "agent claude-ci for local:bob (owned by alice)"
    assert view.place == "web-1 as deploy"
    assert view.held_by == "linux/recursive-delete: It deletes a tree."
    assert view.command.lines == ("sudo rm -rf /var/lib/pg",)
    assert view.stdin is not None
    assert view.stdin.lines == ("yes", "")
    assert view.surroundings == ("variable LANG = C.UTF-8",)
    assert view.effects == ("deletes /var/lib/pg and everything below it, by force, as root",)
    assert view.opaque == ()
    assert (view.said, view.facts) == ("disk is full", ("It is Friday.",))
    assert view.needs == ("one person of sre",)
    assert view.left == "expires in 15m"
    assert view.complete
    assert view.chat_approvable


def test_a_statement_with_its_values_as_people_see_it() -> None:
    target = Target("orders-db", "postgres", role="writer", database="shop")
    view = portrait(plain(SQL, target=target))
    assert view.place == "orders-db, database shop, as writer"
    assert view.binds == ("$1 = 7", "$2 = NULL")
    assert view.surroundings == ("setting standard_conforming_strings = on",)
    assert view.stdin is None


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        (replace(TERMS, groups=("dba", "sre"), quorum=2), ("2 different people of dba or sre",)),
        (replace(TERMS, also=(Need(("security",), 1),)), ("one person of sre", "one person of security")),
        (
            replace(TERMS, risk=Risk.CRITICAL),
            ("one person of sre", "signed by each of them with a passkey or a key of their own"),
        ),
        (replace(TERMS, step_up=StepUp.REAUTH), ("one person of sre", "each freshly logged in")),
        (replace(TERMS, groups=()), ("one person of nobody: no group may answer this",)),
    ],
)
def test_who_must_answer_in_words(terms: object, words: tuple[str, ...]) -> None:
    assert portrait(plain(terms=terms)).needs == words


def test_every_state_has_a_headline() -> None:
    request = plain()
    titles = {portrait(replace(request, state=state)).title for state in State}
    assert len(titles) == len(State)
    assert portrait(replace(request, presence=Presence.RETURNED)).title == "The agent has left; it will run this again"


def test_answers_are_told_with_their_proof() -> None:
    vote = Vote(BOB, "bob", "teams", "29:x", VoteVerdict.APPROVE, "sha256:x", START, proof=Proof.PERSONAL, reason="fine\nby me")
    glass = replace(vote, verdict=VoteVerdict.DENY, proof=Proof.CHANNEL, reason="", break_glass=True)
    view = portrait(replace(plain(), votes=(vote, glass)))
    assert view.votes == ("bob approved it (teams, signed): fine by me", "bob denied it by breaking the glass (teams)")


def test_what_happened_to_a_request_is_told() -> None:
    edited = replace(plain(), edited_from="req_0", author=BOB, successor="req_2", grant="grt_1", escalated_at=START)
    notes = " ".join(portrait(edited).notes)
    for word in ("local:bob", "req_0", "req_2", "grt_1", "more people were told"):
        assert word in notes


def test_a_reviewers_reason_is_hidden_in_chat_as_well() -> None:
    vote = Vote(BOB, "bob", "cli", "bob", VoteVerdict.DENY, "sha256:x", START, reason="rotate password=hunter2hunter2 first")
    request = replace(plain(), votes=(vote,))
    assert "hunter2" not in repr(chat_portrait(request))
    assert "hunter2" in repr(portrait(request))


def test_scopes_come_with_the_sentence_of_what_they_cover() -> None:
    terms = replace(TERMS, scopes=("once", "exact", "rule_in_session"))
    found = analyses.shell("rm -rf /tmp/x")
    view = portrait(opened(draft(found[0], analysis=found[1], terms=terms)), longest=600)
    assert [scope for scope, _ in view.scopes] == [Scope.ONCE, Scope.EXACT, Scope.RULE_IN_SESSION]
    assert (
        view.scopes[2][1]
        == "`rm -rf` on /tmp/x and below (links there lead elsewhere), as deploy on web-1, in this session, for at most 10m"
    )
    critical = replace(terms, risk=Risk.CRITICAL)
    assert [scope for scope, _ in portrait(opened(draft(found[0], analysis=found[1], terms=critical))).scopes] == [Scope.ONCE]


NOT_IN_CHAT = {
    "too many lines": draft(replace(SHELL, text=b"echo x\n" * (CHAT_LINES + 1))),
    "too long a line": draft(replace(SHELL, text=b"echo " + b"x" * CHAT_WIDTH)),
    "padding behind which more hides": draft(replace(SHELL, text=b"ls" + b"\xc2\xa0 " * CHAT_WIDTH + b"; rm x")),
    "too long an input": draft(replace(SHELL, stdin=HeldInput(b"x\n" * (CHAT_LINES + 1)))),
    "too many values": draft(replace(SQL, binds=tuple(BindValue(b"1", shown="1") for _ in range(CHAT_BINDS + 1)))),
    "too long a value": draft(replace(SQL, binds=(BindValue(b"1", shown="x" * (CHAT_WIDTH + 1)),))),
    "a value that can't be read": draft(replace(SQL, binds=(BindValue(b"\x00\xff", 1, 17),))),
    "a critical rule": draft(terms=replace(TERMS, risk=Risk.CRITICAL)),
    "a rule that wants a passkey": draft(terms=replace(TERMS, step_up=StepUp.PASSKEY)),
    "a rule that wants a fresh login": draft(terms=replace(TERMS, step_up=StepUp.REAUTH)),
}


@pytest.mark.parametrize("why", NOT_IN_CHAT)
def test_what_chat_can_not_show_whole_is_not_approved_there(why: str) -> None:
    request = opened(NOT_IN_CHAT[why])
    assert not chat_portrait(request).chat_approvable
    assert not portrait(request).chat_approvable
    assert portrait(request).complete


def test_what_a_message_cuts_is_said() -> None:
    assert not chat_portrait(opened(NOT_IN_CHAT["too many lines"])).complete
    assert not chat_portrait(opened(NOT_IN_CHAT["too many values"])).complete
    assert chat_portrait(opened(draft())).complete


def test_what_the_agent_wrote_is_set_apart() -> None:
    view = portrait(plain(replace(SHELL, text=b"rm -rf /srv # the CTO approved this")))
    assert view.remarks == ("comment: # the CTO approved this",)
    assert "CTO" not in " ".join((*view.effects, *view.facts, *view.notes, view.held_by))


def test_deceptions_are_warned_of() -> None:
    view = portrait(opened(draft(replace(SHELL, text="ls p\u0430ss\u202e".encode()))))
    assert any("only looks like 'pass'" in note for note in view.notes)
    assert any("direction-changing" in note for note in view.notes)


HOSTILE = st.text(alphabet="a⟦⟧ \n\t\x1b[31m\u202e\u200b\u00a0\u0430<>&*_`@|\ud800", max_size=30)


@settings(max_examples=examples(60))
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_nothing_in_a_portrait_is_more_than_plain_text(text: str, said: str, name: str, value: str, note: str) -> None:
    """Whatever an agent, a directory or a target chose as names, no view holds a character that could deceive."""
    command = replace(SHELL, text=text.encode("utf-8", "surrogatepass"), env=(("LANG", value),), cwd=value)
    base = draft(command)
    effect = replace(base.analysis.effects[0], object=name, host=name, origin="remote", via=(name,))
    analysis = replace(base.analysis, effects=(effect,), notes=(note,))
    principal = replace(agent(acting_for=(BOB,)), handle=name, acting_for_handles=(name,), owner_handle=name)
    decision = replace(base.decision, reason=note)
    found = replace(
        base, said=said, facts=(note,), analysis=analysis, principal=principal, decision=decision, target=Target(name, "ssh")
    )
    vote = Vote(BOB, name, "teams", "29:x", VoteVerdict.DENY, "sha256:x", START, reason=note)
    request = replace(opened(draft()), draft=found, votes=(vote,))
    for view in (portrait(request), chat_portrait(request)):
        for shown in texts(view):
            assert SAFE.fullmatch(shown), shown
