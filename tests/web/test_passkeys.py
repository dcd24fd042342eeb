"""Passkeys in a real Chromium with its virtual authenticator: registering one, signing an answer with it, and what else a
signature could be put to. The transcript's verifier has the last word."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

from harness.authenticator import Authenticator, as_json, authenticator
from harness.browser import DESKTOP, PHONE, Window, open_chromium, window
from harness.clock import ManualClock
from harness.desk import PASSPHRASE, Desk, open_desk
from harness.loopback import free_port
from harness.requests import TERMS, draft
from harness.trust import TRUST
from harness.webnode import open_web
from interlock.approvals.authority import House as DeskHouse
from interlock.approvals.model import ApprovalRequest, Proof, Scope, State
from interlock.approvals.proof import GLASS, challenge, statement
from interlock.clock import system_entropy
from interlock.identity.registration import NewPasskey
from interlock.policy.model import StepUp
from interlock.verify import verify_bundle
from interlock.web.console.sessions import DECIDING_S, ConsoleSessions

CRITICAL = replace(TERMS, step_up=StepUp.PASSKEY)
PASSKEYS = "/console/passkeys"


@dataclass
class House:
    desk: Desk
    url: str
    clock: ManualClock  # of the console's sessions alone

    async def ask(self, **changes: Any) -> ApprovalRequest:
        return (await self.desk.inbox.submit(draft(terms=CRITICAL, principal=self.desk.agent(), **changes))).request

    async def now(self, request: ApprovalRequest) -> ApprovalRequest:
        return await self.desk.inbox.get(request.id)

    async def give(self, phone: Authenticator, handle: str = "bob") -> Authenticator:
        """Register a software authenticator without the browser: what it signs can be bent."""
        by = self.desk.entry(handle).identity
        await self.desk.directory.add_passkey(handle, NewPasskey(phone.id, phone.cose, 0, "software"), by=by)
        return phone

    def software(self, name: str = "software", **changes: Any) -> Authenticator:
        return authenticator(name, host="localhost", origin=self.url, **changes)


@contextlib.asynccontextmanager
async def opened(tmp_path: Path, **settings: Any) -> AsyncIterator[House]:
    url, clock = f"http://localhost:{free_port()}", ManualClock()
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(tmp_path, public_url=url, **settings))
        consoles = ConsoleSessions(desk.directory, clock=clock, entropy=system_entropy)
        await stack.enter_async_context(open_web(desk, local=False, public_url=url, consoles=consoles))
        yield House(desk, url, clock)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as house:
        yield house


@contextlib.asynccontextmanager
async def browser(house: House, *, verified: bool = True, size: dict[str, int] = DESKTOP, **more: Any) -> AsyncIterator[Window]:
    """A window with a virtual authenticator; `verified` is whether it recognises its user."""
    async with open_chromium() as chromium, window(chromium, house.url, size=size, **more) as seen:
        devtools = await seen.page.context.new_cdp_session(seen.page)
        await devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
            "isUserVerified": verified, "automaticPresenceSimulation": True,
        }  # fmt: skip
        await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        yield seen


async def register(seen: Window, name: str = "phone") -> None:
    await seen.open(PASSKEYS)
    await seen.page.fill("input[name=name]", name)
    await seen.page.click("form[data-enroll] button")
    await seen.page.wait_for_selector(f"article:has-text('{name}')")


# -- the whole way ---------------------------------------------------------------------------------------------------------


@pytest.mark.interop
async def test_a_passkey_is_registered_and_approves_a_critical_request(house: House, tmp_path: Path) -> None:
    request = await house.ask()
    async with browser(house, size=PHONE) as seen:
        await seen.log_in("bob")
        await register(seen)
        await seen.open(f"/console/approvals/{request.id}")
        await seen.page.click("button[data-approve]")
        await seen.page.wait_for_selector(".chip.approved")
        assert seen.elsewhere == []
    decided = await house.now(request)
    (vote,) = decided.votes
    (passkey,) = house.desk.entry("bob").passkeys
    assert (decided.state, vote.reviewer_handle, vote.channel, vote.proof) == (State.APPROVED, "bob", "console", Proof.PERSONAL)
    assert vote.signed is not None
    assert (vote.signed.kind, vote.signed.key, vote.signed.public) == ("webauthn", passkey.id, passkey.public_key)
    said = json.loads(vote.signed.client_data)
    expected = statement(request.digest, request.nonce, "approve", "once", None)
    assert (said["origin"], said["challenge"]) == (house.url, bytes_to_base64url(sha256(expected).digest()))
    # The node's journal proves the answer to somebody who trusts none of this.
    await house.desk.inbox.close()
    await house.desk.transcripts.close()
    (journal,) = (tmp_path / "data/journal").iterdir()
    report = await asyncio.to_thread(verify_bundle, journal, house.desk.transcripts.data_dir / "trust")
    assert report.problems == []
    assert any("1 answers are signed" in check for check in report.checks)


@pytest.mark.interop
async def test_a_browser_that_reads_no_json_registers_and_signs_the_long_way(house: House) -> None:
    request = await house.ask()
    async with browser(house) as seen:
        await seen.page.add_init_script(
            "delete PublicKeyCredential.parseCreationOptionsFromJSON; delete PublicKeyCredential.parseRequestOptionsFromJSON"
        )
        await seen.log_in("bob")
        await register(seen)
        assert await seen.page.evaluate("'parseRequestOptionsFromJSON' in PublicKeyCredential") is False
        await seen.open(f"/console/approvals/{request.id}")
        await seen.page.click("button[data-approve]")
        await seen.page.wait_for_selector(".chip.approved")
    assert (await house.now(request)).votes[0].proof is Proof.PERSONAL


@pytest.mark.interop
async def test_the_glass_is_broken_with_a_signature_made_in_the_browser(tmp_path: Path) -> None:
    async with opened(tmp_path, house=DeskHouse(glass=frozenset(("leads",)))) as house:
        await house.desk.directory.set_groups("bob", ["leads"])
        request = await house.ask()
        async with browser(house) as seen:
            await seen.log_in("bob")
            await register(seen)
            await seen.open(f"/console/approvals/{request.id}")
            await seen.page.click(".glass summary")
            await seen.page.fill(".glass textarea", "the site is down and nobody else is awake")
            await seen.page.click(".glass button")
            await seen.page.wait_for_selector(".chip.approved")
        (vote,) = (await house.now(request)).votes
    assert (vote.break_glass, vote.proof, vote.reviewer_handle) == (True, Proof.PERSONAL, "bob")


@pytest.mark.interop
async def test_denying_needs_no_passkey_and_signs_nothing(house: House) -> None:
    request = await house.ask()
    async with browser(house) as seen:
        await seen.log_in("bob", f"/console/approvals/{request.id}")
        await seen.page.fill("textarea[name=reason]", "not tonight")
        await seen.page.click("button[data-deny]")
        await seen.page.wait_for_selector(".chip.denied")
    (vote,) = (await house.now(request)).votes
    assert (vote.proof, vote.signed) == (Proof.NONE, None)


@pytest.mark.interop
async def test_without_a_passkey_the_page_says_where_to_get_one(house: House) -> None:
    request = await house.ask()
    async with browser(house, forgiving=True) as seen:
        await seen.log_in("bob", f"/console/approvals/{request.id}")
        await seen.page.click("button[data-approve]")
        await seen.page.wait_for_selector("[data-signing]:has-text('/console/passkeys')")
    assert (await house.now(request)).state is State.PENDING


@pytest.mark.interop
async def test_an_authenticator_that_does_not_know_its_user_registers_nothing(house: House) -> None:
    async with browser(house, verified=False, forgiving=True) as seen:
        await seen.log_in("bob", PASSKEYS)
        await seen.page.fill("input[name=name]", "phone")
        await seen.page.click("form[data-enroll] button")
        await seen.page.wait_for_selector("[data-signing]:has-text('not used')")
    assert house.desk.entry("bob").passkeys == ()


@pytest.mark.interop
async def test_one_authenticator_is_registered_once_and_removed(house: House) -> None:
    async with browser(house, forgiving=True) as seen:
        await seen.log_in("bob")
        await register(seen)
        await seen.page.fill("input[name=name]", "again")
        await seen.page.click("form[data-enroll] button")
        await seen.page.wait_for_selector("[data-signing]:has-text('already')")
        assert len(house.desk.entry("bob").passkeys) == 1
        await seen.page.click("button:has-text('Remove')")
        await seen.page.wait_for_selector(".empty")
    assert house.desk.entry("bob").passkeys == ()


@pytest.mark.interop
async def test_another_address_of_the_same_node_gets_no_passkey(house: House) -> None:
    async with browser(house, forgiving=True) as seen:
        seen.url = house.url.replace("localhost", "127.0.0.1")
        await seen.log_in("bob", PASSKEYS)
        await seen.page.fill("input[name=name]", "phone")
        await seen.page.click("form[data-enroll] button")
        await seen.page.wait_for_selector("[data-signing]:has-text('public address')")
    assert house.desk.entry("bob").passkeys == ()


@pytest.mark.interop
@pytest.mark.parametrize("dark", [False, True])
async def test_the_page_is_accessible_and_fits_a_phone(house: House, dark: bool) -> None:
    from axe_playwright_python.async_playwright import Axe

    async with browser(house, size=PHONE, dark=dark) as seen:
        await seen.log_in("bob")
        await register(seen, "a key that somebody gave a rather long name to, (blue)")
        found = await Axe().run(seen.page)
        assert [v["id"] for v in found.response["violations"]] == []
        assert await seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert seen.elsewhere == []


# -- without a browser: what a signature could be put to -------------------------------------------------------------------


@contextlib.asynccontextmanager
async def session(house: House, handle: str = "bob") -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A logged-in client and its CSRF token."""
    async with httpx.AsyncClient(
        base_url=house.url, headers={"Origin": house.url}, trust_env=False, timeout=60, verify=TRUST
    ) as http:
        await http.post("/console/login", data={"handle": handle, "passphrase": PASSPHRASE})
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', (await http.get(PASSKEYS)).text)
        assert found
        yield http, found[1]


