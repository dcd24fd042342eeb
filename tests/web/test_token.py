"""Token exchange over HTTP: an agent's token with a person's. What comes of it, who can't approve it, and all that is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.desk import PASSPHRASE, Desk, open_desk
from harness.issuer import FakeIssuer
from harness.requests import draft
from harness.trust import TRUST
from harness.webnode import gate_over, open_web
from interlock import record
from interlock.approvals import portrait
from interlock.approvals.model import State
from interlock.config import Issuer, Workload
from interlock.errors import AuthenticationError, EvidenceError, Reason
from interlock.gate import Gate
from interlock.identity.exchange import ACCESS_TOKEN, GRANT, JWT, PASSWORD
from interlock.identity.principal import Identity, Kind, Principal

REPOSITORY = "acme/app"


@dataclass
class Town:
    """Yves works with claude-ci, which Zoe owns; Bob reviews. `people` and `ci` are their issuers."""

    desk: Desk
    gate: Gate
    url: str
    people: FakeIssuer
    ci: FakeIssuer

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=60, verify=TRUST)

    def token(self, issuer: FakeIssuer, sub: str, *, lives: int = 600, **more: Any) -> str:
        now = int(self.desk.clock.now().timestamp())
        jti = f"j{len(issuer.requests)}-{sub}-{more.get('jti', '')}"
        claims = {"iss": issuer.issuer, "aud": "interlock", "sub": sub, "iat": now, "exp": now + lives, **more, "jti": jti}
        return issuer.token(claims, headers={"typ": "JWT" if issuer is self.ci else "at+jwt"})

    def person(self, sub: str = "00u-yves", **more: Any) -> str:
        return self.token(self.people, sub, **more)

    def workload(self, **more: Any) -> str:
        return self.token(self.ci, f"repo:{REPOSITORY}:ref:refs/heads/main", **{"repository": REPOSITORY, **more})

    def asked(self, **more: str) -> dict[str, str]:
        form = {
            "grant_type": GRANT, "subject_token": self.person(), "subject_token_type": ACCESS_TOKEN,
            "actor_token": self.workload(), "actor_token_type": JWT, **more,
        }  # fmt: skip
        return {name: value for name, value in form.items() if value != "-"}

    async def exchange(self, **more: str) -> httpx.Response:
        async with self.client() as http:
            return await http.post("/v1/token", data=self.asked(**more))

    async def granted(self, **more: str) -> dict[str, Any]:
        answer = await self.exchange(**more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def principal(self, secret: str) -> Principal:
        return await self.desk.authenticator.token(secret)

    async def stepped_up(self, handle: str) -> str:
        async with self.client() as http:
            return str((await http.post("/v1/step-up", json={"handle": handle, "passphrase": PASSPHRASE})).json()["token"])


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with FakeIssuer() as people, FakeIssuer() as ci:
        issuers = [
            Issuer(name="people", issuer=people.issuer, audience="interlock", kind="human"),
            Issuer(
                name="ci", issuer=ci.issuer, audience="interlock", kind="agent", platform="github-actions", single_use=False,
                workloads=[Workload(principal="claude-ci", claims={"repository": REPOSITORY})],
            ),
        ]  # fmt: skip
        async with open_desk(tmp_path, issuers=issuers) as desk:
            await desk.directory.add("yves", Kind.HUMAN, groups=["sre", "dev"], passphrase=PASSPHRASE)
            await desk.directory.add("yves-home", Kind.HUMAN, groups=["sre"], passphrase=PASSPHRASE)
            await desk.directory.add("zoe", Kind.HUMAN, groups=["sre"], passphrase=PASSPHRASE)
            await desk.directory.add("zoe-root", Kind.HUMAN, groups=["sre"], passphrase=PASSPHRASE)
            await desk.directory.add("claude-ci", Kind.AGENT, groups=["agents", "dev"], owner="zoe")
            await desk.directory.link("yves", Identity(people.issuer, "00u-yves"))
            await desk.directory.link("yves", desk.entry("yves-home").identity)
            await desk.directory.link("zoe", desk.entry("zoe-root").identity)
            gate = gate_over(desk)
            async with open_web(desk, local=False, gate=gate) as url:
                yield Town(desk, gate, url, people, ci)


class TestAgentForAPerson:
    async def test_the_answer_the_record_the_card_and_whoami_say_who_for_whom_and_whose(self, town: Town) -> None:
        granted = await town.granted()
        assert (granted["issued_token_type"], granted["token_type"]) == (ACCESS_TOKEN, "Bearer")
        assert 0 < granted["expires_in"] <= 600  # the tokens' own ten minutes
        assert (granted["handle"], granted["acting_for"], granted["owner"]) == ("claude-ci", ["yves"], "zoe")
        async with town.client(granted["access_token"]) as http:
            me = (await http.get("/v1/whoami")).json()
        assert (me["handle"], me["kind"], me["acting_for"], me["owner"]) == ("claude-ci", "agent", ["yves"], "zoe")
        principal = await town.principal(granted["access_token"])
        assert portrait.who(draft(principal=principal)) == "agent claude-ci for yves (owned by zoe)"
        told = record.who(principal)
        assert (told["handle"], told["owner"]) == ("claude-ci", str(town.desk.entry("zoe").identity))
        assert told["acting_for"] == [str(town.desk.entry("yves").identity)]
        assert told["credential"] == {"kind": "exchanged", "ident": granted["id"]}
        assert f'"credential":"{granted["id"]}"' in town.desk.journal_text()
        assert granted["access_token"] not in town.desk.journal_text()

    async def test_nobody_in_the_chain_approves_and_none_of_their_accounts(self, town: Town) -> None:
        """X acts for Y and is owned by Z."""
        principal = await town.principal((await town.granted())["access_token"])
        request = (await town.desk.inbox.submit(draft(principal=principal))).request
        body = {"verdict": "approve", "digest": request.digest}
        for handle in ("yves", "yves-home", "zoe", "zoe-root"):
            async with town.client(await town.stepped_up(handle)) as http:
                answer = await http.post(f"/v1/approvals/{request.id}/decision", json=body)
            assert (answer.status_code, answer.json()["reason"]) == (403, "self-approval"), handle
        async with town.client((await town.granted())["access_token"]) as http:
            answer = await http.post(f"/v1/approvals/{request.id}/decision", json=body)
            assert (answer.status_code, answer.json()["reason"]) == (403, "not-a-person")
        assert (await town.desk.inbox.get(request.id)).state is State.PENDING
        async with town.client(await town.stepped_up("bob")) as http:
            assert (await http.post(f"/v1/approvals/{request.id}/decision", json=body)).status_code == 200

    async def test_an_account_that_is_linked_later_does_not_approve_either(self, town: Town) -> None:
        principal = await town.principal((await town.granted())["access_token"])
        request = (await town.desk.inbox.submit(draft(principal=principal))).request
        await town.desk.directory.link("yves", town.desk.entry("bob").identity)
        async with town.client(await town.stepped_up("bob")) as http:
            body = {"verdict": "approve", "digest": request.digest}
            answer = await http.post(f"/v1/approvals/{request.id}/decision", json=body)
        assert answer.json()["reason"] == "self-approval"

    async def test_a_chain_grows_newest_first_to_three_and_no_further(self, town: Town) -> None:
        secret = (await town.granted())["access_token"]
        for number, chain in enumerate((["claude-ci", "yves"], ["a0", "claude-ci", "yves"])):
            await town.desk.directory.add(f"a{number}", Kind.AGENT, groups=["agents"], owner="alice")
            actor = (await town.desk.directory.issue_token(f"a{number}")).secret.reveal()
            again = await town.granted(subject_token=secret, actor_token=actor, actor_token_type=ACCESS_TOKEN)
            assert again["acting_for"] == chain
            secret = again["access_token"]
        await town.desk.directory.add("a9", Kind.AGENT, owner="alice")
        actor = (await town.desk.directory.issue_token("a9")).secret.reveal()
        answer = await town.exchange(subject_token=secret, actor_token=actor, actor_token_type=ACCESS_TOKEN)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert "longer than 3" in answer.json()["error_description"]
        found = await town.principal(secret)
        names = ("a0", "a1", "claude-ci", "yves", "yves-home", "zoe", "alice")
        assert {town.desk.entry(handle).identity for handle in names} <= found.excluded()

    async def test_an_agent_alone(self, town: Town) -> None:
        only = {"subject_token": town.workload(), "subject_token_type": JWT, "actor_token": "-", "actor_token_type": "-"}
        granted = await town.granted(**only)
        assert (granted["handle"], granted["acting_for"], granted["owner"]) == ("claude-ci", [], "zoe")


class TestPasswords:
    async def test_a_postgres_password_stands_for_the_whole_chain(self, town: Town) -> None:
        granted = await town.granted(requested_token_type=PASSWORD)
        assert granted["token_type"] == "N_A" and granted["access_token"].startswith("ilp_")
        plain = await town.desk.directory.issue_password("claude-ci")
        idents = [one.id for one in town.desk.authenticator.scram("claude-ci").verifiers]
        assert set(idents) == {granted["id"], plain.id}
        found = town.desk.authenticator.scram_principal("claude-ci", granted["id"])
        assert (found.handle, found.acting_for_handles, found.owner_handle) == ("claude-ci", ("yves",), "zoe")
        assert town.desk.authenticator.scram_principal("claude-ci", plain.id).acting_for == ()
        await town.desk.directory.set_disabled("yves", True)
        assert [one.id for one in town.desk.authenticator.scram("claude-ci").verifiers] == [plain.id]
        with pytest.raises(AuthenticationError):
            town.desk.authenticator.scram_principal("claude-ci", granted["id"])


class TestEnds:
    async def test_never_later_than_either_token_nor_a_quarter_of_an_hour(self, town: Town) -> None:
        short = await town.granted(actor_token=town.workload(lives=60))
        assert short["expires_in"] <= 60
        long = await town.granted(subject_token=town.person(lives=7200), actor_token=town.workload(lives=7200))
        assert 890 < long["expires_in"] <= 900
        actor = (await town.desk.directory.issue_token("claude-ci", timedelta(days=30))).secret.reveal()
        again = await town.granted(subject_token=long["access_token"], actor_token="-", actor_token_type="-")
        assert again["expires_in"] <= long["expires_in"]  # what was given is not prolonged with itself
        month = await town.granted(subject_token=town.person(lives=7200), actor_token=actor, actor_token_type=ACCESS_TOKEN)
        assert month["expires_in"] <= 900

    async def test_at_once_when_anybody_in_it_is_stopped(self, town: Town) -> None:
        for handle in ("yves", "zoe", "claude-ci"):
            secret = (await town.granted())["access_token"]
            await town.principal(secret)
            for disabled in (True, False):  # and it does not come back
                await town.desk.directory.set_disabled(handle, disabled)
                with pytest.raises(AuthenticationError):
                    await town.principal(secret)

    async def test_at_once_when_what_it_was_given_for_changes(self, town: Town) -> None:
        people = town.desk.directory
        for change in (
            lambda: people.set_groups("yves", ["interns"]),
            lambda: people.set_owner("claude-ci", "alice"),
            lambda: people.unlink("yves", Identity(town.people.issuer, "00u-yves")),
        ):
            secret = (await town.granted())["access_token"]
            await town.principal(secret)
            await change()
            with pytest.raises(AuthenticationError):
                await town.principal(secret)

    async def test_with_what_it_was_given_for_all_the_way_up(self, town: Town) -> None:
        actor = await town.desk.directory.issue_token("claude-ci")
        first = await town.granted(actor_token=actor.secret.reveal(), actor_token_type=ACCESS_TOKEN)
        await town.desk.directory.add("helper", Kind.AGENT, owner="alice")
        other = (await town.desk.directory.issue_token("helper")).secret.reveal()
        second = await town.granted(subject_token=first["access_token"], actor_token=other, actor_token_type=ACCESS_TOKEN)
        assert (await town.principal(second["access_token"])).acting_for_handles == ("claude-ci", "yves")
        await town.desk.directory.revoke_token("claude-ci", actor.id)
        for secret in (first["access_token"], second["access_token"]):
            with pytest.raises(AuthenticationError):
                await town.principal(secret)

    async def test_nothing_is_given_that_is_not_recorded(self, town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
        async def broken() -> None:
            raise EvidenceError

        journal = town.desk.transcripts.journal
        monkeypatch.setattr(type(journal), "sync", lambda _: broken())
        answer = await town.exchange()
        assert (answer.status_code, answer.json()["reason"]) == (503, "evidence-unavailable")
        assert not town.desk.authenticator.exchanged._held


class TestRefused:
    async def test_requests(self, town: Town) -> None:
        cases: list[tuple[dict[str, str], str, str]] = [
            ({"grant_type": "authorization_code"}, "unsupported_grant_type", "request-not-offered"),
            ({"grant_type": "-"}, "unsupported_grant_type", "request-not-offered"),
            ({"subject_token": "-"}, "invalid_request", "token-rejected"),
            ({"subject_token_type": "-"}, "invalid_request", "token-rejected"),
            ({"actor_token_type": "-"}, "invalid_request", "token-rejected"),
            ({"actor_token": "-"}, "invalid_request", "token-rejected"),
            ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request", "token-rejected"),
            ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request", "token-rejected"),
            ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request", "token-rejected"),
            ({"requested_token_type": "urn:interlock:token-type:certificate"}, "invalid_request", "token-rejected"),
            ({"audience": "orders"}, "invalid_target", "request-not-offered"),
            ({"resource": "https://orders.example"}, "invalid_target", "request-not-offered"),
            ({"scope": "admin"}, "invalid_scope", "request-not-offered"),
            ({"subject_token": "ilk_nothing"}, "invalid_request", "token-rejected"),
            ({"subject_token": "a.b.c"}, "invalid_request", "token-rejected"),
            ({"actor_token": "x" * 33_000}, "invalid_request", "too-large"),
            ({"actor_token": "-", "actor_token_type": "-"}, "invalid_request", "not-a-person"),
        ]
        for more, error, reason in cases:
            answer = await town.exchange(**more)
            assert (answer.json()["error"], answer.json()["reason"]) == (error, reason), (more, answer.text)
            assert answer.status_code == (413 if reason == "too-large" else 400)
            assert answer.headers["cache-control"] == "no-store"
            assert not town.desk.authenticator.exchanged._held

    async def test_who_may_not_act_for_whom(self, town: Town) -> None:
        person, other = town.person(), town.person("00u-other")
        agent = (await town.desk.directory.issue_token("claude-ci")).secret.reveal()
        decider = await town.stepped_up("bob")
        delegated = (await town.granted())["access_token"]
        cases = {
            "a person for a person": ({"actor_token": other}, "unknown-principal"),
            "an agent for itself": ({"subject_token": agent, "subject_token_type": ACCESS_TOKEN}, "token-rejected"),
            "an actor that acts for somebody": ({"actor_token": delegated}, "token-rejected"),
            "a decision session": ({"subject_token": decider}, "token-rejected"),
            "a workload nobody knows": ({"actor_token": town.workload(repository="acme/other")}, "unknown-principal"),
            "one that may_act does not name": (
                {"subject_token": town.person(may_act={"sub": "somebody"}, jti="m")}, "missing-scope",
            ),
            "a chain that is the person again": ({"subject_token": delegated, "actor_token": agent}, "token-rejected"),
        }  # fmt: skip
        for name, (more, reason) in cases.items():
            answer = await town.exchange(**{"subject_token": person, **more})
            assert (answer.status_code, answer.json()["reason"]) == (400, reason), (name, answer.text)

    async def test_may_act_names_the_workload(self, town: Town) -> None:
        who = {"iss": town.ci.issuer, "sub": f"repo:{REPOSITORY}:ref:refs/heads/main"}
        assert await town.granted(subject_token=town.person(may_act=who))
        answer = await town.exchange(subject_token=town.person(may_act={"sub": who["sub"]}, jti="other issuer"))
        assert answer.json()["reason"] == "missing-scope"

    async def test_forms(self, town: Town) -> None:
        cases: list[tuple[bytes, str | None]] = [
            (b'{"grant_type": "x"}', "application/json"), (b"grant_type=x", ""), (b"grant_type=x&grant_type=x", None),
            (b"grant_type", None), (b"a=%ff", None), (b"\xff=1", None), (b"&".join(b"a%d=1" % n for n in range(40)), None),
            (b"a=" + b"x" * 300_000, None), (b"", None),
        ]  # fmt: skip
        async with town.client() as http:
            for content, kind in cases:
                headers = {"content-type": "application/x-www-form-urlencoded" if kind is None else kind}
                answer = await http.post("/v1/token", content=content, headers=headers)
                assert answer.status_code in (400, 413), content[:20]
                assert answer.json()["error"] in ("invalid_request", "unsupported_grant_type")

    async def test_tokens_are_not_taken_from_anywhere_else(self, town: Town) -> None:
        async with town.client() as http:
            answer = await http.post("/v1/token", params=town.asked(), data={"x": "y"})
            assert answer.json()["error"] == "unsupported_grant_type"
            assert (await http.get("/v1/token", params=town.asked())).status_code == 405

    async def test_no_secret_in_any_answer_or_record(self, town: Town) -> None:
        asked = town.asked(subject_token=town.person(aud="elsewhere"))
        async with town.client() as http:
            answer = await http.post("/v1/token", data=asked)
        for token in (asked["subject_token"], asked["actor_token"]):
            for part in token.split("."):
                assert part not in answer.text + town.desk.journal_text()
        assert json.loads(town.desk.journal_text().strip().splitlines()[-1])["type"] == "login"


class TestSingleUse:
    @pytest.fixture
    async def once(self, town: Town) -> Town:
        issuer = town.desk.authenticator.verifier._issuers[town.ci.issuer]
        town.desk.authenticator.verifier._issuers[town.ci.issuer] = issuer.model_copy(update={"single_use": None})
        return town

    async def test_a_token_of_one_use_that_comes_twice(self, once: Town) -> None:
        workload = once.workload()
        assert await once.granted(actor_token=workload)
        answer = await once.exchange(actor_token=workload)
        assert (answer.status_code, answer.json()["reason"]) == (400, "token-replayed")
        with pytest.raises(AuthenticationError) as caught:
            await once.principal(workload)
        assert caught.value.code is Reason.TOKEN_REPLAYED
        assert await once.granted(actor_token=once.workload(jti="another"))

    async def test_of_many_at_once_one_is_the_first(self, once: Town) -> None:
        workload = once.workload(jti="race")
        answers = await asyncio.gather(*(once.exchange(actor_token=workload) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
