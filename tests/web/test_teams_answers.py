"""Answers from Teams through the real entry: a signed activity over HTTP. Who counts, for what, and what everybody is shown."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.bot_connector import BOB_OID, CONVERSATION, DORA_OID, STRANGER_OID, TENANT, deliver, executes
from harness.people import CLAUDE
from harness.requests import ANALYSIS, SHELL, draft
from harness.teams_room import Room, open_room
from interlock.approvals.channels.teams.channel import FREE_REFUSALS, LOOKED_S
from interlock.approvals.model import ApprovalRequest, Proof, State, VoteVerdict
from interlock.commands.model import Effect
from interlock.errors import ConfigError, EvidenceError
from interlock.identity.principal import Kind
from interlock.policy.model import Need, ReviewTerms

PLAIN = replace(SHELL, text=b"sudo rm -rf /var/lib/pg", stdin=None, env=())
ROOT = Effect("privilege", "root", program="sudo", argv=("sudo", "rm", "-rf", "/var/lib/pg"), via=("sudo",))
BOUND = replace(ANALYSIS, effects=(ROOT, *ANALYSIS.effects), opaque=(), sent="sudo rm -rf /var/lib/pg", notes=())
WIDER = ReviewTerms(groups=("sre",), scopes=("once", "exact", "rule_in_session"))
TWO = ReviewTerms(groups=("sre",), also=(Need(("dba",)),))


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path) as room:
        await room.desk.directory.add("dora", Kind.HUMAN, groups=["dba"], teams=[(TENANT, DORA_OID)])
        yield room


def verbs(answer: dict[str, Any]) -> set[str]:
    """The buttons of the card in an answer."""
    return {a["verb"] for a in executes({"actions": answer["value"]["actions"]})}


def disclosed(room: Room, name: str) -> set[str]:
    """The committed values of this name in the node's journal."""
    lines = (json.loads(line) for line in room.desk.journal_text().splitlines() if line.startswith('{"d":'))
    told = (json.loads(base64.urlsafe_b64decode(line["d"] + "==")) for line in lines)
    return {value for _, key, value in told if key == name}


async def votes(room: Room, request: ApprovalRequest) -> list[tuple[str, str]]:
    return [(v.reviewer_handle, str(v.verdict)) for v in (await room.desk.inbox.get(request.id)).votes]


# -- each viewer's own view (properties 20, 27) ------------------------------------------------------------------------------


async def test_a_refresh_shows_each_viewer_their_own_view_and_changes_nothing(room: Room) -> None:
    request = await room.ask()
    before, journal = await room.desk.inbox.get(request.id), room.desk.transcripts.journal.next_seq
    bob = await room.press(request, "refresh")
    alice = await room.press(request, "refresh", user="29:alice")
    dora = await room.press(request, "refresh", user="29:dora")
    stranger = await room.press(request, "refresh", user="29:stranger")

    assert "You may answer." in json.dumps(bob) and {"approve", "deny"} <= verbs(bob)
    assert "claude is yours" in json.dumps(alice) and not verbs(alice)
    assert "It takes: sre" in json.dumps(dora) and not verbs(dora)
    assert "linked to no active person" in json.dumps(stranger) and not verbs(stranger)
    assert await room.desk.inbox.get(request.id) == before
    assert room.desk.transcripts.journal.next_seq == journal
    assert len(room.connector.cards) == 1


