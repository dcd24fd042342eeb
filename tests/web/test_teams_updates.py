"""Every message kept true: order, coalescing, a service that is busy or down, restarts, and a click that waits for none of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.bot_connector import CONVERSATION, DORA_OID, STRANGER_OID, TENANT, executes
from harness.requests import SHELL, draft
from harness.teams_room import Room, open_room
from interlock.approvals.channels.teams import noticeboard
from interlock.approvals.channels.teams.noticeboard import LONGEST_WAIT_S, WAITS_S
from interlock.approvals.model import ApprovalRequest, State, VoteVerdict
from interlock.identity.principal import Kind
from interlock.policy.model import ReviewTerms

THREE = ReviewTerms(groups=("sre",), quorum=3)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path) as room:
        await room.desk.directory.add("dora", Kind.HUMAN, groups=["sre"], teams=[(TENANT, DORA_OID)])
        await room.desk.directory.add("erin", Kind.HUMAN, groups=["sre"], teams=[(TENANT, STRANGER_OID)])
        yield room


async def say(room: Room, request: ApprovalRequest, who: str, verdict: VoteVerdict = VoteVerdict.APPROVE) -> ApprovalRequest:
    return await room.desk.inbox.vote(
        request.id, voter=room.desk.entry(who).identity, channel="cli", channel_actor=who, verdict=verdict, digest=request.digest
    )


async def given_up(room: Room) -> bool:
    return '"what":"message-not-sent"' in room.desk.journal_text()


async def quiet(room: Room) -> bool:
    return not room.channel._board._running


async def heard(room: Room, request: ApprovalRequest) -> None:
    """Wait until the board has taken in what was last said about a request: it may still be sending what was said before."""

    async def tended() -> bool:
        return (request.id, "") not in room.channel._board._running

    await room.until(tended)


async def settled(room: Room, request: ApprovalRequest, how: str) -> bool:
    return [row.settled for row in await room.desk.store.messages.of("teams", request.id)] == [how]


def told(room: Room, message: str) -> list[str]:
    """What a message showed, one after the other, by who had approved."""
    calls = [call for call in room.connector.calls if call.message == message]
    return [
        " ".join(name for name in ("bob", "dora", "erin") if f"{name} approved it" in json.dumps(call.card)) for call in calls
    ]


async def test_a_click_is_answered_while_no_update_gets_through(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    await room.connector.card(lambda c: len(c.get("refresh", {}).get("userIds", ())) == 4)
    room.connector.held = asyncio.Event()
    answer = await room.send(room.connector.invoke(card, message, "approve"))
    assert "Approved" in json.dumps(answer)
    assert "Approved" not in json.dumps(room.connector.cards[message])  # nothing was written, and nobody waited for it
    room.connector.held.set()
    await room.connector.card(lambda c: "Approved" in json.dumps(c))


async def test_changes_that_come_fast_become_one_update_and_no_older_state_overwrites_a_newer_one(room: Room) -> None:
    request = await room.ask(terms=THREE)
    message, _ = await room.posted(request)
    await room.connector.card(lambda c: len(c.get("refresh", {}).get("userIds", ())) == 4)
    before = len(told(room, message))
    room.connector.held, room.connector.held_up = asyncio.Event(), 0
    await say(room, request, "bob")
    await room.connector.until(lambda: room.connector.held_up == 1)  # the update about bob is on its way
    await say(room, request, "dora")
    await say(room, request, "erin")
    await heard(room, request)
    room.connector.held.set()
    await room.connector.card(lambda c: "erin approved it" in json.dumps(c))
    assert told(room, message)[before:] == ["bob", "bob dora erin"]


async def test_what_is_decided_while_its_card_is_being_posted_is_shown_decided(room: Room) -> None:
    room.connector.held = asyncio.Event()
    request = await room.ask()
    await room.connector.until(lambda: room.connector.held_up == 1)
    await say(room, request, "bob", VoteVerdict.DENY)
    await heard(room, request)
    room.connector.held.set()
    await room.connector.card(lambda c: "bob denied it" in json.dumps(c))
    assert len(room.connector.cards) == 1


async def test_a_busy_service_is_given_the_time_it_asks_for(room: Room) -> None:
    room.connector.trouble = [(429, "7"), (503, ""), (429, "999999"), (500, "soon")]
    request = await room.ask()
    await room.posted(request)
    asked = [round(seconds) for seconds in room.pauses.asked]
    assert asked[0] == 7 and max(asked) <= LONGEST_WAIT_S and len(asked) >= 4
    assert len(room.connector.cards) == 1


async def test_what_a_busy_service_could_not_take_is_the_newest_state_when_it_can(room: Room) -> None:
    request = await room.ask()
    message, _ = await room.posted(request)
    room.connector.trouble = [(429, "3"), (429, "3")]
    await say(room, request, "bob", VoteVerdict.DENY)
    await room.connector.card(lambda c: "bob denied it" in json.dumps(c))
    assert not list(executes(room.connector.cards[message]))


async def test_a_message_that_can_not_be_sent_is_given_up_and_the_journal_says_so(room: Room) -> None:
    room.connector.down = True
    request = await room.ask()
    await room.until(lambda: given_up(room))
    assert [round(seconds) for seconds in room.pauses.asked[: len(WAITS_S)]] == list(WAITS_S)
    assert (await say(room, request, "bob")).state is State.APPROVED  # the desk does not care

    room.connector.down = False
    again = await room.ask(command=replace(SHELL, text=b"rm -rf /srv/other"))
    await room.posted(again)


async def test_a_refusal_that_will_not_pass_is_not_tried_again(room: Room) -> None:
    room.connector.trouble = [(400, "")]
    await room.ask()
    await room.until(lambda: given_up(room))
    assert room.pauses.asked == [] and room.connector.cards == {}


async def test_a_message_that_was_deleted_in_teams_is_left_alone(room: Room) -> None:
    request = await room.ask(terms=THREE)
    message, _ = await room.posted(request)
    await room.connector.card(lambda c: len(c.get("refresh", {}).get("userIds", ())) == 4)
    room.connector.where[message] = "deleted"
    await say(room, request, "bob")
    await room.until(lambda: settled(room, request, "gone"))
    await say(room, request, "dora")
    other = await room.ask(session="01OTHER", command=replace(SHELL, text=b"rm -rf /srv/other"))
    await room.posted(other)
    assert room.desk.journal_text().count('"what":"message-not-sent"') == 1


@pytest.mark.parametrize("status", [403, 404])
async def test_a_token_service_that_refuses_makes_no_card_gone_and_it_is_brought_true_without_a_restart(
    room: Room, status: int
) -> None:
    request = await room.ask(terms=ReviewTerms(groups=("sre",), expires=7200))
    await room.posted(request)
    await room.connector.card(lambda c: len(c.get("refresh", {}).get("userIds", ())) == 4)
    room.connector.token_status = status
    room.clock.ahead += 4000  # the token has ended
    await say(room, request, "bob", VoteVerdict.DENY)
    await room.until(lambda: given_up(room))
    await room.channel._board.sweep()
    await room.until(lambda: quiet(room))
    assert await settled(room, request, "")
    assert room.desk.journal_text().count('"what":"message-not-sent"') == 1  # said once
    room.connector.token_status = 200
    await room.channel._board.sweep()
    await room.connector.card(lambda c: "bob denied it" in json.dumps(c))
    await room.until(lambda: settled(room, request, "denied"))


async def test_what_was_given_up_is_looked_at_again_every_few_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noticeboard, "SWEEP_S", 0.05)
    async with open_room(tmp_path) as room:
        room.connector.trouble = [(400, "")]
        await room.posted(await room.ask())


async def test_a_token_that_was_taken_back_is_asked_for_anew(room: Room) -> None:
    room.connector.trouble = [(401, "")]
    await room.posted(await room.ask())
    assert room.pauses.asked == []


# -- restarts ----------------------------------------------------------------------------------------------------------------


async def test_what_was_decided_while_we_were_away_is_shown_and_posted_nowhere_again(room: Room) -> None:
    request = await room.ask()
    message, _ = await room.posted(request)
    await room.channel.close()
    await say(room, request, "bob", VoteVerdict.DENY)
    await room.restart()
    updated, _ = await room.connector.card(lambda c: "bob denied it" in json.dumps(c))
    assert updated == message and list(room.connector.cards) == [message]


async def test_what_is_settled_is_not_touched_by_a_restart(room: Room) -> None:
    request = await room.ask()
    await room.posted(request)
    await say(room, request, "bob", VoteVerdict.DENY)
    await room.until(lambda: settled(room, request, "denied"))
    await room.channel.close()
    calls = len(room.connector.calls)
    await room.restart()
    other = await room.ask(command=replace(SHELL, text=b"rm -rf /srv/other"))
    await room.posted(other)
    assert not [
        call for call in room.connector.calls[calls:] if request.id in call.summary or "denied it" in json.dumps(call.card)
    ]


async def test_what_waited_while_teams_was_down_is_posted_after_a_restart_unless_it_was_decided(room: Room) -> None:
    await room.channel.close()
    waiting = await room.ask()
    decided = await room.ask(command=replace(SHELL, text=b"rm -rf /srv/other"))
    await say(room, decided, "bob")
    await room.restart()
    await room.posted(waiting, CONVERSATION)
    assert len(room.connector.cards) == 1


async def test_an_expired_request_says_so_on_its_card(room: Room) -> None:
    request = await room.ask(terms=ReviewTerms(groups=("sre",), expires=60))
    await room.posted(request)
    await room.later(61)
    await room.connector.card(lambda c: "Expired: nobody answered in time" in json.dumps(c))


async def test_a_card_says_that_the_agent_has_left(room: Room) -> None:
    place = await room.desk.inbox.submit(draft(principal=room.desk.agent()))
    await room.posted(place.request)
    await place.give_back()
    _, card = await room.connector.card(lambda c: "The agent has left; it will run this again" in json.dumps(c))
    assert [a["verb"] for a in card["actions"] if "verb" in a] == ["approve", "deny"]