async def decide(http: httpx.AsyncClient, csrf: str, request: ApprovalRequest, signed: str, **changes: str) -> httpx.Response:
    form = {"csrf": csrf, "digest": request.digest, "verdict": "approve", "signed": signed, **changes}
    return await http.post(f"/console/approvals/{request.id}/decision", data=form)


def answer(request: ApprovalRequest, **changes: Any) -> bytes:
    plain = {"digest": request.digest, "nonce": request.nonce, "verdict": "approve", "scope": "once", "valid_until": None}
    return challenge(**{**plain, **changes})


def signed_by(phone: Authenticator, over: bytes, **bent: Any) -> str:
    return json.dumps(as_json(phone.assertion(over, **bent)))


async def test_a_software_passkey_approves_or_the_tests_below_prove_nothing(house: House) -> None:
    phone, request = await house.give(house.software()), await house.ask()
    async with session(house) as (http, csrf):
        assert (await decide(http, csrf, request, signed_by(phone, answer(request)))).status_code == 303
    assert (await house.now(request)).state is State.APPROVED


@pytest.mark.parametrize(
    "bent",
    [
        {"changes": {"verdict": "deny"}}, {"changes": {"scope": Scope.RULE_IN_SESSION}}, {"changes": {"nonce": "0" * 32}},
        {"flags": 0x01}, {"flags": 0x04}, {"origin": "https://evil.example"}, {"host": "evil.example"}, {"crossOrigin": True},
        {"type": "webauthn.create"}, {"stranger": True},
    ],
    ids=str,
)  # fmt: skip
async def test_a_bent_signature_approves_nothing(house: House, bent: dict[str, Any]) -> None:
    phone, request = await house.give(house.software()), await house.ask()
    over = answer(request, **bent.pop("changes", {}))
    phone.host = bent.pop("host", phone.host)
    signer = house.software("stranger") if bent.pop("stranger", False) else phone
    async with session(house) as (http, csrf):
        refused = await decide(http, csrf, request, signed_by(signer, over, **bent))
    assert refused.status_code == 409
    assert (await house.now(request)).state is State.PENDING
    assert '"reason":"proof-rejected"' in house.desk.journal_text()


