"""Teams, through its real entry: a signed activity over HTTP, our strict gate, the desk, the card.

The connector is our own, with its own key set; validation is on in every test.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from harness import bot_connector
from harness.bot_connector import APP_ID, CONVERSATION, TENANT, BotConnector, deliver
from harness.requests import draft
from harness.teams_room import Room, open_room
from harness.trust import TRUST
from interlock.approvals.channels.teams.inbound import Expected, service_allowed
from interlock.approvals.model import ApprovalRequest, Proof, State, VoteVerdict
from interlock.errors import SENTENCES, Reason
from interlock.policy.model import ReviewTerms, StepUp


@pytest.fixture(params=["native", "botbuilder"])
async def room(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Room]:
    async with open_room(tmp_path, request.param) as room:
        yield room


# -- the conversation that should work -----------------------------------------------------------------------------------


async def test_a_mapped_person_approves_and_the_card_says_so(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    assert [a["verb"] for a in card["actions"] if "verb" in a] == ["approve", "deny"]

    answer = await room.press(request, "approve")

    assert answer["statusCode"] == 200 and "Approved" in json.dumps(answer["value"])
    decided = await room.desk.inbox.get(request.id)
    assert decided.state is State.APPROVED
    (vote,) = decided.votes
    assert (vote.reviewer_handle, vote.channel, vote.proof) == ("bob", "teams", Proof.CHANNEL)
    assert vote.channel_actor == f"{TENANT}/{bot_connector.BOB_OID}"
    updated, shown = await room.connector.card(lambda c: "Approved" in json.dumps(c))
    assert updated == message and [a["title"] for a in shown["actions"] if "verb" in a] == ["Take back"]


async def test_a_denial_carries_its_reason_to_the_agent(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    activity = room.connector.invoke(card, message, "deny")
    activity["value"]["action"]["data"]["reason"] = "not on a\x1b[2J Friday"

    await deliver(room.url, activity, room.connector.token())

    decided = await room.desk.inbox.get(request.id)
    assert decided.state is State.DENIED
    assert decided.votes[0].reason == "not on a [2J Friday"  # flattened to data, no escape sequence


async def test_a_later_click_is_told_the_final_state(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    late = room.connector.invoke(card, message, "approve", user="29:bob")
    await room.press(request, "deny")

    answer = (await deliver(room.url, late, room.connector.token())).json()

    assert answer["statusCode"] == 200 and "Denied" in json.dumps(answer["value"])
    assert await room.state(request) is State.DENIED


async def test_a_restart_updates_the_card_and_posts_no_second_one(room: Room) -> None:
    request = await room.ask()
    await room.posted(request)
    await room.channel.close()
    await room.desk.inbox.vote(
        request.id, voter=room.desk.entry("bob").identity, channel="cli", channel_actor="bob",
        verdict=VoteVerdict.DENY, digest=request.digest,
    )  # fmt: skip
    await room.channel.start()  # nothing pending: nothing is posted
    again = await room.ask(session="01OTHER", command=replace(draft().command, text=b"rm -rf /srv/other"))
    await room.posted(again)
    assert len(room.connector.cards) == 2


# -- who may not ---------------------------------------------------------------------------------------------------------


async def refused(room: Room, request: ApprovalRequest, answer: dict[str, Any], reason: str) -> None:
    if answer["type"] == "application/vnd.microsoft.error":
        assert answer["value"]["code"] == reason
    else:
        # Whoever we know is told in place of the card, and gets no button that would be refused again.
        assert SENTENCES[Reason(reason)] in json.dumps(answer, ensure_ascii=False) or "did not count" in json.dumps(answer)
    assert await room.state(request) is State.PENDING
    assert f'"reason":"{reason}"' in room.desk.journal_text()


async def test_the_owner_of_the_agent_is_refused(room: Room) -> None:
    request = await room.ask()
    await refused(room, request, await room.press(request, "approve", user="29:alice"), "self-approval")


async def test_an_unmapped_person_with_a_reviewers_name_is_refused(room: Room) -> None:
    request = await room.ask()
    await refused(room, request, await room.press(request, "approve", user="29:stranger"), "unmapped-actor")


async def test_a_guest_is_refused(room: Room) -> None:
    request = await room.ask()
    await refused(room, request, await room.press(request, "approve", user="29:guest"), "unmapped-actor")


async def test_an_object_id_the_service_does_not_confirm_is_refused(room: Room) -> None:
    """The activity says Bob's object id, the members API says who the sender really is."""
    request = await room.ask()
    forged = {"id": "29:stranger", "aadObjectId": bot_connector.BOB_OID, "name": "Bob Approver"}
    answer = await room.press(request, "approve", **{"from": forged})
    await refused(room, request, answer, "unmapped-actor")


