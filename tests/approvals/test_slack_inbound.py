"""The gate as a pure function: whatever arrives, it returns a delivery of our workspace and app or one kind of refusal."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.signature import SignatureVerifier

from harness.budget import examples
from harness.slack import APP, BOB, CHANNEL, SIGNING_SECRET, TEAM, FakeSlack, signed
from interlock.approvals.channels.slack import blocks, forms
from interlock.approvals.channels.slack.inbound import WINDOW_S, Click, Delivery, Expected, Submission, admit, interaction
from interlock.config import Secret
from interlock.errors import AuthenticationError, Reason

EXPECTED = Expected(TEAM, APP)
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def payloads() -> tuple[dict[str, Any], dict[str, Any]]:
    """A genuine click and a genuine form."""
    slack = FakeSlack()
    key = (CHANNEL, "1700000000.000001")
    slack.messages[key] = {"blocks": blocks.note("x", action="deny", words="Deny", value="req_1 nonce"), "text": "x"}
    form = {"view": forms.deny_form("sealed", "who and where")}
    return slack.click(key, "deny"), slack.submit(form, values={"reason": "no"})


CLICK, FORM = payloads()


def checked(body: bytes, headers: dict[str, str], *, now: datetime = NOW) -> Delivery:
    lower = {name.lower(): value for name, value in headers.items()}
    return admit(lower, body, secret=Secret(SIGNING_SECRET), expected=EXPECTED, now=now)


def test_a_genuine_click_and_a_genuine_form_are_reduced_to_what_is_used() -> None:
    click = interaction(CLICK, ident="a", expected=EXPECTED)
    assert isinstance(click.said, Click) and (str(click.said.actor), click.said.value) == (f"{TEAM}/{BOB}", "req_1 nonce")
    form = interaction(FORM, ident="b", expected=EXPECTED)
    assert isinstance(form.said, Submission) and form.said.values == {"reason": "no"} and form.said.metadata == "sealed"
    assert click.idents[0] == "a" and click.idents[1].startswith("trigger ")


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)),
    max_leaves=10,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, below in inner for p in [(*way, key), *places(below, (*way, key))]]


@settings(max_examples=examples(400), deadline=None)
@given(data=st.data(), genuine=st.sampled_from([CLICK, FORM]), replacement=junk)
def test_a_payload_bent_in_any_one_place_is_refused_in_one_way_or_still_ours(
    data: Any, genuine: dict[str, Any], replacement: Any
) -> None:
    bent = deepcopy(genuine)
    *way, last = data.draw(st.sampled_from(places(genuine)))
    inner = bent
    for key in way:
        inner = inner[key]
    inner[last] = replacement
    try:
        delivery = interaction(bent, ident="a", expected=EXPECTED)
    except AuthenticationError as error:
        assert error.code is Reason.DELIVERY_REJECTED
        return
    if delivery.said is not None:
        assert delivery.said.actor.team == TEAM
        assert bent["team"]["id"] == TEAM and bent["api_app_id"] == APP


@settings(max_examples=examples(100), deadline=None)
@given(payload=junk)
def test_anything_else_is_refused(payload: Any) -> None:
    with pytest.raises(AuthenticationError):
        interaction(payload, ident="a", expected=EXPECTED)


@settings(max_examples=examples(200), deadline=None)
@given(body=st.binary(max_size=300), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_bit_flipped_anywhere_breaks_the_signature(body: bytes, place: int, bit: int) -> None:
    whole, headers = signed(body or b"x", at=NOW.timestamp())
    bent = bytearray(whole)
    bent[place % len(bent)] ^= 1 << bit
    with pytest.raises(AuthenticationError, match="signature does not verify"):
        checked(bytes(bent), headers)


@pytest.mark.parametrize(
    ("seconds", "taken"), [(0, True), (WINDOW_S, True), (-WINDOW_S, True), (WINDOW_S + 1, False), (-WINDOW_S - 1, False)]
)
def test_the_window_is_five_minutes_both_ways(seconds: int, taken: bool) -> None:
    body, headers = signed(CLICK, at=(NOW + timedelta(seconds=seconds)).timestamp())
    if taken:
        assert checked(body, headers).said is not None
        return
    with pytest.raises(AuthenticationError, match="five minutes"):
        checked(body, headers)


def test_what_we_take_slack_sdk_takes_and_our_signature_names_one_delivery() -> None:
    """slack-sdk's verifier is the oracle of the scheme. Ours is stricter: it also takes each delivery only once."""
    stamp = datetime.now(UTC)  # noqa: TID251  the verifier reads the machine's clock
    body, headers = signed(CLICK, at=stamp.timestamp())
    assert SignatureVerifier(SIGNING_SECRET).is_valid_request(body, headers)
    first = checked(body, headers, now=stamp)
    assert first.idents[0] == f"signature {headers['X-Slack-Signature']}"
    other, _ = signed(json.dumps(CLICK).encode(), at=stamp.timestamp())
    assert not SignatureVerifier(SIGNING_SECRET).is_valid_request(other, headers)


def test_no_value_of_the_gate_shows_what_was_typed_or_the_secret() -> None:
    form = interaction(FORM, ident="b", expected=EXPECTED)
    assert "reason" not in repr(form) and SIGNING_SECRET not in repr(form)
