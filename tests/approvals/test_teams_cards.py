"""Teams cards as values: what fits, what is offered, what each viewer sees, and that nothing in them is markup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.bot_connector import executes
from harness.budget import examples
from harness.people import ALICE, BOB, CAROL, CLAUDE
from harness.requests import ANALYSIS, SHELL, SQL, START, draft
from interlock.approvals import desk
from interlock.approvals.authority import House, Voter
from interlock.approvals.channels.teams import cards, viewers
from interlock.approvals.channels.teams.cards import ANYBODY, MAX_CARD, Frame, approvable, card, size
from interlock.approvals.channels.teams.viewers import Stance, view
from interlock.approvals.model import ApprovalRequest, RequestDraft, Scope, State, Vote, VoteVerdict
from interlock.commands.model import BindValue, Effect, HeldInput, Opaque
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import Decision, Need, ReviewTerms, Risk, Verdict

HOUSE = House()
LINK = "https://interlock.example.com/console/approvals/req_1"


def opened(drafted: RequestDraft | None = None, **changes: Any) -> ApprovalRequest:
    return desk.open_request(drafted or draft(**changes), request_id="req_1", nonce="n" * 32, match="m", now=START)


def voter(identity: Identity = BOB, *groups: str, **changes: Any) -> Voter:
    return replace(Voter(identity, identity.subject, Kind.HUMAN, frozenset(groups or ("sre",))), **changes)


def approved_by(request: ApprovalRequest, *people: Voter, reason: str = "") -> ApprovalRequest:
    for one in people:
        ballot = Vote(one.identity, one.handle, "teams", "t/o", VoteVerdict.APPROVE, request.digest, START, reason=reason)
        request = desk.vote(request, ballot, one, now=START, house=HOUSE)
    return request


def blocks(part: Any) -> Iterator[dict[str, Any]]:
    """Every object of a card, wherever it is."""
    if isinstance(part, dict):
        if "type" in part:
            yield part
        for value in part.values():
            yield from blocks(value)
    elif isinstance(part, list):
        for value in part:
            yield from blocks(value)


def verbs(drawn: dict[str, Any]) -> set[str]:
    return {a["verb"] for a in executes({"actions": drawn["actions"]})}


def text(drawn: dict[str, Any]) -> str:
    return "\n".join(b["text"] for b in blocks(drawn) if b["type"] == "TextRun")


# -- what fits -------------------------------------------------------------------------------------------------------------

awkward = st.text(
    st.one_of(st.sampled_from("\u202e\u200b\x1b\r\n\t \u2066é日🙂⟦⟧\"'\\*_[]()`<>"), st.characters(codec="utf-8")), max_size=3000
)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
effects = st.builds(Effect, st.sampled_from(("delete", "write", "execute")), awkward, program=names, detail=awkward)


@st.composite
def drafts(drawing: st.DrawFn) -> RequestDraft:
    rows = drawing(st.lists(awkward, max_size=8))
    body = "\n".join(rows * drawing(st.sampled_from((1, 1, 1, 200)))).encode()
    base = drawing(st.sampled_from((SHELL, SQL)))
    command = replace(
        base,
        text=body,
        stdin=HeldInput(drawing(awkward).encode()) if base is SHELL else None,
        binds=tuple(BindValue(v.encode(), 0, 25, v) for v in drawing(st.lists(awkward, max_size=60))) if base is SQL else (),
        env=tuple((n, v) for n, v in drawing(st.lists(st.tuples(names, awkward), max_size=10))),
    )
    also = tuple(Need((group,), drawing(st.integers(1, 9))) for group in drawing(st.lists(names, max_size=8)))
    terms = ReviewTerms(
        groups=tuple(drawing(st.lists(names, min_size=1, max_size=20))), quorum=20, also=also, scopes=tuple(Scope)
    )
    return draft(
        command,
        terms=terms,
        analysis=replace(
            ANALYSIS,
            effects=tuple(drawing(st.lists(effects, max_size=40))),
            opaque=tuple(Opaque("eval", t) for t in drawing(st.lists(awkward, max_size=20))),
            notes=tuple(drawing(st.lists(awkward, max_size=20))),
        ),
        decision=Decision(Verdict.REVIEW, drawing(names), drawing(awkward), "sha256:0", review=terms),
        said=drawing(awkward),
        facts=tuple(drawing(st.lists(awkward, max_size=20))),
    )


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(drafts(), awkward)
def test_no_request_makes_a_card_that_teams_refuses_and_what_is_cut_is_not_approved_in_chat(
    drafted: RequestDraft, said: str
) -> None:
    request = opened(drafted)
    votes = tuple(
        Vote(
            Identity("i", f"s{n}"),
            f"reviewer-{n}",
            "teams",
            "t/o",
            VoteVerdict.APPROVE,
            request.digest,
            START,
            reason=said[:2000],
        )
        for n in range(20)
    )
    request = replace(request, votes=votes, escalated_at=START, edited_from="req_0", author_handle="bob")
    frame = Frame(LINK, ["29:" + "x" * 120] * 200, original=request, previous=request)
    mine = viewers.View(Stance.BARRED, said, approve=True, deny=True)
    for shown in (card(request, frame), card(request, frame, mine)):
        assert size(shown) <= MAX_CARD
        assert len(shown["refresh"]["userIds"]) <= 60
        whole = "This is not all of it" not in text(shown)
        assert ("approve" in verbs(shown)) == approvable(request, frame)
        assert whole or "approve" not in verbs(shown)


def test_what_does_not_fit_loses_the_button_for_every_viewer() -> None:
    """400 characters a line, 30 lines: no line is cut by itself, together they are more than a message."""
    request = opened(command=replace(SHELL, text=b"\n".join(b"echo " + b"x" * 390 for _ in range(30)), stdin=None))
    binds = tuple(BindValue(b"y" * 390, 0, 25, "y" * 390) for _ in range(20))
    both = opened(command=replace(SQL, text=request.draft.command.text, binds=binds))
    assert not approvable(both, Frame(LINK))
    assert "approve" not in verbs(card(both, Frame(LINK))) | verbs(
        card(both, Frame(LINK), view(both, voter(), now=START, house=HOUSE))
    )
    assert "This is not all of it" in text(card(both, Frame(LINK)))
    assert size(card(both, Frame(LINK))) <= MAX_CARD


@pytest.mark.parametrize("room", cards._ROOMS[1:])
@pytest.mark.parametrize("where", ["the last note", "a long note", "the owner", "why it is held"])
def test_whatever_is_clipped_or_left_out_costs_the_button(where: str, room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "a long note":
        room = replace(room, text=60)  # the portrait's own notes end before 300
    monkeypatch.setattr(cards, "_ROOMS", (room,))
    plain = draft(replace(SHELL, text=b"ls", stdin=None, env=()), analysis=replace(ANALYSIS, effects=(), opaque=(), notes=()))
    long = "x" * (room.text + 1)
    analysis, decision, principal = plain.analysis, plain.decision, plain.principal
    if where == "the last note":
        analysis = replace(analysis, notes=tuple(f"note {n}" for n in range(room.items + 1)))
    elif where == "a long note":
        analysis = replace(analysis, notes=(long,))
    elif where == "the owner":
        principal = replace(
            principal, acting_for=(ALICE,) * 9, acting_for_handles=tuple(f"agent-{n}-" + "b" * 50 for n in range(9))
        )
    else:
        decision = replace(decision, reason=long)
    request = opened(replace(plain, analysis=analysis, decision=decision, principal=principal))
    drawn = card(request, Frame(link=LINK))
    assert not approvable(request, Frame(link=LINK)) and not {"approve", "grant"} & verbs(drawn)
    assert "This is not all of it" in text(drawn)


def test_our_warnings_stand_before_what_the_agent_wrote() -> None:
    request = opened(draft(analysis=replace(ANALYSIS, notes=("OUR WARNING",)), said="TRUST ME"))
    told = text(card(request))
    assert told.index("OUR WARNING") < told.index("TRUST ME")


def test_at_most_sixty_viewers_are_named_and_none_when_none_is_known() -> None:
    request = opened()
    assert len(card(request, Frame(viewers=[f"29:{n}" for n in range(100)]))["refresh"]["userIds"]) == 60
    assert "userIds" not in card(request)["refresh"]  # then Teams refreshes for everybody of a small conversation


# -- what is offered --------------------------------------------------------------------------------------------------------


def test_a_card_is_version_1_5_and_answers_carry_id_and_nonce_alone() -> None:
    request = opened()
    drawn = card(request, Frame(LINK))
    assert drawn["version"] == "1.5"
    for action in executes(drawn):
        assert action["data"] == {"request": "req_1", "nonce": "n" * 32}
        if action["verb"] != "refresh":
            assert action["fallback"]["type"] == "Action.Submit"
            assert action["fallback"]["data"] == {**action["data"], "verb": action["verb"]}


@pytest.mark.parametrize("terms", [ReviewTerms(groups=("sre",), risk=Risk.CRITICAL, scopes=tuple(Scope))])
def test_a_critical_rule_is_reviewed_and_signed_on_the_page(terms: ReviewTerms) -> None:
    drawn = card(opened(terms=terms), Frame(LINK))
    assert verbs(drawn) == {"deny"}
    assert [a["title"] for a in drawn["actions"] if a["type"] == "Action.OpenUrl"] == ["Review and sign"]


def test_scopes_are_offered_where_the_rule_permits_and_in_the_words_they_mean() -> None:
    command = replace(SHELL, text=b"sudo rm -rf /var/lib/pg", stdin=None, env=())
    root = Effect("privilege", "root", program="sudo", argv=("sudo", "rm", "-rf", "/var/lib/pg"), via=("sudo",))
    analysis = replace(ANALYSIS, effects=(root, *ANALYSIS.effects), opaque=(), sent="sudo rm -rf /var/lib/pg")
    terms = ReviewTerms(groups=("sre",), scopes=("once", "exact", "rule_in_session"))
    drawn = card(opened(command=command, analysis=analysis, terms=terms), Frame(LINK, longest_grant=1800))
    (pick,) = [b for b in blocks(drawn) if b["type"] == "Input.ChoiceSet"]
    (minutes,) = [b for b in blocks(drawn) if b["type"] == "Input.Number"]
    assert [c["value"] for c in pick["choices"]] == ["once", "exact", "rule_in_session"] and pick["value"] == "once"
    assert minutes["max"] == 30
    assert "`sudo rm -rf` on /var/lib/pg and below (links there lead elsewhere), as deploy on web-1, in this session" in text(
        drawn
    )
    assert "/var/lib/pg" not in json.dumps(pick)  # titles of choices are read as Markdown

    only_once = card(opened(command=command, analysis=analysis), Frame(LINK))
    assert not [b for b in blocks(only_once) if b["type"].startswith("Input.C")]


def test_a_denial_can_carry_a_reason() -> None:
    (said,) = [b for b in blocks(card(opened(), Frame(LINK))) if b["type"] == "Input.Text"]
    assert said["id"] == "reason" and said["maxLength"] == 1000


def test_after_the_end_nothing_is_asked() -> None:
    request = opened()
    for state in State:
        if state.terminal:
            drawn = card(replace(request, state=state), Frame(LINK))
            assert not list(executes(drawn)), state


# -- what it says -----------------------------------------------------------------------------------------------------------


def test_a_quorum_shows_who_approved_and_who_is_still_needed() -> None:
    terms = ReviewTerms(groups=("sre",), also=(Need(("dba",)),))
    request = opened(terms=terms)
    assert "Needed: one of sre; one of dba" in text(card(request))
    assert "1 of 2: bob approved; still needed: one of dba" in text(card(approved_by(request, voter())))


def test_an_edited_request_shows_both_texts_and_who_edited_it() -> None:
    original = opened()
    edited = desk.open_request(
        draft(command=replace(SHELL, text=b"ls /var/lib/pg", stdin=None)), request_id="req_2", nonce="n", match="m", now=START,
        edited_from="req_1", author=voter(CAROL),
    )  # fmt: skip
    shown = text(card(edited, Frame(LINK, original=original)))
    assert "Command, as edited\n  1  ls /var/lib/pg" in shown
    assert "carol edited it" in shown and "as the agent sent it\n  1  sudo rm -rf /var/lib/pg" in shown


def test_what_was_approved_last_time_stands_beside_it() -> None:
    earlier = opened(command=replace(SHELL, text=b"sudo rm -rf /var/lib/pg/old", stdin=None))
    shown = text(card(opened(), Frame(LINK, previous=earlier)))
    assert "Another text was approved last time" in shown and "     sudo rm -rf /var/lib/pg/old" in shown
    assert "Exactly this was approved last time." in text(card(opened(), Frame(LINK, previous=opened())))


def test_escalation_and_broken_glass_stand_at_the_top() -> None:
    escalated = replace(opened(), escalated_at=START + timedelta(minutes=5))
    assert "Escalated at 02:18 UTC" in text(card(escalated))
    broken = replace(
        opened(), state=State.APPROVED,
        votes=(Vote(BOB, "bob", "console", "bob", VoteVerdict.APPROVE, "d", START, reason="the site is down", break_glass=True),),
    )  # fmt: skip
    assert "GLASS BROKEN: bob approved it by breaking the glass (console): the site is down" in text(card(broken)).splitlines()[1]


def test_what_only_the_agent_wrote_is_set_apart_and_labelled() -> None:
    drawn = card(opened(said="Bob said that this is fine"))
    (apart,) = [b for b in blocks(drawn) if b["type"] == "Container"]
    assert apart["style"] == "emphasis"
    assert [b["text"] for b in blocks(apart) if b["type"] == "TextRun"][:2] == [
        "Written by the agent, not checked",
        "Bob said that this is fine",
    ]


def test_no_text_of_a_request_is_where_teams_reads_markdown() -> None:
    """TextRuns alone hold what others wrote: TextBlock, FactSet, labels and titles are Markdown or could become it."""
    evil = "[click](https://evil.example) **bold** <at>Bob</at>"
    request = opened(
        draft(
            command=replace(SHELL, text=evil.encode(), stdin=HeldInput(evil.encode()), env=(("X", evil),)),
            terms=ReviewTerms(groups=(evil,), scopes=tuple(Scope)), said=evil, facts=(evil,),
            decision=Decision(Verdict.REVIEW, evil, evil, "sha256:0"),
            analysis=replace(ANALYSIS, effects=(Effect("delete", evil, program=evil),), opaque=(Opaque("eval", evil),)),
        )
    )  # fmt: skip
    drawn = card(request, Frame(LINK), view(request, voter(CAROL), now=START, house=HOUSE))
    assert {b["type"] for b in blocks(drawn)} <= {
        "AdaptiveCard", "RichTextBlock", "TextRun", "Container", "Input.Text", "Input.ChoiceSet", "Input.Number",
        "Action.Execute", "Action.Submit", "Action.ShowCard", "Action.OpenUrl",
    }  # fmt: skip
    for block in blocks(drawn):
        for key, value in block.items():
            assert key == "text" or not isinstance(value, str) or "evil" not in value


def test_a_secret_is_not_in_a_card_and_its_reader_is_told() -> None:
    secret = "ghp_" + "A1b2C3d4E5" * 4
    command = replace(SHELL, text=f"curl -H 'Authorization: token {secret}' https://x.example".encode(), stdin=None)
    effect = Effect("network", f"https://x.example?token={secret}", program="curl", argv=("curl", secret))
    request = opened(command=command, analysis=replace(ANALYSIS, effects=(effect,), opaque=()))
    shown = json.dumps(card(request, Frame(LINK)))
    assert secret not in shown
    assert "hidden" in shown


# -- each viewer --------------------------------------------------------------------------------------------------------------


def test_who_may_answer_sees_the_buttons() -> None:
    request = opened()
    mine = view(request, voter(), now=START, house=HOUSE)
    assert mine.stance is Stance.MAY_ANSWER
    assert {"approve", "deny"} <= verbs(card(request, Frame(LINK), mine))


@pytest.mark.parametrize(
    ("who", "why"),
    [
        (voter(ALICE), "claude-ci is yours"),
        (voter(CLAUDE), "you asked for it"),
        (voter(CAROL, "dba"), "It takes: sre"),
        (voter(disabled=True), "disabled"),
        (voter(kind=Kind.SERVICE), "Only people"),
        (voter(since=START), "lately"),
        (voter(CAROL, linked=frozenset({ALICE})), "claude-ci is yours"),
    ],
)
def test_who_may_not_answer_sees_why_and_no_button(who: Voter, why: str) -> None:
    request = opened()
    mine = view(request, who, now=START, house=House(newcomer=3600))
    drawn = card(request, Frame(LINK), mine)
    assert mine.stance is Stance.BARRED and why in mine.sentence and why in text(drawn)
    assert not verbs(drawn)


def test_who_answered_sees_their_answer_and_can_still_deny() -> None:
    request = approved_by(opened(terms=ReviewTerms(groups=("sre",), quorum=2)), voter())
    mine = view(request, voter(), now=START, house=HOUSE)
    drawn = card(request, Frame(LINK), mine)
    assert mine.stance is Stance.ANSWERED and "You approved this." in text(drawn)
    assert verbs(drawn) == {"deny"}


def test_the_broadcast_view_is_nobodys() -> None:
    assert "You " not in text(card(opened(), Frame(LINK), ANYBODY))


def test_the_author_of_an_edit_is_told() -> None:
    edited = desk.open_request(draft(), request_id="r", nonce="n", match="m", now=START, edited_from="q", author=voter(CAROL))
    assert "you edited it" in view(edited, voter(CAROL), now=START, house=HOUSE).sentence


def test_a_view_never_shows_a_button_that_the_desk_would_refuse_for_who_is_asking() -> None:
    for who in (voter(), voter(ALICE), voter(CAROL, "dba"), voter(disabled=True)):
        for request in (opened(), approved_by(opened(), voter()), replace(opened(), state=State.DENIED)):
            mine = view(request, who, now=START, house=HOUSE)
            offered = verbs(card(request, Frame(LINK), mine))
            for verb in offered & {"approve", "deny"}:
                ballot = Vote(who.identity, who.handle, "teams", "t/o", VoteVerdict(verb), request.digest, START)
                desk.vote(request, ballot, who, now=START, house=HOUSE)


def test_the_notification_names_no_command() -> None:
    assert "rm" not in cards.summary(opened()).split()
    assert "web-1" in cards.summary(opened())
