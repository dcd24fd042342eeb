"""Slack, through its real entries: a signed interaction over HTTP and an envelope over a websocket, the strict gate, the desk.

The Slack beyond is our own (harness/slack.py); signatures, windows and the replay table are on in every test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from harness import analyses
from harness import slack as fake
from harness.desk import Desk, open_desk
from harness.requests import draft
from harness.slack import (
    ALICE,
    APP,
    BOB,
    CHANNEL,
    DAVE,
    ELSEWHERE,
    ESCALATION,
    FOREIGNER,
    GONE,
    GUEST,
    OTHER_TEAM,
    ROBOT,
    SINGLE_GUEST,
    STRANGER,
    TEAM,
    FakeSlack,
    Key,
    buttons_of,
    deliver,
    signed,
    text_of,
)
from harness.trust import TRUST
from harness.webserver import serving
from interlock.approvals.authority import House
from interlock.approvals.channels.courier import Patience
from interlock.approvals.channels.slack.channel import SlackChannel
from interlock.approvals.channels.slack.client import SlackApi
from interlock.approvals.channels.slack.forms import Seal
from interlock.approvals.channels.slack.inbound import MAX_BODY, Expected
from interlock.approvals.channels.slack.linking import LinkCodes
from interlock.approvals.channels.slack.socket import SocketMode
from interlock.approvals.model import ApprovalRequest, Proof, Signed, State, VoteVerdict
from interlock.clock import system_entropy
from interlock.config import Secret
from interlock.errors import StoreError
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import ReviewTerms, StepUp
from interlock.store.messages import MessageRow
from interlock.web import problems
from interlock.web.slack import slack_router

QUICK = Patience(first=0.001, most=0.01)
PUBLIC = "https://interlock.example"


@dataclass
class Room:
    """A desk, its Slack channel, the Slack beyond it, and the node's URL. In socket mode `url` is empty."""

    desk: Desk
    slack: FakeSlack
    channel: SlackChannel
    codes: LinkCodes
    url: str

    async def ask(self, **changes: Any) -> ApprovalRequest:
        return (await self.desk.inbox.submit(draft(principal=self.desk.agent(), **changes))).request

    async def posted(self, request: ApprovalRequest, **where: Any) -> tuple[Key, dict[str, Any]]:
        return await self.slack.message(request.id, **where)

    async def send(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        """Deliver an interaction the way this room does; return what it was acknowledged with, once all of it is done."""
        if self.url:
            answer = await deliver(self.url, *signed(payload))
            assert answer.status_code == 200, answer.text
            got = answer.json() if answer.content else None
        else:
            got = (await self.slack.send(payload)).get("payload")
        await self.channel.settled()
        return got

    async def press(self, request: ApprovalRequest, action: str = "approve", *, user: str = BOB, **changes: Any) -> None:
        key, _ = await self.posted(request)
        await self.send(self.slack.click(key, action, user=user, **changes))

    async def deny(self, request: ApprovalRequest, reason: str = "", *, user: str = BOB) -> None:
        before = len(self.slack.forms)
        await self.press(request, "deny", user=user)
        await self.slack.until(lambda: len(self.slack.forms) > before)
        await self.send(self.slack.submit(self.slack.forms[-1], user=user, values={"reason": reason}))

    async def state(self, request: ApprovalRequest) -> State:
        return (await self.desk.inbox.get(request.id)).state

    async def by_cli(self, request: ApprovalRequest, verdict: VoteVerdict = VoteVerdict.DENY) -> None:
        await self.desk.inbox.vote(
            request.id, voter=self.desk.entry("bob").identity, channel="cli", channel_actor="bob", verdict=verdict,
            digest=request.digest,
        )  # fmt: skip


@contextlib.asynccontextmanager
async def open_room(
    directory: Path, *, socket: bool = False, house: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Room]:
    """`house` are settings of the inbox, `changes` those of the channel."""
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(directory, **(house or {})))
        await desk.directory.add("dave", Kind.HUMAN, groups=["sre"])
        for handle, user in (("bob", BOB), ("alice", ALICE), ("dave", DAVE)):
            await desk.directory.link_slack(handle, TEAM, user)
        slack = await stack.enter_async_context(fake.running())
        api = SlackApi(api_url=f"{slack.url}/api/", bot_token=Secret(fake.BOT_TOKEN), app_token=Secret(fake.APP_TOKEN))
        stack.push_async_callback(api.close)
        expected, codes = Expected(TEAM, APP), LinkCodes(desk.clock, system_entropy)
        parts: dict[str, Any] = {
            "api": api, "expected": expected, "conversation": CHANNEL, "escalation": ESCALATION, "inbox": desk.inbox,
            "directory": desk.directory, "messages": desk.store.messages, "deliveries": desk.store.deliveries,
            "journal": desk.transcripts.journal, "codes": codes, "seal": Seal(Secret(fake.BOT_TOKEN)), "clock": desk.clock,
            "public_url": PUBLIC, "longest_grant": 3600.0, "patience": QUICK, **changes,
        }  # fmt: skip
        channel = SlackChannel(**parts)
        await channel.start()
        stack.push_async_callback(channel.close)
        if socket:
            line = SocketMode(api, channel.accept, app=APP, clock=desk.clock, patience=QUICK)
            line.start()
            stack.push_async_callback(line.close)
            yield Room(desk, slack, channel, codes, "")
            return
        app = FastAPI()
        problems.install(app)
        app.include_router(slack_router(channel, expected, Secret(fake.SIGNING_SECRET), desk.clock))
        url = await stack.enter_async_context(serving(app))
        yield Room(desk, slack, channel, codes, url)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    """HTTP mode."""
    async with open_room(tmp_path) as opened:
        yield opened