async def test_a_refresh_after_the_end_shows_the_final_state(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    late = room.connector.invoke(card, message, "refresh")
    await room.press(request, "deny")
    shown = await room.send(late)
    assert "Denied" in json.dumps(shown) and not verbs(shown)


async def test_a_refresh_of_a_forwarded_card_shows_nothing(room: Room) -> None:
    request = await room.ask()
    answer = await room.press(request, "refresh", conversation={"id": "19:elsewhere@thread.tacv2", "tenantId": TENANT})
    assert answer["type"] == "application/vnd.microsoft.error" and "rm -rf" not in json.dumps(answer)


async def test_a_refresh_when_nobody_says_who_it_is_shows_what_everybody_sees(room: Room) -> None:
    request = await room.ask()
    await room.posted(request)
    room.connector.members_status = 500
    shown = await room.press(request, "refresh")
    assert shown["statusCode"] == 200 and "You " not in json.dumps(shown["value"]["body"])


async def test_who_looks_is_not_asked_of_the_service_each_time_and_who_answers_is(room: Room) -> None:
    request = await room.ask()
    for _ in range(5):
        await room.press(request, "refresh")
    asked = [user for _, user in room.connector.lookups].count("29:bob")
    assert asked == 1
    room.connector.lies["29:bob"] = {"userRole": "guest"}
    await room.press(request, "approve")
    assert await room.state(request) is State.PENDING


async def test_the_card_names_its_viewers_once_the_service_said_who_they_are(room: Room) -> None:
    request = await room.ask()
    _, card = await room.connector.card(lambda c: {"29:bob", "29:alice"} <= set(c.get("refresh", {}).get("userIds", ())))
    assert request.id in json.dumps(card)


# -- answers -----------------------------------------------------------------------------------------------------------------


async def test_a_quorum_takes_distinct_people_and_each_card_says_how_far_it_is(room: Room) -> None:
    request = await room.ask(terms=TWO)
    first = await room.press(request, "approve")
    assert "1 of 2: bob approved; still needed: one of dba" in json.dumps(first)
    assert "You approved this." in json.dumps(first) and "approve" not in verbs(first)
    again = await room.press(request, "approve", id="f:another")  # the same person, another delivery
    assert "did not count" in json.dumps(again)
    assert await room.state(request) is State.PENDING
    await room.connector.card(lambda c: "1 of 2: bob approved" in json.dumps(c), CONVERSATION)

    await room.press(request, "approve", user="29:dora")
    assert await room.state(request) is State.APPROVED
    assert await votes(room, request) == [("bob", "approve"), ("dora", "approve")]


async def test_a_reason_goes_to_the_agent_as_one_line_of_data(room: Room) -> None:
    request = await room.ask()
    await room.press(request, "deny", typed={"reason": "not on\n a\x1b[2J Friday\u202e" + "x" * 5000})
    (vote,) = (await room.desk.inbox.get(request.id)).votes
    assert vote.reason.startswith("not on a [2J Friday x") and vote.reason.isprintable() and len(vote.reason) <= 1000


async def test_approving_for_some_minutes_leaves_a_grant_of_that_length(room: Room) -> None:
    request = await room.ask(terms=WIDER, command=PLAIN, analysis=BOUND)
    await room.press(request, "grant", typed={"scope": "exact", "minutes": "5"})
    decided = await room.desk.inbox.get(request.id)
    assert decided.state is State.APPROVED and decided.votes[0].scope == "exact"
    (grant,) = room.desk.inbox.grants()
    assert grant.request == request.id and (grant.valid_until - decided.votes[0].at).total_seconds() == pytest.approx(300, abs=5)


async def test_approving_what_the_rule_holds_in_this_session_leaves_a_grant_in_the_words_of_the_card(room: Room) -> None:
    request = await room.ask(terms=WIDER, command=PLAIN, analysis=BOUND)
    _, card = await room.posted(request)
    await room.press(request, "grant", typed={"scope": "rule_in_session", "minutes": 5})
    (grant,) = room.desk.inbox.grants()
    assert grant.words in json.dumps(card)


@pytest.mark.parametrize(
    "typed",
    [
        {"scope": "everything"}, {"scope": ["once"]}, {"scope": "exact", "minutes": "0"}, {"scope": "exact", "minutes": 1e9},
        {"scope": "exact", "minutes": "-5"}, {"scope": "exact"}, {"scope": "exact", "minutes": True},
        {"scope": "exact", "minutes": 1.5},
    ],
)  # fmt: skip
async def test_a_scope_that_the_card_never_offered_is_refused(room: Room, typed: dict[str, Any]) -> None:
    request = await room.ask(terms=WIDER, command=PLAIN, analysis=BOUND)
    await room.press(request, "grant", typed=typed)
    assert await room.state(request) is State.PENDING and not room.desk.inbox.grants()
    assert '"reason":"scope-not-offered"' in room.desk.journal_text()


async def test_a_wider_scope_is_refused_where_the_rule_permits_only_once(room: Room) -> None:
    request = await room.ask(command=PLAIN, analysis=BOUND)
    message, card = await room.posted(request)
    activity = room.connector.invoke(card, message, "approve")
    activity["value"]["action"] |= {"verb": "grant", "data": {**activity["value"]["action"]["data"], "scope": "rule_in_session"}}
    await room.send(activity)
    assert await room.state(request) is State.PENDING


async def test_approve_once_is_once_whatever_else_is_in_its_data(room: Room) -> None:
    request = await room.ask(terms=WIDER, command=PLAIN, analysis=BOUND)
    await room.press(
        request, "approve", typed={"scope": "rule_in_session", "verdict": "deny", "digest": "x", "channel": "console"}
    )
    (vote,) = (await room.desk.inbox.get(request.id)).votes
    assert (vote.scope, vote.channel, vote.proof) == ("once", "teams", Proof.CHANNEL)
    assert vote.verdict is VoteVerdict.APPROVE and not room.desk.inbox.grants()


async def test_denying_takes_an_approval_back_before_it_is_used(room: Room) -> None:
    request = await room.ask(terms=replace(WIDER, quorum=1))
    await room.desk.directory.add("erin", Kind.HUMAN, groups=["sre"], teams=[(TENANT, "aaaaaaaa-0000-4000-8000-00000000000f")])
    await room.press(request, "approve")
    message, card = await room.connector.card(lambda c: "Take back" in json.dumps(c))
    await room.send(room.connector.invoke(card, message, "deny", user="29:stranger"))
    assert await room.state(request) is State.REVOKED
    await room.connector.card(lambda c: "Revoked before the command ran" in json.dumps(c))


# -- clients without Action.Execute --------------------------------------------------------------------------------------------


async def test_an_action_submit_is_the_same_answer_through_the_same_checks(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    assert await room.send(room.connector.submit(card, message, "deny", typed={"reason": "no"})) is None
    decided = await room.desk.inbox.get(request.id)
    assert decided.state is State.DENIED and decided.votes[0].reason == "no"
    await room.connector.card(lambda c: "Denied" in json.dumps(c))


@pytest.mark.parametrize(
    "bent", [{"replyToId": "m999"}, {"value": {"verb": "approve", "request": "req_x", "nonce": "n"}}, {"user": "29:stranger"}]
)
async def test_an_action_submit_from_elsewhere_or_somebody_else_does_not_count(room: Room, bent: dict[str, Any]) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    activity = room.connector.submit(card, message, "approve", user=bent.pop("user", "29:bob"))
    await room.send({**activity, **bent})
    assert await room.state(request) is State.PENDING
    assert '"counted":false' in room.desk.journal_text()


async def test_a_refused_action_submit_is_told_in_the_persons_own_chat_alone(room: Room) -> None:
    await room.send(room.connector.activity("message", "a:alice", user="29:alice", text="hello"))
    await room.connector.card(lambda c: "You are alice" in json.dumps(c), "a:alice")
    request = await room.ask()
    message, card = await room.posted(request, CONVERSATION)
    await room.send(room.connector.submit(card, message, "approve", user="29:alice"))
    await room.connector.card(lambda c: "Your answer did not count" in json.dumps(c), "a:alice")
    assert "did not count" not in json.dumps(room.connector.cards[message])


# -- who does not count (properties 2, 3, 4, 8) ----------------------------------------------------------------------------------


LIES: dict[str, dict[str, Any]] = {
    "another object id": {"aadObjectId": DORA_OID},
    "no object id": {"aadObjectId": None},
    "another tenant": {"tenantId": "99999999-2222-3333-4444-555555555555"},
    "no tenant": {"tenantId": None},
    "a guest": {"userRole": "guest"},
    "an anonymous participant": {"userRole": "anonymous"},
    "no role": {"userRole": None},
    "another member": {"id": "29:dora"},
    "nothing": {"id": "", "aadObjectId": "", "tenantId": "", "userRole": ""},
}


@pytest.mark.parametrize("what", LIES)
async def test_only_a_member_whom_the_service_confirms_in_every_respect_counts(room: Room, what: str) -> None:
    request = await room.ask()
    room.connector.lies["29:bob"] = LIES[what]
    await room.press(request, "approve")
    assert await room.state(request) is State.PENDING
    assert '"reason":"unmapped-actor"' in room.desk.journal_text()


async def test_a_member_of_another_tenant_is_refused(room: Room) -> None:
    request = await room.ask()
    await room.press(request, "approve", user="29:foreign")
    assert await room.state(request) is State.PENDING


async def test_a_bot_is_refused_at_the_gate(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    activity = room.connector.invoke(card, message, "approve", user="28:other-bot")
    assert (await deliver(room.url, activity, room.connector.token())).status_code == 401
    assert await room.state(request) is State.PENDING


async def test_an_agent_or_a_service_has_no_account_here_to_answer_with(room: Room) -> None:
    account = (TENANT, "aaaaaaaa-0000-4000-8000-00000000000f")
    with pytest.raises(ConfigError, match="only a person"):
        await room.desk.directory.add("robot", Kind.SERVICE, groups=["sre"], teams=[account])
    with pytest.raises(ConfigError, match="only a person"):
        await room.desk.directory.link_teams("claude", *account)
    request = await room.ask()
    await room.press(request, "approve", user="29:stranger")
    assert await room.state(request) is State.PENDING


async def test_a_reviewer_who_left_the_group_after_the_card_was_posted_is_refused(room: Room) -> None:
    request = await room.ask()
    await room.posted(request)
    await room.desk.directory.set_groups("bob", ["dba"])
    await room.press(request, "approve")
    assert await room.state(request) is State.PENDING
    assert '"reason":"not-a-reviewer"' in room.desk.journal_text()


@pytest.mark.parametrize("trouble", ["failing", "silent"])
async def test_when_the_service_does_not_say_who_it_is_nothing_counts(
    room: Room, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlock.approvals.channels.teams.channel.MEMBER_S", 0.05)
    request = await room.ask()
    await room.posted(request)
    room.connector.members_status, room.connector.members_held = (500, None) if trouble == "failing" else (200, asyncio.Event())
    answer = await room.press(request, "approve")
    assert answer["statusCode"] == 500
    assert await room.state(request) is State.PENDING
    assert '"reason":"target-unreachable"' in room.desk.journal_text()
    if room.connector.members_held is not None:
        room.connector.members_held.set()


# -- copies and repetition (properties 20 to 25) -----------------------------------------------------------------------


async def test_a_forwarded_card_is_refused_and_the_operators_are_told(room: Room) -> None:
    request = await room.ask()
    await room.press(request, "approve", conversation={"id": "19:elsewhere@thread.tacv2", "tenantId": TENANT})
    assert await room.state(request) is State.PENDING
    (alert,) = [json.loads(line) for line in room.desk.journal_text().splitlines() if '"type":"channel.alert"' in line]
    assert (alert["request"], alert["channel"]) == (request.id, "teams")
    assert disclosed(room, "actor") >= {f"{TENANT}/{BOB_OID}"}
    assert disclosed(room, "conversation") == {"19:elsewhere@thread.tacv2"}


async def test_a_card_with_a_made_up_nonce_is_an_alert(room: Room) -> None:
    request = await room.ask()
    await room.press(request, "approve", typed={"nonce": "0" * 32})
    assert await room.state(request) is State.PENDING
    assert '"type":"channel.alert"' in room.desk.journal_text()


async def test_messages_that_look_like_an_answer_or_were_edited_into_one_have_no_effect(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    there = f"{CONVERSATION};messageid={message}"
    value = room.connector.submit(card, message, "approve")["value"]
    copied = [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}]
    for activity in (
        room.connector.activity("message", there, replyToId=message, text=f"<at>Interlock</at> approve {request.id}"),
        room.connector.activity("message", there, replyToId=message, attachments=copied, text="approve"),
        room.connector.activity("messageUpdate", there, replyToId=message, value=value),
        room.connector.activity("messageReaction", there, replyToId=message, reactionsAdded=[{"type": "like"}]),
        room.connector.activity("invoke", there, replyToId=message, name="composeExtension/submitAction", value=value),
    ):
        assert await room.send(activity) is None
    await room.idle()
    decided = await room.desk.inbox.get(request.id)
    assert decided.state is State.PENDING and decided.votes == ()
    assert list(room.connector.cards) == [message]
    assert "Bob Approver" not in json.dumps(room.connector.cards)  # what Teams calls people is nowhere


async def test_an_answer_that_can_not_be_written_down_does_not_count(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    request = await room.ask()
    await room.posted(request)

    def full(*_: object) -> int:
        raise EvidenceError

    monkeypatch.setattr(type(room.desk.transcripts.journal), "append", full)
    for verb in ("approve", "deny"):
        answer = await room.press(request, verb)
        assert answer["statusCode"] == 500
        assert answer["value"]["code"] == "evidence-unavailable"
    made_up = await room.press(request, "approve", typed={"nonce": "0" * 32})  # nor can its refusal
    assert made_up["value"]["code"] == "delivery-rejected"
    assert await room.state(request) is State.PENDING


async def test_a_hundred_clicks_of_one_person_are_one_vote(room: Room) -> None:
    request = await room.ask(terms=ReviewTerms(groups=("sre",), quorum=2))
    message, card = await room.posted(request)
    await asyncio.gather(*(room.send(room.connector.invoke(card, message, "approve")) for _ in range(100)))
    assert await votes(room, request) == [("bob", "approve")]
    assert await room.state(request) is State.PENDING


async def test_approve_and_deny_at_once_give_one_final_state_that_both_are_told(room: Room) -> None:
    await room.desk.directory.add("erin", Kind.HUMAN, groups=["sre"], teams=[(TENANT, "aaaaaaaa-0000-4000-8000-00000000000f")])
    request = await room.ask()
    message, card = await room.posted(request)
    await asyncio.gather(
        room.send(room.connector.invoke(card, message, "approve")),
        room.send(room.connector.invoke(card, message, "deny", user="29:stranger")),
    )
    state = await room.state(request)
    assert state in (State.DENIED, State.REVOKED)  # deny wins, whichever came first
    await room.connector.card(lambda c: not list(executes(c)) and ("Denied" in json.dumps(c) or "Revoked" in json.dumps(c)))


async def test_a_click_on_a_finished_request_is_told_the_end_and_recorded(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    captured = room.connector.invoke(card, message, "approve")
    await room.press(request, "deny", user="29:bob")
    answer = await room.send(captured)
    assert "Denied" in json.dumps(answer) and not verbs(answer)
    assert '"reason":"already-decided"' in room.desk.journal_text() or '"reason":"already-voted"' in room.desk.journal_text()
    assert await votes(room, request) == [("bob", "deny")]


async def test_whoever_keeps_clicking_what_does_not_count_is_not_looked_at_for_a_while(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    for _ in range(21):
        await room.send(room.connector.invoke(card, message, "approve", typed={"nonce": "0" * 32}))
    asked = len(room.connector.lookups)
    blocked = await room.send(room.connector.invoke(card, message, "approve"))
    assert blocked["value"]["code"] == "limit-reached" and len(room.connector.lookups) == asked
    recorded = room.desk.transcripts.journal.next_seq
    made_up = room.connector.invoke(card, message, "approve")
    made_up["value"]["action"]["verb"] = "approve_all"
    assert (await room.send(made_up))["value"]["code"] == "limit-reached"
    assert room.desk.transcripts.journal.next_seq == recorded
    # Nobody else is affected.
    await room.desk.directory.add("erin", Kind.HUMAN, groups=["sre"], teams=[(TENANT, "aaaaaaaa-0000-4000-8000-00000000000f")])
    await room.send(room.connector.invoke(card, message, "approve", user="29:stranger"))
    assert await room.state(request) is State.APPROVED


async def test_two_hundred_clicks_at_once_that_do_not_count_are_not_two_hundred_questions(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    await room.idle()
    room.connector.lookups.clear()
    room.connector.members_held = asyncio.Event()
    click = room.connector.invoke(card, message, "approve", user="29:stranger")
    clicks = [asyncio.create_task(room.send(click)) for _ in range(60)]
    done, _ = await asyncio.wait(clicks, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    room.connector.members_held.set()
    answers = await asyncio.gather(*clicks)
    assert done and [user for _, user in room.connector.lookups].count("29:stranger") <= FREE_REFUSALS + 1
    assert sum(answer["value"].get("code") == "limit-reached" for answer in answers) >= 60 - FREE_REFUSALS - 1


async def test_a_stranger_who_looks_is_asked_about_once_a_minute(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    await room.idle()
    look = room.connector.invoke(card, message, "refresh", user="29:stranger")
    for _ in range(10):
        shown = await room.send(look)
    assert shown["statusCode"] == 200 and not verbs(shown)
    assert [user for _, user in room.connector.lookups].count("29:stranger") == 1
    await room.desk.directory.add("erin", Kind.HUMAN, groups=["sre"], teams=[(TENANT, STRANGER_OID)])
    room.clock.ahead += LOOKED_S + 1
    assert "approve" in verbs(await room.send(look))


async def test_looking_while_the_service_does_not_answer_is_throttled_and_answering_is_not(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    await room.idle()
    room.connector.members_status = 500
    look = room.connector.invoke(card, message, "refresh")
    for _ in range(40):
        assert (await room.send(look))["statusCode"] == 200
    assert [user for _, user in room.connector.lookups].count("29:bob") <= FREE_REFUSALS + 3
    room.connector.members_status = 200
    await room.send(room.connector.invoke(card, message, "approve"))
    assert await room.state(request) is State.APPROVED


# -- separation of duties (property 6) -----------------------------------------------------------------------------------


async def test_nobody_behind_the_agent_can_answer_also_through_a_linked_account(room: Room) -> None:
    await room.desk.directory.add(
        "alice-admin", Kind.HUMAN, groups=["sre"], teams=[(TENANT, "aaaaaaaa-0000-4000-8000-00000000000f")]
    )
    await room.desk.directory.link("alice", room.desk.entry("alice-admin").identity)
    request = await room.ask()
    for user in ("29:alice", "29:stranger"):
        answer = await room.press(request, "approve", user=user)
        assert "can't answer" in json.dumps(answer) or "did not count" in json.dumps(answer)
    assert await room.state(request) is State.PENDING
    assert room.desk.journal_text().count('"reason":"self-approval"') == 2


async def test_who_the_agent_acts_for_can_not_answer(room: Room) -> None:
    acting = replace(room.desk.agent(), acting_for=(room.desk.entry("bob").identity,), acting_for_handles=("bob",))
    place = await room.desk.inbox.submit(draft(principal=acting))
    await room.press(place.request, "approve")
    assert await room.state(place.request) is State.PENDING
    assert CLAUDE not in [v.reviewer for v in (await room.desk.inbox.get(place.request.id)).votes]