async def test_a_disabled_reviewer_is_refused(room: Room) -> None:
    request = await room.ask()
    await room.posted(request)
    await room.desk.directory.set_disabled("bob", True)
    await refused(room, request, await room.press(request, "approve"), "disabled-principal")


# -- what may not count -----------------------------------------------------------------------------------------------------


async def test_a_wrong_nonce_is_refused(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    activity = room.connector.invoke(card, message, "approve")
    activity["value"]["action"]["data"] = {"request": request.id, "nonce": "0" * 32}
    answer = (await deliver(room.url, activity, room.connector.token())).json()
    await refused(room, request, answer, "delivery-rejected")


async def test_a_captured_invoke_for_another_request_is_refused(room: Room) -> None:
    """Id of one request, nonce and message of another: nothing is decided for either."""
    first = await room.ask()
    second = await room.ask(command=replace(draft().command, text=b"rm -rf /srv/second"))
    message, card = await room.posted(first)
    activity = room.connector.invoke(card, message, "approve")
    activity["value"]["action"]["data"]["request"] = second.id
    answer = (await deliver(room.url, activity, room.connector.token())).json()
    await refused(room, second, answer, "delivery-rejected")
    assert await room.state(first) is State.PENDING


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"conversation": {"id": "19:elsewhere@thread.tacv2", "tenantId": TENANT}},
        {"replyToId": "m999"},
        {"replyToId": None},
    ],
)
async def test_a_card_forwarded_elsewhere_is_refused(room: Room, elsewhere: dict[str, Any]) -> None:
    request = await room.ask()
    answer = await room.press(request, "approve", **elsewhere)
    await refused(room, request, answer, "delivery-rejected")