@pytest.fixture(params=["http", "socket"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    """Both modes: what an interaction may do does not depend on the way it came."""
    async with open_room(tmp_path, socket=request.param == "socket") as opened:
        yield opened


# -- the conversation that should work -----------------------------------------------------------------------------------


async def test_a_linked_person_approves_and_the_message_says_so(either: Room) -> None:
    request = await either.ask()
    key, message = await either.posted(request)
    assert buttons_of(message) == ["approve", "deny"]

    await either.press(request)

    decided = await either.desk.inbox.get(request.id)
    assert decided.state is State.APPROVED
    (vote,) = decided.votes
    assert (vote.reviewer_handle, vote.channel, vote.channel_actor, vote.proof) == (
        "bob",
        "slack",
        f"{TEAM}/{BOB}",
        Proof.CHANNEL,
    )
    updated, shown = await either.slack.message("bob approved it")
    assert updated == key and "approve" not in buttons_of(shown)


async def test_a_denial_carries_its_reason_to_the_agent(either: Room) -> None:
    request = await either.ask()
    await either.deny(request, "not on a\x1b[2J Friday")
    decided = await either.desk.inbox.get(request.id)
    assert decided.state is State.DENIED
    assert decided.votes[0].reason == "not on a [2J Friday"  # flattened to data, no escape sequence
    await either.slack.message("bob denied it")


async def test_where_a_rule_offers_scopes_a_form_asks_how_far(room: Room) -> None:
    terms = ReviewTerms(groups=("sre",), scopes=("once", "exact"))
    request = await room.ask(terms=terms, decision=replace(draft().decision, review=terms))
    await room.press(request, "choose")
    (form,) = room.slack.forms
    assert "exactly this command" in text_of(form["view"]["blocks"])

    wrong = await room.send(room.slack.submit(form, values={"scope": "exact", "minutes": "61"}))
    assert wrong == {"response_action": "errors", "errors": {"minutes": "Say for how many minutes: 1 to 60."}}
    assert await room.state(request) is State.PENDING
    await room.send(room.slack.submit(form, values={"scope": "exact", "minutes": "30", "reason": "go on"}))

    (vote,) = (await room.desk.inbox.get(request.id)).votes
    assert (vote.scope, vote.reason) == ("exact", "go on")
    assert vote.valid_until is not None and 0 < (vote.valid_until - vote.at).total_seconds() <= 1800


async def test_a_scope_that_the_rule_does_not_offer_is_refused_whatever_the_form_says(room: Room) -> None:
    terms = ReviewTerms(groups=("sre",), scopes=("once", "exact"))
    request = await room.ask(terms=terms, decision=replace(draft().decision, review=terms))
    await room.press(request, "choose")
    await room.send(room.slack.submit(room.slack.forms[0], values={"scope": "rule_in_session", "minutes": "5"}))
    assert await room.state(request) is State.PENDING
    assert "scope" in await room.slack.whisper()


async def test_two_people_make_a_quorum_and_the_message_counts_them(room: Room) -> None:
    terms = ReviewTerms(groups=("sre",), quorum=2)
    request = await room.ask(terms=terms, decision=replace(draft().decision, review=terms))
    await room.press(request)
    await room.slack.message("1 of 2 approvals")
    await room.press(request, user=DAVE)
    assert await room.state(request) is State.APPROVED


async def test_a_later_click_is_told_the_final_state(room: Room) -> None:
    request = await room.ask()
    key, _ = await room.posted(request)
    late = room.slack.click(key, "approve")
    await room.deny(request)
    await room.send(late)
    assert "denied already" in await room.slack.whisper()
    assert await room.state(request) is State.DENIED


async def test_what_was_approved_can_be_denied_before_it_is_used(room: Room) -> None:
    request = await room.ask()
    await room.press(request)
    await room.slack.message("bob approved it")
    await room.deny(request, "wait", user=DAVE)
    assert await room.state(request) is State.REVOKED


async def test_every_message_of_a_request_is_kept_true_also_after_an_escalation(room: Room) -> None:
    terms = ReviewTerms(groups=("sre",), escalate=1)
    request = await room.ask(terms=terms, decision=replace(draft().decision, review=terms))
    await room.posted(request)
    wider, _ = await room.posted(request, conversation=ESCALATION)  # a second later
    key, _ = await room.posted(request)
    await room.send(room.slack.click(wider, "approve"))
    await room.slack.message("bob approved it", conversation=ESCALATION)
    assert (await room.slack.message("bob approved it"))[0] == key
    assert await room.state(request) is State.APPROVED


class AnyKey:
    """Takes every signature: what is tested here is not the proof but how loud it is."""

    def check(self, person: Identity, signed: Signed, statement: bytes) -> Signed:
        return signed


async def test_broken_glass_is_said_aloud_in_every_place_and_once(tmp_path: Path) -> None:
    house = {"house": House(glass=frozenset(("sre",))), "proofs": AnyKey()}
    async with open_room(tmp_path, house=house) as room:
        terms = ReviewTerms(groups=("dba",), step_up=StepUp.PASSKEY)
        request = await room.ask(terms=terms, decision=replace(draft().decision, review=terms))
        await room.posted(request)
        await room.desk.inbox.vote(
            request.id, voter=room.desk.entry("bob").identity, channel="console", channel_actor="bob",
            verdict=VoteVerdict.APPROVE, digest=request.digest, reason="the reviewers do not answer", break_glass=True,
            signed=Signed("webauthn", "key", b"public", b"signature"),
        )  # fmt: skip
        for conversation in (CHANNEL, ESCALATION):
            _, alarm = await room.slack.message("The glass was broken", conversation=conversation)
            assert "rm -rf" not in text_of(alarm["blocks"]) and "approve" not in buttons_of(alarm)
        await room.slack.message("by breaking the glass")
        await room.channel.close()
        await room.channel.start()
        later = await room.ask(command=replace(draft().command, text=b"rm -rf /srv/later"))
        await room.posted(later)
        assert len([m for m in room.slack.messages.values() if "The glass was broken" in text_of(m["blocks"])]) == 2


# -- who may not ---------------------------------------------------------------------------------------------------------


async def at_rest(room: Room) -> None:
    """Wait until the courier has nothing to bring, nothing under way, and nothing to try again."""
    async with asyncio.timeout(30):
        while room.channel._courier._known:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0)


async def refused(room: Room, request: ApprovalRequest, reason: str, told: str = "") -> None:
    """Recorded, told to whoever clicked and nobody else, and still pending."""
    await room.channel.settled()
    assert await room.state(request) is State.PENDING
    assert (await room.desk.inbox.get(request.id)).votes == ()
    assert reason in room.desk.journal_text()
    assert told in await room.slack.whisper()


async def test_the_owner_of_the_agent_is_refused(either: Room) -> None:
    request = await either.ask()
    await either.press(request, user=ALICE)
    await refused(either, request, "self-approval", "can't answer")
    assert either.slack.whispers[0]["user"] == ALICE


async def test_an_unlinked_person_with_a_reviewers_name_is_refused(either: Room) -> None:
    """Same name, same real name, same everything that Slack lets people choose: authority is workspace and id."""
    either.slack.users[STRANGER] |= {
        "name": "bob",
        "real_name": "bob",
        "profile": {**either.slack.users[BOB]["profile"], "email": "bob@x"},
    }
    request = await either.ask()
    key, _ = await either.posted(request)
    await either.send(either.slack.click(key, "approve", user=STRANGER))
    await refused(either, request, "unmapped-actor", "linked to nobody")


@pytest.mark.parametrize("user", [GUEST, SINGLE_GUEST, ROBOT, GONE, FOREIGNER, "USLACKBOT", "U0NOBODY"])
async def test_guests_bots_and_accounts_that_are_gone_are_refused_also_when_linked(room: Room, user: str) -> None:
    await room.desk.directory.unlink_slack("bob", TEAM, BOB)
    await room.desk.directory.link_slack("bob", TEAM, user)
    request = await room.ask()
    await room.press(request, user=user)
    await refused(room, request, "unmapped-actor")


async def test_who_is_a_guest_is_looked_up_at_the_moment_of_the_answer(room: Room) -> None:
    terms = ReviewTerms(groups=("sre",), quorum=2)
    request = await room.ask(terms=terms, decision=replace(draft().decision, review=terms))
    await room.press(request, user=DAVE)
    room.slack.users[BOB]["is_restricted"] = True
    await room.press(request)
    assert await room.state(request) is State.PENDING
    assert "full member" in await room.slack.whisper()


@pytest.mark.parametrize("how", [{"status": 503}, {"status": 429, "retry_after": 30}, {"error": "internal_error"}])
async def test_whom_slack_does_not_confirm_because_it_is_down_is_refused(room: Room, how: dict[str, Any]) -> None:
    request = await room.ask()
    room.slack.fail("users.info", **how)
    await room.press(request)
    await refused(room, request, "target-unreachable", "Press again")


async def test_a_disabled_reviewer_and_one_who_left_the_group_are_refused(room: Room) -> None:
    request = await room.ask()
    await room.posted(request)
    await room.desk.directory.set_disabled("bob", True)
    await room.press(request)
    await refused(room, request, "disabled-principal")
    await room.desk.directory.set_groups("dave", [])
    await room.press(request, user=DAVE)
    assert "none of the groups" in await room.slack.whisper(2)
    assert await room.state(request) is State.PENDING


async def test_a_link_that_was_taken_back_gives_nothing_any_more(room: Room) -> None:
    request = await room.ask()
    await room.desk.directory.unlink_slack("bob", TEAM, BOB)
    await room.press(request)
    await refused(room, request, "unmapped-actor")


# -- what may not count -----------------------------------------------------------------------------------------------------


async def test_a_wrong_nonce_is_refused(either: Room) -> None:
    request = await either.ask()
    key, _ = await either.posted(request)
    payload = either.slack.click(key, "approve")
    payload["actions"][0]["value"] = f"{request.id} {'0' * 32}"
    await either.send(payload)
    await refused(either, request, "delivery-rejected")


@pytest.mark.parametrize("value", ["", " ", "req_nobody x", "x" * 1999, "../etc", None])
async def test_a_button_that_names_no_request_is_refused(room: Room, value: str | None) -> None:
    request = await room.ask()
    key, _ = await room.posted(request)
    payload = room.slack.click(key, "approve")
    payload["actions"][0]["value"] = value
    await room.send(payload)
    await refused(room, request, "delivery-rejected")


async def test_a_captured_button_in_another_requests_message_is_refused(room: Room) -> None:
    first = await room.ask()
    second = await room.ask(command=replace(draft().command, text=b"rm -rf /srv/second"))
    _, _message = await room.posted(first)
    other, _ = await room.posted(second)
    payload = room.slack.click(other, "approve")
    payload["actions"][0]["value"] = f"{first.id} {first.nonce}"
    await room.send(payload)
    await refused(room, first, "delivery-rejected")
    assert await room.state(second) is State.PENDING


@pytest.mark.parametrize("where", [(ELSEWHERE, None), (CHANNEL, "1700000000.999999"), (ELSEWHERE, "1700000000.999999")])
async def test_a_message_forwarded_elsewhere_is_refused_and_alerted(
    either: Room, where: tuple[str, str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The right id, the right nonce, a real reviewer: but not the message that we posted."""
    request = await either.ask()
    key, message = await either.posted(request)
    copy = (where[0], where[1] or key[1])
    either.slack.messages[copy] = message
    await either.send(either.slack.click(copy, "approve"))
    await refused(either, request, "delivery-rejected", "another place")
    assert "slack.forwarded_message" in capsys.readouterr().out
    assert "channel.alert" in either.desk.journal_text()


async def test_a_message_in_an_attachment_or_whose_parts_disagree_is_refused(room: Room) -> None:
    request = await room.ask()
    key, _message = await room.posted(request)
    for bent in (
        {"container": {"type": "message_attachment", "message_ts": key[1], "channel_id": CHANNEL}},
        {"channel": {"id": ELSEWHERE}},
        {"message": {"ts": "1700000000.999999", "blocks": []}},
        {"actions": []},
        {"actions": [{}, {}]},
        {"actions": [7]},
        {"container": None},
    ):
        await gate_refuses(room, request, room.slack.click(key, "approve", **bent))


async def test_an_action_the_message_never_had_is_refused(room: Room) -> None:
    request = await room.ask()
    key, _ = await room.posted(request)
    payload = room.slack.click(key, "approve")
    payload["actions"][0]["action_id"] = "approve_all"
    await room.send(payload)
    await refused(room, request, "delivery-rejected")


@pytest.mark.parametrize(
    "terms", [ReviewTerms(groups=("sre",), step_up=StepUp.PASSKEY), ReviewTerms(groups=("sre",), step_up=StepUp.REAUTH)]
)
async def test_a_rule_that_asks_for_more_than_a_click_offers_none_and_a_forged_click_is_refused(
    room: Room, terms: ReviewTerms
) -> None:
    request = await room.ask(terms=terms, decision=replace(draft().decision, review=terms))
    key, message = await room.posted(request)
    assert buttons_of(message) == ["deny"]
    for action in ("approve", "choose"):
        payload = room.slack.click(key, "deny")
        payload["actions"][0]["action_id"] = action
        await room.send(payload)
    await refused(room, request, "step-up-too-weak")


async def test_what_is_too_long_to_show_has_no_approve_button_and_a_forged_click_is_refused(room: Room) -> None:
    request = await room.ask(command=replace(draft().command, text=b"\n".join(b"echo %d" % n for n in range(400))))
    key, message = await room.posted(request)
    assert buttons_of(message) == ["deny"]
    payload = room.slack.click(key, "deny")
    payload["actions"][0]["action_id"] = "approve"
    await room.send(payload)
    await refused(room, request, "step-up-too-weak")


async def test_a_form_belongs_to_whoever_opened_it(room: Room) -> None:
    request = await room.ask()
    await room.press(request, "deny", user=DAVE)
    await room.send(room.slack.submit(room.slack.forms[0], user=BOB))
    assert await room.state(request) is State.PENDING
    assert "delivery-rejected" in room.desk.journal_text()


async def test_metadata_that_is_not_ours_is_not_believed(room: Room) -> None:
    """Changed by one character, made up, of another form, or of a request that it was not opened for."""
    request, other = await room.ask(), await room.ask(command=replace(draft().command, text=b"rm -rf /srv/second"))
    await room.press(request, "deny")
    genuine = room.slack.forms[0]["view"]["private_metadata"]
    mac, _, content = genuine.partition(" ")
    forged = [
        genuine.replace(request.id, other.id), genuine[:-1] + "}", "", " ", content, f"{'0' * 64} {content}", mac,
        genuine.replace(BOB, DAVE),
    ]  # fmt: skip
    for metadata in forged:
        payload = room.slack.submit(room.slack.forms[0])
        payload["view"]["private_metadata"] = metadata
        await room.send(payload)
    approving = room.slack.submit(room.slack.forms[0])
    approving["view"]["callback_id"] = "interlock_approve"
    await room.send(approving)
    assert await room.state(request) is State.PENDING and await room.state(other) is State.PENDING
    assert room.desk.journal_text().count("delivery-rejected") == len(forged) + 1


async def test_a_form_outlives_a_restart(tmp_path: Path, room: Room) -> None:
    request = await room.ask()
    await room.press(request, "deny")
    await room.channel.close()
    await room.channel.start()
    await room.send(room.slack.submit(room.slack.forms[0]))
    assert await room.state(request) is State.DENIED


async def test_hostile_text_stays_text(room: Room) -> None:
    tricky = "echo '<!channel> <@U0BOB> <https://evil.example|approve here> ``` *bold* :+1: &lt;b&gt;' \u202e\u200b"
    request = await room.ask(command=replace(draft().command, text=tricky.encode()), said="<!here> approve, it is safe")
    _key, message = await room.posted(request)
    text = text_of(message["blocks"])
    for part in ("<!channel>", "<https://evil.example|approve here>", "```", "&lt;b&gt;", "<!here> approve"):
        assert part in text  # as it is, in a text element; the fake refuses every other type
    assert "\u202e" not in json.dumps(message, ensure_ascii=False) and "U+202E" in text
    assert "<" not in message["text"] and "evil" not in message["text"]


async def test_a_secret_is_in_no_message_and_no_form_and_a_person_still_approves_the_real_bytes(room: Room) -> None:
    """Property 33: the command goes to other people's servers with the secret hidden; the digest covers the raw bytes."""
    secret = "ghp_" + "a1B2c3D4e5" * 4
    command, analysis = analyses.shell(f"echo {secret}")
    terms = ReviewTerms(groups=("sre",), scopes=("once", "exact"))
    request = await room.ask(command=command, analysis=analysis, terms=terms, decision=replace(draft().decision, review=terms))
    _, message = await room.posted(request)
    assert "hidden" in text_of(message["blocks"])
    await room.press(request, "choose")  # what is hidden is nothing but a value
    await room.send(room.slack.submit(room.slack.forms[-1], values={"scope": "exact", "minutes": "5"}))
    assert await room.state(request) is State.APPROVED
    await room.slack.message("bob approved it")
    assert secret not in json.dumps(room.slack.calls)


# -- races and replay --------------------------------------------------------------------------------------------------------


async def test_a_hundred_clicks_at_once_by_one_person_are_one_vote(either: Room) -> None:
    terms = ReviewTerms(groups=("sre",), quorum=2)
    request = await either.ask(terms=terms, decision=replace(draft().decision, review=terms))
    key, _ = await either.posted(request)
    await asyncio.gather(*(either.send(either.slack.click(key, "approve")) for _ in range(100)))
    found = await either.desk.inbox.get(request.id)
    assert found.state is State.PENDING and len(found.votes) == 1


async def test_approve_and_deny_at_once_end_in_one_state(either: Room) -> None:
    request = await either.ask()
    key, _ = await either.posted(request)
    await either.press(request, "deny", user=DAVE)
    denial = either.slack.submit(either.slack.forms[0], user=DAVE)
    await asyncio.gather(either.send(either.slack.click(key, "approve")), either.send(denial))
    found = await either.desk.inbox.get(request.id)
    assert found.state in (State.DENIED, State.REVOKED)  # deny wins, whichever came first
    final = "Denied" if found.state is State.DENIED else "Revoked"
    await either.slack.message(final)


async def test_the_same_delivery_twice_over_http_is_refused_inside_its_window(room: Room) -> None:
    request = await room.ask()
    key, _ = await room.posted(request)
    delivery = signed(room.slack.click(key, "approve"))
    answers = await asyncio.gather(*(deliver(room.url, *delivery) for _ in range(10)))
    assert sorted(a.status_code for a in answers) == [200] + [401] * 9
    assert {a.json()["reason"] for a in answers if a.status_code == 401} == {"delivery-rejected"}
    await room.channel.settled()
    assert len((await room.desk.inbox.get(request.id)).votes) == 1


async def test_a_replay_after_a_restart_is_refused_too(tmp_path: Path) -> None:
    first_life, second_life = tmp_path / "a", tmp_path / "b"
    first_life.mkdir()
    second_life.mkdir()
    async with open_room(first_life) as room:
        request = await room.ask()
        key, _ = await room.posted(request)
        delivery = signed(room.slack.click(key, "deny"))
        assert (await deliver(room.url, *delivery)).status_code == 200
        await room.channel.close()  # another process has nothing but the store
        await room.channel.start()
        assert (await deliver(room.url, *delivery)).status_code == 401


async def test_the_same_interaction_signed_anew_counts_once(room: Room) -> None:
    """Slack's own retry: another moment, another signature, the same trigger."""
    request = await room.ask()
    key, _ = await room.posted(request)
    payload = room.slack.click(key, "deny")
    assert (await deliver(room.url, *signed(payload))).status_code == 200
    later = datetime.now(UTC).timestamp() + 3  # noqa: TID251  Slack has its own clock
    assert (await deliver(room.url, *signed(payload, at=later))).status_code == 401
    await room.channel.settled()
    assert len(room.slack.forms) == 1


async def test_an_envelope_twice_over_sockets_counts_once(tmp_path: Path) -> None:
    async with open_room(tmp_path, socket=True) as room:
        request = await room.ask()
        key, _ = await room.posted(request)
        payload = room.slack.click(key, "deny")
        for _ in range(3):  # acknowledged each time, for Slack would go on sending it
            assert await room.slack.send(payload, envelope="e1") == {"envelope_id": "e1"}
        await room.slack.drop()
        await room.slack.send(payload, envelope="e2")  # after a lost acknowledgement: another envelope, the same trigger
        await room.channel.settled()
        assert len(room.slack.forms) == 1


async def test_an_envelope_is_acknowledged_before_slow_work(tmp_path: Path) -> None:
    async with open_room(tmp_path, socket=True) as room:
        request = await room.ask()
        key, _ = await room.posted(request)
        gate = room.slack.hold("users.info")
        assert await room.slack.send(room.slack.click(key, "approve"))
        assert await room.state(request) is State.PENDING
        gate.set()
        await room.channel.settled()
        assert await room.state(request) is State.APPROVED


async def test_a_delivery_is_acknowledged_before_slow_work(room: Room) -> None:
    request = await room.ask()
    key, _ = await room.posted(request)
    gate = room.slack.hold("users.info")
    assert (await deliver(room.url, *signed(room.slack.click(key, "approve")))).status_code == 200
    assert await room.state(request) is State.PENDING
    gate.set()
    await room.channel.settled()
    assert await room.state(request) is State.APPROVED


# -- messages are kept true ------------------------------------------------------------------------------------------------


async def test_a_restart_updates_the_message_and_posts_no_second_one(room: Room) -> None:
    request, waiting = await room.ask(), await room.ask(command=replace(draft().command, text=b"rm -rf /srv/other"))
    await room.posted(request)
    await room.posted(waiting)
    await room.channel.close()
    await room.by_cli(request)
    unseen = await room.ask(command=replace(draft().command, text=b"rm -rf /srv/unseen"))
    await room.by_cli(unseen)  # asked and decided while nobody looked: never posted
    await room.channel.start()
    await room.slack.message("bob denied it")
    later = await room.ask(command=replace(draft().command, text=b"rm -rf /srv/later"))
    await room.posted(later)
    await at_rest(room)  # several are brought at once: what is not to be posted might come last
    assert len(room.slack.messages) == 3 and unseen.id not in json.dumps(list(room.slack.messages.values()))


async def test_a_store_that_takes_no_writes_makes_no_second_message(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, tries = room.desk.store.messages.remember, 0

    async def full(row: MessageRow) -> None:
        nonlocal tries
        tries += 1
        if tries < 6:
            raise StoreError("the disk is full")
        await genuine(row)

    monkeypatch.setattr(room.desk.store.messages, "remember", full)
    request = await room.ask()
    await room.slack.until(lambda: "chat.update" in [method for method, _ in room.slack.calls])
    assert len(room.slack.messages) == 1 and tries == 6
    await room.press(request)
    assert await room.state(request) is State.APPROVED


async def test_who_keeps_clicking_is_not_looked_at_for_a_while(either: Room, capsys: pytest.CaptureFixture[str]) -> None:
    request = await either.ask()
    key, _ = await either.posted(request)
    for _ in range(60):
        await either.send(either.slack.click(key, "approve", user=STRANGER))
    asked = [method for method, _ in either.slack.calls if method in ("users.info", "chat.postEphemeral")]
    assert 40 <= len(asked) <= 60
    assert either.desk.journal_text().count("unmapped-actor") <= 30
    assert "slack.throttled" in capsys.readouterr().out
    await either.press(request)  # somebody else is not held off
    assert await either.state(request) is State.APPROVED


async def test_updates_are_tried_again_when_slack_is_busy_or_broken(room: Room) -> None:
    request = await room.ask()
    await room.posted(request)
    room.slack.fail("chat.update", status=429, retry_after=0)
    room.slack.fail("chat.update", status=500)
    room.slack.fail("chat.update", error="internal_error")
    await room.by_cli(request)
    await room.slack.message("bob denied it")


async def test_slack_being_down_does_not_hold_up_the_desk_and_is_caught_up_with(room: Room) -> None:
    for _ in range(3):
        room.slack.fail("chat.postMessage", status=503)
    gate = room.slack.hold("auth.test")
    request, other = await room.ask(), await room.ask(command=replace(draft().command, text=b"rm -rf /srv/other"))
    await room.by_cli(request, VoteVerdict.APPROVE)
    assert await room.state(request) is State.APPROVED
    gate.set()
    await room.posted(other)
    assert request.id not in json.dumps(list(room.slack.messages.values()))  # decided before Slack came back


async def test_a_conversation_that_is_gone_does_not_keep_the_other_from_being_true(tmp_path: Path) -> None:
    async with open_room(tmp_path, conversation="C0MISSING") as room:
        terms = ReviewTerms(groups=("sre",), escalate=1)
        request = await room.ask(terms=terms, decision=replace(draft().decision, review=terms))
        await room.posted(request, conversation=ESCALATION)
        await room.by_cli(request)
        await room.slack.message("bob denied it", conversation=ESCALATION)


async def test_nothing_is_posted_with_a_token_of_another_workspace(room: Room) -> None:
    room.slack.team = OTHER_TEAM
    await room.ask()
    await room.slack.until(lambda: "auth.test" in [method for method, _ in room.slack.calls])
    room.slack.team = TEAM
    request = await room.ask(command=replace(draft().command, text=b"rm -rf /srv/other"))
    await room.posted(request)
    assert len(room.slack.messages) == 1


async def test_a_form_that_can_not_be_opened_is_said(room: Room) -> None:
    request = await room.ask()
    room.slack.fail("views.open", error="expired_trigger_id")
    await room.press(request, "deny")
    assert "Press the button again" in await room.slack.whisper()


# -- the strict gate, line by line ---------------------------------------------------------------------------------------------


async def gate_refuses(room: Room, request: ApprovalRequest, payload: Any, **bend: Any) -> None:
    body, headers = signed(payload, **bend)
    answer = await deliver(room.url, body, {k: v for k, v in headers.items() if v != "(drop)"})
    assert answer.status_code == 401 and answer.json()["reason"] == "delivery-rejected", answer.text
    await room.channel.settled()
    assert await room.state(request) is State.PENDING
    assert fake.SIGNING_SECRET not in answer.text


BENT: dict[str, dict[str, Any]] = {
    "another secret": {"secret": "another-secret"},
    "six minutes old": {"at": -360},
    "six minutes ahead": {"at": 360},
    "no signature": {"headers": {"X-Slack-Signature": "(drop)"}},
    "an empty signature": {"headers": {"X-Slack-Signature": ""}},
    "a signature of another version": {"headers": {"X-Slack-Signature": "v1=" + "0" * 64}},
    "no timestamp": {"headers": {"X-Slack-Request-Timestamp": "(drop)"}},
    "another timestamp than was signed": {"headers": {"X-Slack-Request-Timestamp": "1"}},
    "a timestamp that is no number": {"headers": {"X-Slack-Request-Timestamp": "-1e3"}},
    "a timestamp beyond all bounds": {"headers": {"X-Slack-Request-Timestamp": "9" * 400}},
    "another content type": {"headers": {"Content-Type": "application/json"}},
    "no content type": {"headers": {"Content-Type": "(drop)"}},
}


@pytest.mark.parametrize("why", BENT)
async def test_a_delivery_that_is_bent_in_one_place_is_refused(room: Room, why: str) -> None:
    request = await room.ask()
    key, _ = await room.posted(request)
    bend = dict(BENT[why])
    if "at" in bend:
        bend["at"] += datetime.now(UTC).timestamp()  # noqa: TID251  Slack has its own clock
    await gate_refuses(room, request, room.slack.click(key, "approve"), **bend)


@pytest.mark.parametrize("why", [why for why in BENT if "content type" not in why and why != "another secret"])
async def test_what_can_not_be_genuine_is_refused_before_its_body_is_there(room: Room, why: str) -> None:
    """A head alone, whose body never comes: who can't sign makes us hold nothing."""
    bend = dict(BENT[why])
    if "at" in bend:
        bend["at"] += datetime.now(UTC).timestamp()  # noqa: TID251  Slack has its own clock
    _, headers = signed(b"payload=%7B%7D", **bend)
    head = "".join(f"{k}: {v}\r\n" for k, v in headers.items() if v != "(drop)")
    host, _, port = room.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /slack/interactions HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n{head}\r\n".encode())
    try:
        async with asyncio.timeout(30):
            assert b" 401 " in await reader.readline()
    finally:
        writer.close()


async def test_a_wrong_signing_secret_is_seen_in_the_log(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        await deliver(room.url, *signed(b"payload=%7B%7D", secret="another"))
    said = capsys.readouterr().out
    assert said.count("slack.delivery_refused") == 3 and "delivery-rejected" in said


async def test_one_byte_changed_in_a_signed_body_is_refused(room: Room) -> None:
    """The forged actor: a genuine delivery of somebody else with the user id replaced."""
    request = await room.ask()
    key, _ = await room.posted(request)
    body, headers = signed(room.slack.click(key, "approve", user=STRANGER))
    forged = body.replace(STRANGER.encode(), BOB.encode())
    assert forged != body
    assert (await deliver(room.url, forged, headers)).status_code == 401
    assert await room.state(request) is State.PENDING


FOREIGN: dict[str, Callable[[dict[str, Any]], None]] = {
    "another workspace": lambda p: p.update(team={"id": OTHER_TEAM}),
    "no workspace": lambda p: p.update(team=None),
    "an organisation's install without a workspace": lambda p: p.update(
        team=None, enterprise={"id": "E0"}, is_enterprise_install=True
    ),
    "another app": lambda p: p.update(api_app_id="A0OTHER"),
    "no app": lambda p: p.pop("api_app_id"),
    "a user of another workspace": lambda p: p["user"].update(team_id=OTHER_TEAM),
    "no user": lambda p: p.update(user=None),
    "a user id that is none": lambda p: p["user"].update(id="bob"),
    "a user id in a list": lambda p: p["user"].update(id=[BOB]),
    "a trigger beyond all bounds": lambda p: p.update(trigger_id="x" * 5_000),
}


@pytest.mark.parametrize("why", FOREIGN)
async def test_a_signed_payload_of_somebody_else_is_refused(room: Room, why: str) -> None:
    request = await room.ask()
    key, _ = await room.posted(request)
    payload = room.slack.click(key, "approve")
    FOREIGN[why](payload)
    await gate_refuses(room, request, payload)


@pytest.mark.parametrize("why", FOREIGN)
async def test_an_envelope_of_somebody_else_is_acknowledged_and_does_nothing(tmp_path: Path, why: str) -> None:
    async with open_room(tmp_path, socket=True) as room:
        request = await room.ask()
        key, _ = await room.posted(request)
        payload = room.slack.click(key, "approve")
        FOREIGN[why](payload)
        await room.send(payload)
        assert await room.state(request) is State.PENDING


async def test_bodies_that_are_too_large_or_no_interaction_are_refused(room: Room) -> None:
    request = await room.ask()
    for body in (
        b"", b"payload=", b"payload={", b"payload=[]", b"payload=null", b"payload=7", b"payload=%5B" + b"%5B" * 50_000,
        b"other=%7B%7D", b"payload=%7B%7D&payload=%7B%7D", b"\xff\xfe", b"payload=" + b"x" * MAX_BODY,
    ):  # fmt: skip
        await gate_refuses(room, request, body)


async def test_kinds_that_we_take_no_notice_of_are_acknowledged(room: Room) -> None:
    request = await room.ask()
    key, _ = await room.posted(request)
    for kind in ("shortcut", "message_action", "view_closed", "block_suggestion"):
        payload = room.slack.click(key, "approve")
        payload["type"] = kind
        assert await room.send(payload) is None
    chosen = room.slack.click(key, "approve", container={"type": "view", "view_id": "V1"})
    assert await room.send(chosen) is None
    assert await room.state(request) is State.PENDING and room.slack.whispers == []


async def test_a_get_decides_nothing(room: Room) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http:
        assert (await http.get(f"{room.url}/slack/interactions")).status_code == 405


# -- linking -----------------------------------------------------------------------------------------------------------------


async def test_an_unlinked_member_is_offered_a_link_for_their_own_account_only(either: Room) -> None:
    request = await either.ask()
    await either.press(request, user=STRANGER)
    assert "Link my account" in await either.slack.whisper()
    await either.send(either.slack.press_whisper(1, user=STRANGER))
    told = either.slack.whispers[1]
    assert told["user"] == STRANGER  # nobody else sees the code
    (button,) = [b for block in told["blocks"] for b in block.get("elements", []) if b["type"] == "button"]
    code = button["url"].removeprefix(f"{PUBLIC}/console/link/slack/")
    claim = either.codes.look(code)
    assert claim is not None and str(claim.actor) == f"{TEAM}/{STRANGER}"
    assert code not in either.desk.journal_text()


@pytest.mark.parametrize("user", [GUEST, ROBOT, GONE, FOREIGNER])
async def test_guests_and_bots_get_no_code(room: Room, user: str) -> None:
    request = await room.ask()
    await room.press(request, user=STRANGER)
    await room.send(room.slack.press_whisper(1, user=user))
    assert "full member" in await room.slack.whisper(2)
    assert "http" not in json.dumps(room.slack.whispers[1])


async def test_who_is_linked_already_is_told_so(room: Room) -> None:
    request = await room.ask()
    await room.press(request, user=STRANGER)
    await room.send(room.slack.press_whisper(1, user=BOB))
    assert "linked to bob already" in await room.slack.whisper(2)
