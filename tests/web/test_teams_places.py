"""Where Teams shows a request: the conversation, one-to-one, escalation, broken glass, and how places are learned."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.bot_connector import APP_ID, CONVERSATION, DORA_OID, ESCALATION, STRANGER_OID, TENANT, executes
from harness.teams_room import Room, open_room
from interlock.approvals.authority import House
from interlock.approvals.model import ApprovalRequest, Signed, State, VoteVerdict
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import ReviewTerms

ELSEWHERE = "19:another-team@thread.tacv2"


@pytest.fixture
async def direct(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path, direct=True) as room:
        yield room


@pytest.fixture
async def escalating(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path, escalation=ESCALATION) as room:
        yield room


@pytest.fixture
async def homeless(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path, conversation="") as room:
        await room.desk.directory.link_teams("carol", TENANT, DORA_OID)  # an administrator
        yield room


def shows(request: ApprovalRequest, *words: str) -> Any:
    return lambda card: request.id in json.dumps(card) and all(word in json.dumps(card) for word in words)


def places(room: Room) -> set[str]:
    return set(room.connector.where.values())


async def settled(room: Room) -> None:
    """Wait until a request made now is posted: everything that came before it was looked at."""
    last = await room.ask(session="01LAST")
    await room.connector.card(shows(last), CONVERSATION)


# -- one-to-one --------------------------------------------------------------------------------------------------------------


async def test_everybody_who_may_answer_is_written_to_and_nobody_else(direct: Room) -> None:
    await direct.desk.directory.add("dora", Kind.HUMAN, groups=["dba"], teams=[(TENANT, DORA_OID)])
    request = await direct.ask()
    _, card = await direct.connector.card(shows(request, "You may answer."), "a:bob")
    assert {"approve", "deny"} <= {a["verb"] for a in executes(card)}
    await direct.posted(request, CONVERSATION)
    assert places(direct) == {CONVERSATION, "a:bob"}  # alice owns the agent, dora is in another group
    assert direct.connector.opened == ["29:bob"]


async def test_an_answer_one_to_one_counts_and_every_message_is_brought_up_to_date(direct: Room) -> None:
    request = await direct.ask()
    await direct.posted(request, CONVERSATION)
    await direct.press(request, "approve", there="a:bob")
    assert await direct.state(request) is State.APPROVED
    await direct.connector.card(lambda c: "bob approved it" in json.dumps(c), CONVERSATION)
    await direct.connector.card(lambda c: "You approved this." in json.dumps(c), "a:bob")


async def test_a_conversation_is_opened_once_and_found_again_after_a_restart(direct: Room) -> None:
    first = await direct.ask()
    await direct.posted(first, "a:bob")
    await direct.channel.close()
    await direct.restart()
    second = await direct.ask(session="01OTHER")
    await direct.connector.card(shows(second), "a:bob")
    assert direct.connector.opened == ["29:bob"]


async def test_a_conversation_that_somebody_began_is_used(direct: Room) -> None:
    await direct.send(direct.connector.activity("message", "a:bobs-own", text="hi"))
    await direct.connector.card(lambda c: "You are bob" in json.dumps(c), "a:bobs-own")
    request = await direct.ask()
    await direct.posted(request, "a:bobs-own")
    assert direct.connector.opened == []


@pytest.mark.parametrize("lie", [{"aadObjectId": STRANGER_OID}, {"userRole": "guest"}, {"tenantId": "other"}])
async def test_a_conversation_is_not_learned_from_somebody_whom_the_service_does_not_confirm(
    direct: Room, lie: dict[str, str]
) -> None:
    direct.connector.lies["29:bob"] = lie
    await direct.send(direct.connector.activity("message", "a:trap", text="hi"))
    request = await direct.ask()
    await direct.posted(request, CONVERSATION)
    await direct.idle()
    assert await direct.desk.store.conversations.of("teams") == {}
    assert not [
        call for call in direct.connector.calls if request.id in json.dumps(call.card) and call.conversation != CONVERSATION
    ]


async def test_a_stranger_learns_how_to_be_linked_and_is_not_remembered(direct: Room) -> None:
    await direct.send(direct.connector.activity("message", "a:stranger", user="29:stranger", text="hi"))
    _, card = await direct.connector.card(lambda c: "linked to nobody" in json.dumps(c), "a:stranger")
    assert f"interlock principals link HANDLE --teams {TENANT}/{STRANGER_OID}" in json.dumps(card)
    assert await direct.desk.store.conversations.of("teams") == {}


async def test_whoever_removes_the_app_is_not_written_to_any_more(direct: Room) -> None:
    await direct.send(direct.connector.activity("message", "a:bobs-own", text="hi"))
    await direct.connector.card(lambda c: "You are bob" in json.dumps(c), "a:bobs-own")
    await direct.send(direct.connector.activity("installationUpdate", "a:bobs-own", action="remove"))
    await direct.idle()
    assert await direct.desk.store.conversations.of("teams") == {}


async def test_when_nobody_can_be_found_the_conversation_still_has_the_card(direct: Room) -> None:
    direct.connector.members_status = 500
    request = await direct.ask()
    await direct.posted(request, CONVERSATION)
    assert places(direct) == {CONVERSATION}


# -- escalation and broken glass (properties 28, 29) ----------------------------------------------------------------------------


async def test_escalation_tells_more_people_and_lowers_nothing(escalating: Room) -> None:
    terms = ReviewTerms(groups=("sre",), quorum=2, escalate=60)
    request = await escalating.ask(terms=terms)
    await escalating.posted(request, CONVERSATION)
    assert places(escalating) == {CONVERSATION}

    await escalating.later(61)
    _, card = await escalating.connector.card(shows(request, "Escalated at"), ESCALATION)
    assert "Needed: 2 of sre" in json.dumps(card)
    await escalating.connector.card(lambda c: "Escalated: nobody has decided yet." in json.dumps(c), CONVERSATION)
    await escalating.connector.card(shows(request, "Escalated at"), CONVERSATION)

    await escalating.press(request, "approve", there=ESCALATION)
    await escalating.connector.card(shows(request, "1 of 2: bob approved"), CONVERSATION)
    await escalating.connector.card(shows(request, "1 of 2: bob approved"), ESCALATION)
    assert [call.conversation for call in escalating.connector.calls if "nobody has decided" in call.summary] == [CONVERSATION]
    assert await escalating.state(request) is State.PENDING  # one of two, as before
    await escalating.press(request, "deny", there=ESCALATION)
    for place in (CONVERSATION, ESCALATION):
        await escalating.connector.card(lambda c: "bob denied it" in json.dumps(c), place)


class AnyKey:
    """Stands for the check of a passkey, which has tests of its own."""

    def check(self, person: Identity, signed: Signed, statement: bytes) -> Signed:
        return signed


@pytest.fixture
async def breakable(tmp_path: Path) -> AsyncIterator[Room]:
    settings = {"house": House(glass=frozenset({"sre"})), "proofs": AnyKey()}
    async with open_room(tmp_path, escalation=ESCALATION, inbox=settings) as room:
        yield room


async def test_broken_glass_is_loud_in_both_conversations_once(breakable: Room) -> None:
    request = await breakable.ask(terms=ReviewTerms(groups=("dba",), quorum=2))
    await breakable.posted(request, CONVERSATION)
    await breakable.desk.inbox.vote(
        request.id, voter=breakable.desk.entry("bob").identity, channel="console", channel_actor="bob",
        verdict=VoteVerdict.APPROVE, digest=request.digest, reason="the site is down",
        signed=Signed("webauthn", "k", b"p", b"s"), break_glass=True,
    )  # fmt: skip
    for place in (CONVERSATION, ESCALATION):
        _, alarm = await breakable.connector.card(lambda c: "one person approved alone" in json.dumps(c), place)
        assert "the site is down" in json.dumps(alarm) and not list(executes(alarm))
    await breakable.connector.card(shows(request, "GLASS BROKEN"), CONVERSATION)

    await breakable.channel.close()
    await breakable.restart()
    await settled(breakable)
    rung = [call for call in breakable.connector.calls if "approved alone" in call.summary]
    assert sorted(call.conversation for call in rung) == sorted((CONVERSATION, ESCALATION))


# -- how the place is found ---------------------------------------------------------------------------------------------


def installed(room: Room, conversation: str, *, user: str = "29:dora", kind: str = "installationUpdate") -> dict[str, Any]:
    fields = {"action": "add"} if kind == "installationUpdate" else {"membersAdded": [{"id": f"28:{APP_ID}"}]}
    return room.connector.activity(kind, conversation, user=user, **fields)


@pytest.mark.parametrize("kind", ["installationUpdate", "conversationUpdate"])
async def test_without_a_conversation_the_first_installation_by_an_administrator_is_the_place(homeless: Room, kind: str) -> None:
    request = await homeless.ask()
    await homeless.send(installed(homeless, CONVERSATION, kind=kind))
    _, note = await homeless.connector.card(lambda c: "Interlock is here" in json.dumps(c), CONVERSATION)
    assert f"approvals.channels.teams.conversation: {CONVERSATION}" in json.dumps(note)
    await homeless.press(request, "approve", there=CONVERSATION)
    assert await homeless.state(request) is State.APPROVED

    await homeless.send(installed(homeless, ELSEWHERE))
    await homeless.idle()
    assert places(homeless) == {CONVERSATION}
    await homeless.channel.close()
    await homeless.restart()
    await settled(homeless)
    assert places(homeless) == {CONVERSATION}


@pytest.mark.parametrize("user", ["29:stranger", "29:guest", "29:foreign", "29:bob"])
async def test_an_installation_by_somebody_who_is_no_administrator_shows_nothing_to_anybody(homeless: Room, user: str) -> None:
    await homeless.ask()
    await homeless.send(installed(homeless, ELSEWHERE, user=user))
    await homeless.idle()
    assert homeless.connector.calls == []


async def test_an_installation_is_not_believed_without_the_service(homeless: Room) -> None:
    await homeless.ask()
    homeless.connector.lies["29:dora"] = {"aadObjectId": STRANGER_OID}
    await homeless.send(installed(homeless, ELSEWHERE))
    await homeless.idle()
    assert homeless.connector.calls == []


async def test_with_a_conversation_nothing_is_posted_where_the_app_is_installed_besides(direct: Room) -> None:
    await direct.send(installed(direct, ELSEWHERE))
    await direct.idle()
    await settled(direct)
    assert ELSEWHERE not in places(direct)


async def test_a_message_or_a_member_who_comes_makes_no_place(homeless: Room) -> None:
    await homeless.ask()
    await homeless.send(homeless.connector.activity("message", ELSEWHERE, text="@Interlock hello", user="29:dora"))
    await homeless.send(
        homeless.connector.activity("conversationUpdate", ELSEWHERE, membersAdded=[{"id": "29:bob"}, 7, {}], user="29:dora")
    )
    await homeless.idle()
    assert homeless.connector.calls == []


async def test_after_the_app_was_removed_no_other_place_is_ever_taken(homeless: Room) -> None:
    await homeless.send(installed(homeless, CONVERSATION))
    await homeless.connector.card(lambda c: "Interlock is here" in json.dumps(c))
    for _ in range(2):  # by whoever is in the channel
        await homeless.send(homeless.connector.activity("installationUpdate", CONVERSATION, user="29:stranger", action="remove"))
    await homeless.idle()
    for user in ("29:alice", "29:dora"):
        await homeless.send(installed(homeless, ELSEWHERE, user=user))
    await homeless.idle()
    assert homeless.channel._places.home == ""
    await homeless.channel.close()
    await homeless.restart()
    await homeless.send(installed(homeless, ELSEWHERE))
    await homeless.send(installed(homeless, CONVERSATION, user="29:alice"))
    await homeless.idle()
    assert homeless.channel._places.home == "" and len(homeless.connector.calls) == 1
    assert homeless.desk.journal_text().count('"what":"app-removed"') == 1


async def test_the_place_is_taken_again_when_an_administrator_adds_the_app_there_again(homeless: Room) -> None:
    await homeless.send(installed(homeless, CONVERSATION))
    await homeless.connector.card(lambda c: "Interlock is here" in json.dumps(c))
    await homeless.send(homeless.connector.activity("installationUpdate", CONVERSATION, action="remove"))
    await homeless.idle()
    await homeless.send(installed(homeless, CONVERSATION))
    await homeless.idle()
    await homeless.channel.close()
    await homeless.restart()
    await settled(homeless)


async def test_an_upgrade_of_the_app_leaves_no_place(homeless: Room) -> None:
    await homeless.send(installed(homeless, CONVERSATION))
    await homeless.connector.card(lambda c: "Interlock is here" in json.dumps(c))
    await homeless.send(homeless.connector.activity("installationUpdate", CONVERSATION, action="remove-upgrade"))
    await homeless.idle()
    await settled(homeless)