async def test_the_same_delivery_twice_is_one_vote(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    activity, token = room.connector.invoke(card, message, "approve"), room.connector.token()
    await asyncio.gather(*(deliver(room.url, activity, token) for _ in range(10)))
    decided = await room.desk.inbox.get(request.id)
    assert decided.state is State.APPROVED and len(decided.votes) == 1


async def test_a_verb_the_card_never_had_is_refused(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    activity = room.connector.invoke(card, message, "approve")
    activity["value"]["action"]["verb"] = "approve_all"
    answer = (await deliver(room.url, activity, room.connector.token())).json()
    await refused(room, request, answer, "delivery-rejected")


async def test_what_is_too_long_to_show_has_no_approve_button_and_a_forged_click_is_refused(room: Room) -> None:
    long = replace(draft().command, text=b"\n".join(b"echo %d" % n for n in range(400)))
    request = await room.ask(command=long)
    message, card = await room.posted(request)
    assert [a["verb"] for a in card["actions"] if "verb" in a] == ["deny"]
    activity = room.connector.invoke(card, message, "deny")
    activity["value"]["action"]["verb"] = "approve"
    answer = (await deliver(room.url, activity, room.connector.token())).json()
    await refused(room, request, answer, "step-up-too-weak")


async def test_a_critical_rule_offers_no_approve_button_in_chat(room: Room) -> None:
    terms = ReviewTerms(groups=("sre",), step_up=StepUp.PASSKEY)
    request = await room.ask(terms=terms, decision=replace(draft().decision, review=terms))
    _, card = await room.posted(request)
    assert [a["verb"] for a in card["actions"] if "verb" in a] == ["deny"]


async def test_card_text_is_never_markdown(room: Room) -> None:
    """Only TextRuns: Teams renders Markdown in TextBlocks and FactSets, and a command is data."""
    tricky = replace(draft().command, text=b"echo [click me](https://evil.example) **bold** <at>Bob</at>")
    request = await room.ask(command=tricky)
    _, card = await room.posted(request)
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    assert "[click me](https://evil.example)" in json.dumps(card)


async def test_the_card_makes_invisible_characters_visible(room: Room) -> None:
    hidden = replace(draft().command, text="echo safe\u202e; rm -rf /".encode())
    request = await room.ask(command=hidden)
    _, card = await room.posted(request)
    text = json.dumps(card, ensure_ascii=False)
    assert "\u202e" not in text and "202e" in text.lower()


async def test_a_connector_that_is_down_does_not_hold_up_the_desk(room: Room) -> None:
    room.connector.down = True
    request = await room.ask()
    decided = await room.desk.inbox.vote(
        request.id, voter=room.desk.entry("bob").identity, channel="cli", channel_actor="bob",
        verdict=VoteVerdict.APPROVE, digest=request.digest,
    )  # fmt: skip
    assert decided.state is State.APPROVED


# -- the strict gate, line by line ---------------------------------------------------------------------------------------------


def _now() -> int:
    return int(time.time())  # noqa: TID251  the forged service has a clock of its own


FORGED: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.example"},
    "another audience": {"aud": "22222222-1111-1111-1111-111111111111"},
    "a list of audiences": {"aud": [APP_ID, "other"]},
    "expired": {"exp": -400, "relative": True},
    "not yet valid": {"nbf": 400, "relative": True},
    "issued in the future": {"iat": 400, "relative": True},
    "lives for two days": {"exp": 2 * 86400, "relative": True},
    "another service url": {"serviceurl": "http://127.0.0.1:1"},
    "ends at no time": {"exp": float("nan")},
    "never ends": {"exp": float("inf")},
    "begins at no time": {"nbf": float("nan")},
    "a stamp that is no number": {"exp": "tomorrow"},
    "a stamp that is no stamp": {"nbf": True},
    "an end that never comes": {"exp": float("inf")},
    "an end beyond all time": {"exp": 10**400},
    "an end that is not a number": {"exp": float("nan")},
    "no exp": {"drop": ("exp",)},
    "no issuer": {"drop": ("iss",)},
    "no audience": {"drop": ("aud",)},
    "no service url": {"drop": ("serviceurl",)},
    "no iat and no nbf": {"drop": ("iat", "nbf")},
}


@pytest.mark.parametrize("why", FORGED)
async def test_a_token_that_is_bent_in_one_place_is_refused(room: Room, why: str) -> None:
    bent = dict(FORGED[why])
    drop = bent.pop("drop", ())
    if bent.pop("relative", False):
        bent = {name: _now() + seconds for name, seconds in bent.items()}
    await gate_refuses(room, room.connector.token(drop=drop, **bent))


async def test_no_token_no_bearer_and_garbage_are_refused(room: Room) -> None:
    for token in (None, "garbage", "a.b.c", "x" * 20_000):
        await gate_refuses(room, token)


async def test_algorithms_other_than_rs256_are_refused(room: Room) -> None:
    key = room.connector.keys["k1"]
    claims = jwt.decode(room.connector.token(), options={"verify_signature": False})
    none = jwt.encode(claims, "", algorithm="none", headers={"kid": "k1"})
    symmetric = jwt.encode(claims, "x" * 64, algorithm="HS256", headers={"kid": "k1"})
    sha512 = jwt.encode(claims, key, algorithm="RS512", headers={"kid": "k1"})
    without_kid = jwt.encode(claims, key, algorithm="RS256")
    critical = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "k1", "crit": ["b64"], "b64": True})
    for token in (none, symmetric, sha512, without_kid, critical):
        await gate_refuses(room, token)


async def test_a_key_without_the_teams_endorsement_is_refused(room: Room) -> None:
    room.connector.add_key("webchat-only", endorsements=("webchat",))
    await gate_refuses(room, room.connector.token(kid="webchat-only"))


async def test_a_key_of_somebody_else_is_refused_and_does_not_cause_a_storm(room: Room) -> None:
    stranger = BotConnector()
    stranger.url = room.connector.url
    stranger.add_key("unknown")
    for _ in range(20):
        await gate_refuses(room, stranger.token(kid="unknown"))
        await gate_refuses(room, stranger.token(kid="k1"))
    assert room.connector.key_fetches <= 3


