"""What people do with a request over HTTP: decide, edit, withdraw, revoke, grants, locks, the end of a session; and bad input."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.house import House, open_house
from harness.requests import TERMS, draft
from interlock.approvals.model import ApprovalRequest, State
from interlock.clock import rfc3339
from interlock.policy.model import Risk, StepUp
from interlock.web.shown import Shown


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as made:
        yield made


async def decide(http: httpx.AsyncClient, request: ApprovalRequest, verdict: str = "approve", **more: Any) -> httpx.Response:
    headers = more.pop("headers", None)
    body = {"verdict": verdict, "digest": request.digest, **more}
    return await http.post(f"/v1/approvals/{request.id}/decision", json=body, headers=headers)


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


# -- bad input ----------------------------------------------------------------------------------------------------------


async def test_bodies_that_can_be_read_in_two_ways_decide_nothing(house: House) -> None:
    request = await house.ask()
    good = {"verdict": "approve", "digest": request.digest}
    plain = json.dumps(good)
    bad: dict[str, bytes] = {
        "a key twice": plain[:-1].encode() + b', "verdict": "deny"}',
        "a key twice, inside": plain[:-1].encode() + b', "proof": {"kind": "sshsig", "kind": "webauthn"}}',
        "not UTF-8": plain.encode().replace(b"approve", b"appr\xffve"),
        "UTF-16": plain.encode("utf-16"),
        "a lone surrogate": json.dumps({**good, "reason": "\ud800"}).encode(),
        "an unknown field": json.dumps({**good, "quorum": 0}).encode(),
        "another verdict": json.dumps({**good, "verdict": "maybe"}).encode(),
        "a verdict of another type": json.dumps({**good, "verdict": ["approve"]}).encode(),
        "another scope": json.dumps({**good, "scope": "forever"}).encode(),
        "break_glass as text": json.dumps({**good, "break_glass": "true"}).encode(),
        "a time that is none": json.dumps({**good, "scope": "exact", "valid_until": "tomorrow"}).encode(),
        "a time without an offset": json.dumps({**good, "scope": "exact", "valid_until": "2026-01-02T03:04:05"}).encode(),
        "a reason that is too long": json.dumps({**good, "reason": "x" * 2001}).encode(),
        "NaN": plain[:-1].encode() + b', "valid_until": NaN}',
        "deep": b'{"proof": ' + b"[" * 100_000,
        "a list": json.dumps([good]).encode(),
        "nothing": b"",
    }
    async with house.client(await house.stepped_up("bob")) as http:
        for name, body in bad.items():
            answer = await http.post(
                f"/v1/approvals/{request.id}/decision", content=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 422, f"{name}: {answer.status_code} {answer.text}"
            assert answer.headers["content-type"] == "application/problem+json", name
        huge = json.dumps({**good, "reason": "x" * 1024 * 1024}).encode()
        assert (await http.post(f"/v1/approvals/{request.id}/decision", content=huge)).status_code == 413
        form = await http.post(f"/v1/approvals/{request.id}/decision", data=good)
        assert form.status_code == 422, "only JSON is read, so that no page of another origin can send it unasked"
    assert await house.state(request) is State.PENDING
    assert (await house.desk.inbox.get(request.id)).votes == ()


async def test_a_stale_digest_is_refused(house: House) -> None:
    """The same thing asked again is another request: the answer to the old one does not count for it."""
    old = await house.ask()
    async with house.client(await house.stepped_up("bob")) as http:
        assert (await http.post(f"/v1/approvals/{old.id}/withdraw", json={})).status_code == 403
        await house.desk.inbox.withdraw_request(old.id, by=house.desk.entry("claude").identity, why="asked anew")
        new = await house.ask()
        assert new.id != old.id
        answer = await http.post(
            f"/v1/approvals/{new.id}/decision", json={"verdict": "approve", "digest": old.digest, "scope": "once"}
        )
        assert told(answer) == (409, "digest-mismatch")
    assert await house.state(new) is State.PENDING


# -- scopes -------------------------------------------------------------------------------------------------------------


async def test_a_scope_is_taken_only_where_it_is_offered_and_ends(house: House) -> None:
    plain, scoped = await house.ask(), await house.ask_scoped()
    now = house.desk.clock.now()
    soon = rfc3339(now + timedelta(minutes=30))
    async with house.client(await house.stepped_up("bob")) as http:
        shown = (await http.get(f"/v1/approvals/{scoped.id}")).json()
        assert [s["scope"] for s in shown["scopes"]] == ["once", "exact", "rule_in_session"]
        assert "/tmp/x" in shown["scopes"][2]["words"]
        for request, body in (
            (plain, {"scope": "exact", "valid_until": soon}),
            (plain, {"scope": "rule_in_session"}),
            (scoped, {"scope": "once", "valid_until": soon}),
            (scoped, {"scope": "exact"}),
            (scoped, {"scope": "exact", "valid_until": rfc3339(now - timedelta(seconds=1))}),
            (scoped, {"scope": "exact", "valid_until": rfc3339(now + timedelta(days=2))}),
            (scoped, {"scope": "exact", "valid_until": "9999-12-31T23:59:59Z"}),
        ):
            assert told(await decide(http, request, **body)) == (422, "scope-not-offered"), body
            assert await house.state(request) is State.PENDING
        answer = (await decide(http, scoped, scope="exact", valid_until=soon)).json()
        assert answer["votes"][0]["scope"] == "exact" and answer["votes"][0]["valid_until"] == soon


async def test_a_grant_is_listed_and_ended_by_who_gave_it(house: House) -> None:
    request = await house.ask_scoped()
    async with house.client(await house.stepped_up("bob")) as bob:
        await decide(bob, request, scope="rule_in_session")
        (grant,) = (await bob.get("/v1/grants")).json()["grants"]
        assert (grant["request"], grant["scope"], grant["approved_by"]) == (request.id, "rule_in_session", ["bob"])
        assert "/tmp/x and below" in grant["words"]
        async with house.client(await house.token("dan")) as dan:
            assert told(await dan.delete(f"/v1/grants/{grant['id']}")) == (403, "missing-scope")
        async with house.client(await house.token("claude")) as agent:
            assert len((await agent.get("/v1/grants")).json()["grants"]) == 1
        ended = await bob.delete(f"/v1/grants/{grant['id']}")
        assert ended.json()["state"] == "revoked"
        assert (await bob.get("/v1/grants")).json()["grants"] == []
        assert told(await bob.delete(f"/v1/grants/{grant['id']}")) == (404, "not-found")


async def test_a_critical_rule_takes_neither_a_passphrase_nor_a_made_up_proof(house: House) -> None:
    request = await house.ask(terms=replace(TERMS, risk=Risk.CRITICAL, step_up=StepUp.PASSKEY))
    async with house.client(await house.stepped_up("bob")) as http:
        assert told(await decide(http, request)) == (403, "step-up-too-weak")
        for proof in ({"kind": "sshsig", "signature": "x"}, {"kind": "personal"}, {"kind": "webauthn", "id": "AA"}):
            assert told(await decide(http, request, proof=proof)) == (403, "proof-rejected"), proof
        assert told(await decide(http, request, break_glass=True, reason="the house is on fire")) in (
            (403, "break-glass-refused"), (403, "proof-rejected"),
        )  # fmt: skip
    assert await house.state(request) is State.PENDING


# -- the same again, and all at once ------------------------------------------------------------------------------------


async def test_a_retry_with_its_key_is_answered_alike_and_counted_once(house: House) -> None:
    request = await house.ask(terms=replace(TERMS, quorum=2))
    async with house.client(await house.stepped_up("bob")) as http:
        key = {"Idempotency-Key": "try-1"}
        first, second = await decide(http, request, headers=key), await decide(http, request, headers=key)
        assert first.status_code == second.status_code == 200
        assert first.json()["votes"] == second.json()["votes"]
        assert told(await decide(http, request, headers={"Idempotency-Key": "try-2"})) == (409, "already-voted")
        assert (await decide(http, request, "deny", headers=key)).json()["state"] == "denied", "that is another answer"
    assert [str(v.verdict) for v in (await house.desk.inbox.get(request.id)).votes] == ["approve", "deny"]


async def test_another_persons_key_is_not_ones_own(house: House) -> None:
    request = await house.ask(terms=replace(TERMS, quorum=2))
    key = {"Idempotency-Key": "same"}
    async with house.client(await house.stepped_up("bob")) as bob, house.client(await house.stepped_up("dan")) as dan:
        assert (await decide(bob, request, headers=key)).json()["state"] == "pending"
        assert (await decide(dan, request, headers=key)).json()["state"] == "approved"


async def test_a_hundred_clicks_at_once_are_one_vote(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.stepped_up("bob")) as http:
        answers = await asyncio.gather(*(decide(http, request) for _ in range(100)))
    assert sorted(a.status_code for a in answers) == [200] + [409] * 99
    assert len((await house.desk.inbox.get(request.id)).votes) == 1


async def test_approve_and_deny_at_once_end_in_one_state_and_deny_wins(house: House) -> None:
    for n in range(5):
        request = await house.ask(command=replace(draft().command, text=b"rm -rf /srv/%d" % n))
        async with house.client(await house.stepped_up("bob")) as bob, house.client(await house.stepped_up("dan")) as dan:
            await asyncio.gather(decide(bob, request), decide(dan, request, "deny"))
        assert await house.state(request) in (State.DENIED, State.REVOKED)


# -- edit, withdraw, revoke ---------------------------------------------------------------------------------------------


async def test_an_edited_text_is_another_request_that_its_author_never_answers(house: House) -> None:
    request = await house.ask_sql("DELETE FROM orders")
    async with house.client(await house.stepped_up("bob")) as bob, house.client(await house.stepped_up("dan")) as dan:
        body = {"text": "DELETE FROM orders WHERE id = 7", "digest": request.digest, "reason": "not all of them"}
        answer = await bob.post(f"/v1/approvals/{request.id}/edit", json=body)
        assert answer.status_code == 200, answer.text
        edited = answer.json()
        assert (edited["text"], edited["edited_from"]) == (body["text"], request.id)
        assert edited["author"] == str(house.desk.entry("bob").identity)
        old = (await bob.get(f"/v1/approvals/{request.id}")).json()
        assert (old["state"], old["successor"]) == ("superseded", edited["id"])
        new = await house.desk.inbox.get(edited["id"])
        assert told(await decide(bob, new)) == (403, "self-approval")
        assert (await decide(dan, new)).json()["state"] == "approved"


async def test_an_edit_is_decided_by_policy_and_by_the_digest_it_answers(house: House) -> None:
    request = await house.ask_sql("DELETE FROM orders")
    async with house.client(await house.stepped_up("bob")) as bob:

        async def edit(text: str, digest: str = request.digest) -> tuple[int, str]:
            return told(await bob.post(f"/v1/approvals/{request.id}/edit", json={"text": text, "digest": digest}))

        assert await edit("DROP TABLE orders") == (422, "denied-by-policy")
        bare = await bob.post(f"/v1/approvals/{request.id}/edit", json={"text": "DROP TABLE orders"})
        assert told(bare) == (422, "denied-by-policy")
        assert await edit("SELECT 1") == (409, "not-editable")
        assert await edit("DELETE FROM") == (422, "syntax-error")
        assert await edit("DELETE FROM orders -- \u202e") == (422, "deceptive-text")
        assert await edit("DELETE FROM orders WHERE id = 7", "sha256:" + "0" * 64) == (409, "digest-mismatch")
        lone = json.dumps({"text": "DELETE FROM orders WHERE id = '\ud800'", "digest": request.digest})
        answer = await bob.post(f"/v1/approvals/{request.id}/edit", content=lone, headers={"Content-Type": "application/json"})
        assert told(answer) == (422, "config-invalid")
    assert await house.state(request) is State.PENDING


async def test_the_requester_withdraws_its_own_and_nobody_elses(house: House) -> None:
    mine = await house.ask()
    async with house.client(await house.token("bob")) as bob:
        assert told(await bob.post(f"/v1/approvals/{mine.id}/withdraw", json={})) == (403, "missing-scope")
    async with house.client(await house.token("claude")) as agent:
        answer = await agent.post(f"/v1/approvals/{mine.id}/withdraw", json={"reason": "not needed any more"})
        assert answer.json()["state"] == "cancelled"
        assert told(await agent.post(f"/v1/approvals/{mine.id}/withdraw", json={})) == (409, "already-decided")
    other = await house.ask(command=replace(draft().command, text=b"rm -rf /srv/b"))
    async with house.client(await house.token("alice")) as owner:
        assert (await owner.post(f"/v1/approvals/{other.id}/withdraw", json={})).json()["state"] == "cancelled"
    third = await house.ask(command=replace(draft().command, text=b"rm -rf /srv/c"))
    async with house.client(socket=True) as operator:
        assert (await operator.post(f"/v1/approvals/{third.id}/withdraw", json={})).json()["state"] == "cancelled"


async def test_an_administrator_takes_an_unused_approval_back(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.token("carol")) as admin:
        assert told(await admin.post(f"/v1/approvals/{request.id}/revoke", json={})) == (409, "already-decided")
        async with house.client(await house.stepped_up("bob")) as bob:
            await decide(bob, request)
        answer = await admin.post(f"/v1/approvals/{request.id}/revoke", json={"reason": "a mistake"})
        assert answer.json()["state"] == "revoked"
    assert "a mistake" in house.desk.journal_text()


# -- locks and sessions -------------------------------------------------------------------------------------------------


async def test_a_lock_is_seen_and_lifted_by_handle(house: House) -> None:
    async with house.client(await house.stepped_up("bob")) as bob:
        for n in range(10):
            request = await house.ask(command=replace(draft().command, text=b"rm -rf /srv/%d" % n))
            await decide(bob, request, "deny")
        (lock,) = (await bob.get("/v1/locks")).json()["locks"]
        assert lock["handle"] == "claude" and lock["until"] > lock["since"]
    async with house.client(await house.token("carol")) as admin:
        assert told(await admin.delete("/v1/locks/claude")) == (401, "step-up-required")
        assert len((await admin.get("/v1/locks")).json()["locks"]) == 1
    async with house.client(await house.stepped_up("carol")) as admin:
        assert (await admin.delete("/v1/locks/claude")).status_code == 204
        assert (await admin.get("/v1/locks")).json()["locks"] == []
        assert told(await admin.delete("/v1/locks/claude")) == (404, "not-found")


async def test_a_live_session_is_seen_and_ended_by_an_administrator(house: House) -> None:
    session = await house.live()
    async with house.client(await house.token("carol")) as admin:
        (live,) = (await admin.get("/v1/sessions/live")).json()["sessions"]
        assert (live["id"], live["principal"], live["target"], live["client"]) == (session, "claude", "orders", "192.0.2.7")
        answer = await admin.post(f"/v1/sessions/{session}/kill", json={"reason": "it went wrong"})
        assert answer.json() == {"id": session, "killed": True}
        assert told(await admin.post("/v1/sessions/none/kill", json={})) == (404, "not-found")
    (stopped,) = house.gate.sessions()
    refusal = stopped.stopped()
    assert refusal is not None and refusal.reason == "session-killed" and "it went wrong" in refusal.message
    assert "session.kill" in house.desk.journal_text()


# -- lists --------------------------------------------------------------------------------------------------------------


async def test_pages_go_through_everything_once_newest_first(house: House) -> None:
    asked = [(await house.ask(command=replace(draft().command, text=b"rm -rf /srv/%d" % n))).id for n in range(7)]
    async with house.client(await house.token("bob")) as bob, house.client(await house.token("claude")) as agent:
        for http in (bob, agent):
            found: list[str] = []
            before = ""
            while True:
                params = {"state": "pending", "limit": 3, **({"before": before} if before else {})}
                page = (await http.get("/v1/approvals", params=params)).json()
                found += [r["id"] for r in page["approvals"]]
                if page["next"] is None:
                    break
                before = page["next"]
            assert found == sorted(asked, reverse=True)
        for limit in ("0", "201", "x"):
            assert (await bob.get("/v1/approvals", params={"limit": limit})).status_code == 422


async def test_a_row_is_the_contract_and_leaves_out_what_is_large(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.token("bob")) as http:
        (row,) = (await http.get("/v1/approvals")).json()["approvals"]
        whole = (await http.get(f"/v1/approvals/{request.id}")).json()
    promised = {
        "id", "state", "digest", "match", "principal", "acting_for", "owner", "target", "text", "effects", "rule", "reason",
        "expires", "quorum", "votes",
    }  # fmt: skip
    assert promised <= row.keys() <= whole.keys()
    assert {"stdin", "display"}.isdisjoint(row)
    assert all(row[key] == whole[key] for key in row)
    assert whole["words"] and whole["must"] == ["one person of sre"]


async def test_of_ten_thousand_pending_requests_a_page_is_drawn_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path) as house:
        lines = house.desk.inbox._register.lines
        request = await house.ask()
        (line,) = lines.values()
        for n in range(10_000):
            ident = f"req_{n:026d}"
            lines[ident] = type(line)(replace(request, id=ident))
        drawn: list[str] = []
        row = Shown.row
        monkeypatch.setattr(Shown, "row", lambda self, asked: drawn.append(asked.id) or row(self, asked))
        async with house.client(await house.token("bob")) as http:
            answer = await http.get("/v1/approvals", params={"state": "pending"})
            assert len(answer.json()["approvals"]) == len(drawn) == 50
        for ident in [i for i in lines if i != request.id]:
            del lines[ident]