async def test_a_signature_for_another_request_approves_nothing(house: House) -> None:
    phone, request = await house.give(house.software()), await house.ask()
    other = await house.ask(session="01OTHER", command=replace(draft().command, text=b"rm -rf /"))
    async with session(house) as (http, csrf):
        assert (await decide(http, csrf, other, signed_by(phone, answer(request)))).status_code == 409
    assert (await house.now(other)).state is State.PENDING


async def test_another_person_s_passkey_approves_nothing(house: House) -> None:
    phone, request = await house.give(house.software(), "alice"), await house.ask()
    async with session(house) as (http, csrf):
        assert (await decide(http, csrf, request, signed_by(phone, answer(request)))).status_code == 409
    assert (await house.now(request)).state is State.PENDING


async def test_a_copied_authenticator_approves_nothing_and_is_in_the_journal(house: House) -> None:
    phone, request = await house.give(house.software()), await house.ask()
    second = await house.ask(session="01OTHER", command=replace(draft().command, text=b"rm -rf /"))
    async with session(house) as (http, csrf):
        copied = replace(phone, count=0)  # a copy of the authenticator, as it was before its first use
        await decide(http, csrf, request, signed_by(phone, answer(request)))
        refused = await decide(http, csrf, second, signed_by(copied, answer(second)))
    assert refused.status_code == 409
    assert "counter did not grow" in refused.text
    assert (await house.now(second)).state is State.PENDING
    assert '"known_counter":1' in house.desk.journal_text()