async def test_a_rotated_key_is_found(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    await gate_refuses(room, "a.b.c")
    room.connector.add_key("k2")
    answer = await deliver(room.url, room.connector.invoke(card, message, "approve"), room.connector.token(kid="k2"))
    assert answer.status_code == 200
    assert await room.state(request) is State.APPROVED


BENT_ACTIVITY: dict[str, dict[str, Any]] = {
    "another channel": {"channelId": "webchat"},
    "another recipient": {"recipient": {"id": "28:other"}},
    "another service url in the body": {"serviceUrl": "http://127.0.0.1:9"},
    "another tenant": {"conversation": {"id": CONVERSATION, "tenantId": "99999999-2222-3333-4444-555555555555"}},
    "tenants that differ": {"channelData": {"tenant": {"id": "99999999-2222-3333-4444-555555555555"}}},
    "no tenant": {"channelData": {}},
    "no sender": {"from": None},
    "another bot as sender": {"from": {"id": "28:bot", "aadObjectId": bot_connector.BOB_OID}},
    "half a surrogate pair": {"replyToId": "m1\ud800"},
    "no recipient": {"recipient": None},
    "a tenant in one place alone": {"conversation": {"id": CONVERSATION}},
    "a bot as sender": {"from": {"id": "28:bot", "aadObjectId": bot_connector.BOB_OID, "role": "bot"}},
    "no conversation": {"conversation": None},
    "an id that is no string": {"id": 7},
}


@pytest.mark.parametrize("why", BENT_ACTIVITY)
async def test_an_activity_that_is_bent_in_one_place_is_refused(room: Room, why: str) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    activity = room.connector.invoke(card, message, "approve", **BENT_ACTIVITY[why])
    answer = await deliver(room.url, activity, room.connector.token())
    assert answer.status_code == 401 and answer.json()["reason"] == "delivery-rejected"
    assert await room.state(request) is State.PENDING


async def test_bodies_that_are_too_large_or_no_activity_are_refused(room: Room) -> None:
    headers = {"Authorization": f"Bearer {room.connector.token()}"}
    async with httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http:
        for body in (b"x" * (300 * 1024), b"[]", b"null", b"{", b"[" * 100_000, b"\xff\xfe", b""):
            answer = await http.post(f"{room.url}/api/messages", content=body, headers=headers)
            assert answer.status_code == 401, body[:20]


async def test_two_authorization_headers_are_refused(room: Room) -> None:
    """A proxy in front may believe the one, we the other."""
    good = room.connector.token()
    headers = [("Authorization", f"Bearer {good}"), ("Authorization", "Bearer a.b.c")]
    async with httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http:
        answer = await http.post(f"{room.url}/api/messages", content=b"{}", headers=headers)
    assert answer.status_code == 401


async def test_junk_is_refused_before_its_body_is_read(room: Room) -> None:
    """The refusal comes while the body is still to be sent."""
    host, port = room.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Basic eDp5\r\nContent-Length: 200000\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(45):
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
    writer.close()


async def test_a_delivery_of_yesterday_is_refused(room: Room) -> None:
    """The node's own clock decides, beyond the five minutes that clocks may differ."""
    request = await room.ask()
    message, card = await room.posted(request)
    captured, token = room.connector.invoke(card, message, "approve"), room.connector.token()
    room.clock.ahead = 600 + 301
    assert (await deliver(room.url, captured, token)).status_code == 401
    assert await room.state(request) is State.PENDING


async def test_old_keys_serve_while_the_key_set_can_not_be_fetched(room: Room) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    await gate_refuses(room, "a.b.c")
    await room.press(request, "refresh")
    room.connector.keys_status = 500
    room.clock.ahead = 400  # the set is not fresh any more
    answer = await deliver(room.url, room.connector.invoke(card, message, "deny"), room.connector.token())
    assert answer.status_code == 200 and await room.state(request) is State.DENIED


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://smba.trafficmanager.net/emea/", True),
        ("https://smba.trafficmanager.net:443/emea/", True),
        ("https://smba.trafficmanager.net:8443/", False),
        ("https://smba.trafficmanager.net.evil.example/", False),
        ("https://evil.example/smba.trafficmanager.net/", False),
        ("https://smba.trafficmanager.net@evil.example/", False),
        ("https://user:secret@smba.trafficmanager.net/", False),
        ("https://smba.trafficmanager.net/?x=1", False),
        ("http://smba.trafficmanager.net/", False),
        ("http://127.0.0.1:1/", False),
        ("https://[::1", False),
    ],
)
def test_service_urls_are_https_on_a_listed_host_wherever_we_listen(url: str, allowed: bool) -> None:
    expected = Expected(APP_ID, frozenset({TENANT}), frozenset({"smba.trafficmanager.net"}))
    assert service_allowed(url, expected) is allowed


async def gate_refuses(room: Room, token: str | None) -> None:
    request = await room.ask()
    message, card = await room.posted(request)
    answer = await deliver(room.url, room.connector.invoke(card, message, "approve"), token)
    assert answer.status_code == 401 and answer.json()["reason"] == "delivery-rejected"
    assert token is None or len(token) < 20 or token not in answer.text
    assert await room.state(request) is State.PENDING
