"""Bringing a passkey: each ceremony once, in time, on our page, with a verified user; and whose page it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.authenticator import AT, HOST, ORIGIN, UP, UV, authenticator
from harness.change_journal import seeded
from harness.clock import ManualClock
from interlock.errors import AuthenticationError, ConfigError, Reason
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.passkeys import (
    MAX_PENDING,
    BadAssertionError,
    Registrations,
    RelyingParty,
    check_assertion,
    relying_party,
    request_options,
)
from interlock.identity.principal import Identity, Kind
from interlock.store.principals import PasskeyRow

PARTY = RelyingParty(HOST, ORIGIN)
CHALLENGE = b"c" * 32


@pytest.fixture
async def bob(directory: Directory) -> Entry:
    return await directory.add("bob", Kind.HUMAN)


@pytest.fixture
def registrations(clock: ManualClock) -> Registrations:
    return Registrations(PARTY, clock=clock, entropy=seeded("r"))


@pytest.mark.parametrize(
    ("url", "party"),
    [
        ("https://interlock.example", PARTY), ("https://Interlock.Example:443/", PARTY),
        ("https://interlock.example:8443", RelyingParty(HOST, ORIGIN + ":8443")),
        ("http://localhost:4400", RelyingParty("localhost", "http://localhost:4400")),
        ("http://interlock.localhost", RelyingParty("interlock.localhost", "http://interlock.localhost")),
        ("http://interlock.example", None), ("https://10.0.0.1", None), ("https://[::1]:8443", None), ("", None),
        ("ftp://localhost", None), ("https://", None), ("https://interlock.example:x", None),
    ],
)  # fmt: skip
def test_the_page_is_public_url_and_has_a_name(url: str, party: RelyingParty | None) -> None:
    assert relying_party(url) == party


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_passkey_is_brought_and_signs(registrations: Registrations, bob: Entry, algorithm: str) -> None:
    phone = authenticator(algorithm=algorithm)
    options = registrations.begin(bob)
    assert options["rp"]["id"] == HOST
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert options["attestation"] == "none"
    assert "bob" not in options["user"]["id"]
    new = registrations.finish(bob, phone.registration(options), "phone")
    assert (new.id, new.public_key, new.sign_count, new.name) == (phone.id, phone.cose, 0, "phone")
    signed = phone.assertion(CHALLENGE)
    row = _row(new.id, new.public_key)
    assert _check(row, signed) == 1


def _row(ident: str, public_key: bytes) -> PasskeyRow:
    return PasskeyRow(ident, "local", "bob", public_key, 0, "phone", ManualClock().now())


def _check(row: PasskeyRow, signed: Any, challenge: bytes = CHALLENGE, party: RelyingParty = PARTY) -> int:
    return check_assertion(
        party, row, challenge,
        client_data=signed.client_data, authenticator_data=signed.authenticator_data, signature=signed.signature,
    )  # fmt: skip


def _refused(registrations: Registrations, person: Entry, credential: str) -> None:
    with pytest.raises(AuthenticationError) as refused:
        registrations.finish(person, credential, "phone")
    assert refused.value.code is Reason.PROOF_REJECTED


def test_a_ceremony_is_answered_once_in_time_and_by_whoever_began_it(
    registrations: Registrations, bob: Entry, clock: ManualClock
) -> None:
    phone = authenticator()
    _refused(registrations, bob, phone.registration({"challenge": "AAAA"}))  # nothing was begun
    answer = phone.registration(registrations.begin(bob))
    registrations.finish(bob, answer, "phone")
    _refused(registrations, bob, answer)
    first = phone.registration(registrations.begin(bob))
    registrations.begin(bob)
    _refused(registrations, bob, first)
    late = phone.registration(registrations.begin(bob))
    clock.advance(300)
    _refused(registrations, bob, late)


async def test_another_person_s_ceremony_is_not_one_s_own(registrations: Registrations, bob: Entry, directory: Directory) -> None:
    alice = await directory.add("alice", Kind.HUMAN)
    registrations.begin(alice)
    _refused(registrations, alice, authenticator().registration(registrations.begin(bob)))


def test_a_wrong_answer_uses_the_ceremony_up(registrations: Registrations, bob: Entry) -> None:
    options = registrations.begin(bob)
    _refused(registrations, bob, "{}")
    _refused(registrations, bob, authenticator().registration(options))


def test_clients_that_begin_and_never_answer_are_bounded(registrations: Registrations, bob: Entry, clock: ManualClock) -> None:
    first = authenticator().registration(registrations.begin(bob))
    for number in range(MAX_PENDING):
        registrations.begin(replace(bob, identity=Identity("local", f"p{number}")))
    assert len(registrations._pending) == MAX_PENDING
    _refused(registrations, bob, first)
    clock.advance(301)
    registrations.begin(bob)
    assert len(registrations._pending) == 1


@pytest.mark.parametrize(
    "bent",
    [
        {"flags": UP | AT}, {"flags": UV | AT}, {"origin": "https://evil.example"}, {"origin": ORIGIN + ":8443"},
        {"type": "webauthn.get"}, {"challenge": "AAAA"}, {"challenge": 5}, {"origin": None},
    ],
)  # fmt: skip
def test_bent_registrations_are_refused(registrations: Registrations, bob: Entry, bent: dict[str, Any]) -> None:
    _refused(registrations, bob, authenticator().registration(registrations.begin(bob), **bent))


@pytest.mark.parametrize("garbage", ["", "null", "[]", "{}", "x" * 40_000, '{"id": "AAAA", "rawId": "AAAA"}'])
def test_garbage_is_refused(registrations: Registrations, bob: Entry, garbage: str) -> None:
    registrations.begin(bob)
    _refused(registrations, bob, garbage)


def test_another_relying_party_or_curve_is_refused(registrations: Registrations, bob: Entry) -> None:
    for phone in (authenticator(host="evil.example"), authenticator(algorithm="P-384")):
        _refused(registrations, bob, phone.registration(registrations.begin(bob)))


def test_without_a_name_there_are_no_passkeys_and_the_error_says_why(clock: ManualClock, bob: Entry) -> None:
    nowhere = Registrations(None, clock=clock, entropy=seeded("r"))
    with pytest.raises(ConfigError, match="public_url"):
        nowhere.begin(bob)
    with pytest.raises(ConfigError, match="public_url"):
        request_options(None, [_row("AAAA", b"")], CHALLENGE)


def test_request_options_ask_for_one_s_own_passkeys_with_verification() -> None:
    options = request_options(PARTY, [_row("AAAA", b"")], CHALLENGE)
    assert [c["id"] for c in options["allowCredentials"]] == ["AAAA"]
    assert (options["rpId"], options["userVerification"]) == (HOST, "required")
    with pytest.raises(AuthenticationError, match="/console/passkeys"):
        request_options(PARTY, [], CHALLENGE)


@pytest.mark.parametrize(
    "bent",
    [
        {"flags": UP}, {"flags": UV}, {"flags": 0}, {"origin": "https://evil.example"}, {"origin": "http://interlock.example"},
        {"type": "webauthn.create"}, {"challenge": "AAAA"}, {"crossOrigin": True}, {"crossOrigin": 0},
        {"topOrigin": "https://evil.example"},
    ],
)  # fmt: skip
def test_bent_assertions_do_not_hold(bent: dict[str, Any]) -> None:
    phone = authenticator()
    row = _row(phone.id, phone.cose)
    _check(row, phone.assertion(CHALLENGE))
    with pytest.raises(BadAssertionError):
        _check(row, phone.assertion(CHALLENGE, **bent))


def test_an_assertion_of_another_key_page_or_challenge_does_not_hold() -> None:
    phone, other = authenticator(), authenticator("other")
    row, signed = _row(phone.id, phone.cose), phone.assertion(CHALLENGE)
    bent = [
        (row, other.assertion(CHALLENGE), CHALLENGE, PARTY), (row, signed, b"d" * 32, PARTY),
        (row, signed, CHALLENGE, RelyingParty("evil.example", ORIGIN)), (_row(phone.id, b"\x04"), signed, CHALLENGE, PARTY),
        (row, authenticator(host="evil.example").assertion(CHALLENGE), CHALLENGE, PARTY),
        (row, replace(signed, authenticator_data=signed.authenticator_data[:-1] + b"\x09"), CHALLENGE, PARTY),
        (row, replace(signed, client_data=signed.client_data + b" "), CHALLENGE, PARTY),
        (row, replace(signed, client_data=b"[]"), CHALLENGE, PARTY), (row, replace(signed, client_data=b""), CHALLENGE, PARTY),
        (row, replace(signed, authenticator_data=b""), CHALLENGE, PARTY),
        (row, replace(signed, signature=b"\0"), CHALLENGE, PARTY),
    ]  # fmt: skip
    for passkey, proof, challenge, party in bent:
        with pytest.raises(BadAssertionError):
            _check(passkey, proof, challenge, party)