async def test_a_form_sent_twice_is_one_vote_and_no_alarm(house: House) -> None:
    phone, request = await house.give(house.software()), await house.ask()
    signed = signed_by(phone, answer(request))
    async with session(house) as (http, csrf):
        told = await asyncio.gather(*(decide(http, csrf, request, signed) for _ in range(20)))
    assert sorted(t.status_code for t in told) == [303, *[409] * 19]
    assert not any("counter" in t.text for t in told)
    assert len((await house.now(request)).votes) == 1


@pytest.mark.parametrize("signed", ["", "{}", "garbage", "null", '{"kind": "webauthn"}', "[" * 10_000], ids=lambda s: s[:12])
async def test_without_a_signature_a_critical_request_is_not_approved(house: House, signed: str) -> None:
    await house.give(house.software())
    request = await house.ask()
    async with session(house) as (http, csrf):
        assert (await decide(http, csrf, request, signed)).status_code == 409
    assert (await house.now(request)).state is State.PENDING


async def test_a_megabyte_is_not_read_as_a_signature(house: House) -> None:
    request = await house.ask()
    async with session(house) as (http, csrf):
        for size in (40_000, 1 << 20, 2 << 20):
            assert (await decide(http, csrf, request, "x" * size)).status_code in (409, 413, 422)
    assert (await house.now(request)).state is State.PENDING


async def challenge_for(http: httpx.AsyncClient, request: ApprovalRequest, **form: str) -> httpx.Response:
    return await http.post(f"/console/approvals/{request.id}/challenge", data={"verdict": "approve", **form})


async def test_the_challenge_is_the_answer_s_and_names_one_s_own_passkeys(house: House) -> None:
    phone, request = await house.give(house.software()), await house.ask()
    await house.give(house.software("of Alice"), "alice")
    async with session(house) as (http, csrf):
        plain = await challenge_for(http, request, csrf=csrf, digest=request.digest)
        wider = await challenge_for(
            http, request, csrf=csrf, digest=request.digest, scope="exact", valid_until="2026-01-02T05:00:00+01:00"
        )
    options = plain.json()
    assert options["challenge"] == bytes_to_base64url(answer(request))
    assert [c["id"] for c in options["allowCredentials"]] == [phone.id]
    assert (options["rpId"], options["userVerification"]) == ("localhost", "required")
    until = datetime(2026, 1, 2, 4, tzinfo=UTC)
    assert wider.json()["challenge"] == bytes_to_base64url(answer(request, scope="exact", valid_until=until))


async def test_a_challenge_to_break_the_glass_signs_no_ordinary_approval(house: House) -> None:
    phone, request = await house.give(house.software()), await house.ask()
    async with session(house) as (http, csrf):
        glass = (await challenge_for(http, request, csrf=csrf, digest=request.digest, scope=GLASS)).json()["challenge"]
        assert glass == bytes_to_base64url(answer(request, scope=GLASS)) != bytes_to_base64url(answer(request))
        refused = await decide(http, csrf, request, signed_by(phone, base64url_to_bytes(glass)))
    assert (refused.status_code, (await house.now(request)).state) == (409, State.PENDING)


async def test_no_challenge_for_other_pages_other_people_or_other_forms(house: House) -> None:
    await house.give(house.software())
    request = await house.ask()
    async with session(house) as (http, csrf):
        good = {"csrf": csrf, "digest": request.digest}
        for changes, status in (
            ({"csrf": ""}, 401), ({"csrf": "0" * 64}, 401), ({"digest": "sha256:" + "0" * 64}, 409), ({"verdict": "maybe"}, 422),
            ({"scope": "everything"}, 422), ({"valid_until": "tomorrow"}, 422), ({"valid_until": "2026-02-30T00:00:00Z"}, 422),
            ({"valid_until": "2026-01-02T05:00:00"}, 422),
        ):  # fmt: skip
            answered = await challenge_for(http, request, **{**good, **changes})
            assert (answered.status_code, "reason" in answered.json()) == (status, True), changes
        evil = await http.post(
            f"/console/approvals/{request.id}/challenge", data={**good, "verdict": "approve"}, headers={"Origin": "https://evil"}
        )
        assert evil.status_code == 401
        async with session(house, "alice") as (other, token):
            assert (await challenge_for(other, request, csrf=token, digest=request.digest)).status_code == 403
    async with httpx.AsyncClient(
        base_url=house.url, headers={"Origin": house.url}, trust_env=False, timeout=60, verify=TRUST
    ) as nobody:
        for path in (f"/console/approvals/{request.id}/challenge", PASSKEYS + "/options"):
            answered = await nobody.post(path, data={"digest": request.digest, "verdict": "approve"})
            assert answered.status_code == 401
            assert "challenge" not in answered.json()


async def test_registering_asks_for_the_passphrase_once_the_last_one_is_old(house: House) -> None:
    async with session(house) as (http, csrf):
        fresh = await http.post(PASSKEYS + "/options", data={"csrf": csrf})
        assert fresh.status_code == 200
        house.clock.advance(DECIDING_S)
        for form, status in (({}, 401), ({"passphrase": "open-sesame"}, 401), ({"passphrase": PASSPHRASE}, 200)):
            answered = await http.post(PASSKEYS + "/options", data={"csrf": csrf, **form})
            assert answered.status_code == status, form
        house.clock.advance(DECIDING_S)
        finished = await http.post(
            PASSKEYS, data={"csrf": csrf, "name": "phone", "credential": house.software().registration(answered.json())}
        )
        assert finished.status_code == 401
    assert house.desk.entry("bob").passkeys == ()


async def test_nobody_finishes_or_removes_what_is_another_s(house: House) -> None:
    phone = await house.give(house.software(), "alice")
    async with session(house) as (http, csrf), session(house, "alice") as (alice, token):
        options = (await alice.post(PASSKEYS + "/options", data={"csrf": token})).json()
        await http.post(PASSKEYS + "/options", data={"csrf": csrf})
        form = {"csrf": csrf, "name": "phone", "credential": house.software("new").registration(options)}
        assert (await http.post(PASSKEYS, data=form)).status_code == 409
        removed = await http.post(PASSKEYS + "/remove", data={"csrf": csrf, "id": phone.id})
        assert removed.status_code == 409
        foreign = await http.post(PASSKEYS, data=form, headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 401
    assert house.desk.entry("bob").passkeys == ()
    assert len(house.desk.entry("alice").passkeys) == 1


async def test_a_name_with_a_script_is_refused_and_stays_text(house: House) -> None:
    async with session(house) as (http, csrf):
        options = (await http.post(PASSKEYS + "/options", data={"csrf": csrf})).json()
        form = {"csrf": csrf, "name": "<script>alert(1)</script>", "credential": house.software().registration(options)}
        refused = await http.post(PASSKEYS, data=form)
    assert refused.status_code == 409
    assert "<script>alert" not in refused.text


async def test_a_vote_keeps_its_key_when_the_passkey_is_removed(house: House) -> None:
    phone, request = await house.give(house.software()), await house.ask()
    async with session(house) as (http, csrf):
        await decide(http, csrf, request, signed_by(phone, answer(request)))
        await http.post(PASSKEYS + "/remove", data={"csrf": csrf, "id": phone.id})
    assert house.desk.entry("bob").passkeys == ()
    decided = await house.now(request)
    assert decided.state is State.APPROVED
    assert decided.votes[0].signed is not None
    assert decided.votes[0].signed.public == phone.cose
