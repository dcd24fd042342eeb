"""Tokens of platforms: which workload is whom, and how another workload, person or platform does not become it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.change_journal import Journal
from harness.clock import ManualClock
from harness.issuer import FakeIssuer
from harness.trust import TRUST
from interlock.config import Config, Issuer, parse
from interlock.errors import AuthenticationError, ConfigError, Reason
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.oidc import TokenVerifier
from interlock.identity.principal import CredentialKind, Identity, Kind, Principal
from interlock.store.engine import Store

DOMAIN = "prod.example"

GITHUB = {
    "sub": "repo:acme/app:environment:production", "repository": "acme/app", "repository_id": "74", "ref": "refs/heads/main",
    "repository_owner": "acme", "environment": "production", "workflow": "deploy", "event_name": "push", "run_id": "1",
}  # fmt: skip
KUBERNETES = {
    "sub": "system:serviceaccount:prod:deployer",
    "kubernetes.io": {
        "namespace": "prod", "node": {"name": "n1"}, "pod": {"name": "deployer-7f", "uid": "u"},
        "serviceaccount": {"name": "deployer", "uid": "u"},
    },
}  # fmt: skip
ENTRA = {"sub": "pairwise", "oid": "9f1c", "azp": "app-1", "azpacr": "2", "idtyp": "app", "tid": "t", "uti": "u1", "jti": ...}
SPIFFE = {"sub": f"spiffe://{DOMAIN}/ns/prod/sa/deployer", "iss": ..., "jti": ...}

PLATFORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # platform: typ, claims, what is matched, further keys of the issuer
    "github-actions": ("JWT", GITHUB, {"repository": "acme/app", "environment": ["production", "staging"]}, {}),
    "kubernetes": ("", {**KUBERNETES, "jti": ...}, {"namespace": "prod", "serviceaccount": "deployer"}, {}),
    "spiffe": ("JOSE", SPIFFE, {"sub": f"spiffe://{DOMAIN}/ns/prod/sa/deployer"}, {"trust_domain": DOMAIN}),
    "entra": ("JWT", ENTRA, {"oid": "9f1c"}, {}),
    "generic": ("JWT", {"sub": "svc-7"}, {"sub": "svc-7"}, {}),
}


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as opened:
        yield opened


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=TRUST, timeout=60) as client:
        yield client


class Platform:
    """One platform's issuer, and the agent `deployer` that its workload is."""

    def __init__(
        self, name: str, issuer: FakeIssuer, directory: Directory, store: Store, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        self.typ, self.claims, self.matched, self.more = PLATFORMS[name]
        self.name, self.issuer, self.clock = name, issuer, clock
        self.directory, self._store, self._http = directory, store, http

    def authenticator(self, **changes: Any) -> Authenticator:
        pinned = Issuer.model_validate({
            "name": "p", "issuer": self.issuer.issuer, "audience": "interlock", "kind": "agent", "platform": self.name,
            "jwks_url": self.issuer.issuer + "/keys", "workloads": [{"principal": "deployer", "claims": self.matched}],
            **self.more, **changes,
        })  # fmt: skip
        verifier = TokenVerifier([pinned], clock=self.clock, client=lambda: self._http)
        return Authenticator(
            self.directory, clock=self.clock, journal=Journal(), verifier=verifier, replays=self._store.deliveries
        )

    def token(self, claims: Mapping[str, Any] | None = None, typ: str | None = None, **more: Any) -> str:
        now = int(self.clock.now().timestamp())
        made: dict[str, Any] = {"iss": self.issuer.issuer, "aud": "interlock", "iat": now, "exp": now + 600, "jti": "j1"}
        made |= {**self.claims, **(claims or {}), **more}
        given = {name: value for name, value in made.items() if value is not ...}
        return self.issuer.token(given, headers={"typ": self.typ if typ is None else typ})

    async def refused(self, token: str, **changes: Any) -> Reason:
        with pytest.raises(AuthenticationError) as caught:
            await self.authenticator(**changes).token(token)
        return caught.value.code


@pytest.fixture(params=list(PLATFORMS))
async def platform(
    request: pytest.FixtureRequest, issuer: FakeIssuer, directory: Directory, store: Store, clock: ManualClock,
    http: httpx.AsyncClient,
) -> Platform:  # fmt: skip
    return await made(request.param, issuer, directory, store, clock, http)


async def made(
    name: str, issuer: FakeIssuer, directory: Directory, store: Store, clock: ManualClock, http: httpx.AsyncClient
) -> Platform:
    await directory.add("alice", Kind.HUMAN)
    await directory.add("deployer", Kind.AGENT, owner="alice", groups=["agents"])
    return Platform(name, issuer, directory, store, clock, http)


def check(found: Principal, platform: Platform) -> None:
    entry = platform.directory.by_handle("deployer")
    assert entry is not None
    assert (found.identity, found.handle, found.kind) == (entry.identity, "deployer", Kind.AGENT)
    assert (found.owner_handle, found.groups) == ("alice", {"agents"})
    assert found.credential.kind is CredentialKind.JWT
    assert found.credential.ident
    assert any(one.issuer == platform.issuer.issuer for one in found.linked)


async def test_a_workload_is_the_agent_that_the_configuration_says(platform: Platform) -> None:
    check(await platform.authenticator().token(platform.token()), platform)


async def test_every_claim_must_match_exactly(platform: Platform) -> None:
    for name in platform.matched:
        for value in ("other", "", None, 7, True, ["acme/app"], {"x": 1}, "ACME/APP", "acme/app/", "acme/app "):
            token = platform.token({name: value})
            if platform.name == "kubernetes":
                private = {**KUBERNETES["kubernetes.io"]}  # type: ignore[dict-item]
                private |= {"namespace": value} if name == "namespace" else {"serviceaccount": {"name": value}}
                token = platform.token({"kubernetes.io": private})
            assert await platform.refused(token) in (Reason.TOKEN_REJECTED, Reason.UNKNOWN_PRINCIPAL), (name, value)


async def test_nobody_answers_for_an_unregistered_one(platform: Platform) -> None:
    await platform.directory.remove("deployer")
    assert await platform.refused(platform.token()) is Reason.UNKNOWN_PRINCIPAL


async def test_an_owner_who_is_stopped_stops_it(platform: Platform) -> None:
    await platform.directory.set_disabled("alice", True)
    assert await platform.refused(platform.token()) is Reason.DISABLED_PRINCIPAL


async def test_a_person_is_no_workload(platform: Platform) -> None:
    changes = {"workloads": [{"principal": "alice", "claims": platform.matched}]}
    assert await platform.refused(platform.token(), **changes) is Reason.TOKEN_REJECTED


async def test_two_entries_that_fit_are_nobody(platform: Platform) -> None:
    await platform.directory.add("other", Kind.AGENT, owner="alice")
    two = [{"principal": name, "claims": platform.matched} for name in ("deployer", "other")]
    assert await platform.refused(platform.token(), workloads=two) is Reason.TOKEN_REJECTED


async def test_the_rules_of_all_tokens_hold(platform: Platform) -> None:
    now = int(platform.clock.now().timestamp())
    for more, reason in (
        ({"aud": "other"}, Reason.TOKEN_REJECTED), ({"exp": now - 61}, Reason.TOKEN_EXPIRED),
        ({"exp": ...}, Reason.TOKEN_REJECTED),
        ({"iat": ...}, Reason.TOKEN_REJECTED), ({"iss": "https://elsewhere.example"}, Reason.TOKEN_REJECTED),
        ({"nonce": "n"}, Reason.TOKEN_REJECTED),
    ):  # fmt: skip
        assert await platform.refused(platform.token(more)) is reason, more
    for typ in ("logout+jwt", "id+jwt", "dpop+jwt"):
        assert await platform.refused(platform.token(typ=typ)) is Reason.TOKEN_REJECTED


@pytest.mark.parametrize("single", [None, True])
async def test_github_s_tokens_are_good_once(
    issuer: FakeIssuer, directory: Directory, store: Store, clock: ManualClock, http: httpx.AsyncClient, single: bool | None
) -> None:
    github = await made("github-actions", issuer, directory, store, clock, http)
    house, token = github.authenticator(single_use=single), github.token()
    check(await house.token(token), github)
    for _ in range(2):
        with pytest.raises(AuthenticationError) as caught:
            await house.token(token)
        assert caught.value.code is Reason.TOKEN_REPLAYED
    assert await github.refused(token, single_use=single) is Reason.TOKEN_REPLAYED  # another process over the same store
    check(await house.token(github.token(jti="j2")), github)
    assert await github.authenticator(single_use=False).token(token)


class TestKubernetes:
    async def test_sub_and_private_claims_say_the_same(
        self, issuer: FakeIssuer, directory: Directory, store: Store, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        cluster = await made("kubernetes", issuer, directory, store, clock, http)
        for sub in ("system:serviceaccount:prod:other", "system:serviceaccount:dev:deployer", "deployer", "system:node:n1"):
            assert await cluster.refused(cluster.token(sub=sub)) is Reason.TOKEN_REJECTED
        for private in (..., None, "x", {}, {"namespace": "prod"}, {"namespace": "prod", "serviceaccount": "deployer"}):
            token = cluster.token({"kubernetes.io": private})
            assert await cluster.refused(token) in (Reason.TOKEN_REJECTED, Reason.UNKNOWN_PRINCIPAL)

    async def test_the_same_token_has_the_same_name_without_a_jti(
        self, issuer: FakeIssuer, directory: Directory, store: Store, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        cluster = await made("kubernetes", issuer, directory, store, clock, http)
        house, token = cluster.authenticator(), cluster.token()
        idents = {(await house.token(token)).credential.ident for _ in range(2)}
        assert len(idents) == 1 and idents.pop().startswith("sha256-")
        assert (await house.token(cluster.token(jti="given"))).credential.ident == "given"


class TestSpiffe:
    async def test_other_trust_domains(
        self, issuer: FakeIssuer, directory: Directory, store: Store, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        spire = await made("spiffe", issuer, directory, store, clock, http)
        path = "/ns/prod/sa/deployer"
        for sub in (
            f"spiffe://dev.example{path}", f"spiffe://{DOMAIN}.evil.example{path}", f"https://{DOMAIN}{path}", path,
            f"spiffe://user@{DOMAIN}{path}", f"SPIFFE://{DOMAIN}{path}", "spiffe://", 7,
        ):  # fmt: skip
            for iss in (..., issuer.issuer):
                assert await spire.refused(spire.token(sub=sub, iss=iss)) is Reason.TOKEN_REJECTED, (sub, iss)
        check(await spire.authenticator().token(spire.token(iss=issuer.issuer)), spire)


class TestEntra:
    async def test_a_person_s_token_through_the_same_application(
        self, issuer: FakeIssuer, directory: Directory, store: Store, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        entra = await made("entra", issuer, directory, store, clock, http)
        by_app = {"workloads": [{"principal": "deployer", "claims": {"azp": "app-1"}}]}
        check(await entra.authenticator(**by_app).token(entra.token()), entra)
        person = entra.token(scp="user_impersonation", oid="a-person")
        assert await entra.refused(person, **by_app) is Reason.TOKEN_REJECTED

    async def test_people_are_known_by_oid_and_an_id_token_is_none(
        self, issuer: FakeIssuer, directory: Directory, store: Store, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        entra = await made("entra", issuer, directory, store, clock, http)
        await directory.link("alice", Identity(issuer.issuer, "9f1c"))
        people = {"kind": "human", "workloads": []}
        found = await entra.authenticator(**people).token(entra.token(scp="access", idtyp=...))
        assert (found.handle, found.credential.ident) == ("alice", "u1")
        assert await entra.refused(entra.token(idtyp=...), **people) is Reason.TOKEN_REJECTED


class TestConfiguration:
    def parsed(self, tmp_path: Path, **issuer: Any) -> Config:
        whole = {"name": "i", "issuer": "https://i.example", "audience": "interlock", "kind": "agent", **issuer}
        return parse({"version": 1, "node": {"data_dir": "d"}, "identity": {"issuers": [whole]}}, base=tmp_path)

    @pytest.mark.parametrize(
        ("issuer", "says"),
        [
            ({"platform": "github-actions", "workloads": [{"principal": "a", "claims": {"ref": "main"}}]}, "must name"),
            ({"platform": "github-actions", "workloads": [{"principal": "a", "claims": {"actor": "bob"}}]}, "repository"),
            ({"platform": "kubernetes", "workloads": [{"principal": "a", "claims": {"namespace": "prod"}}]}, "serviceaccount"),
            ({"workloads": [{"principal": "a", "claims": {"sub": "repo:acme/*"}}]}, "patterns are not matched"),
            ({"workloads": [{"principal": "a", "claims": {"sub": ""}}]}, "whole values"),
            ({"workloads": [{"principal": "a", "claims": {"sub": []}}]}, "is empty"),
            ({"workloads": [{"principal": "a", "claims": {"sub": "x", "iss": "y"}}]}, "iss is checked for every token"),
            ({"workloads": [{"principal": "a", "claims": {}}]}, "claims"),
            ({"workloads": [{"principal": "Not A Handle", "claims": {"sub": "x"}}]}, "principal"),
            ({"workloads": [{"principle": "a", "claims": {"sub": "x"}}]}, "did you mean 'principal'"),
            ({"kind": "human", "platform": "github-actions"}, "kind: agent or service"),
            ({"kind": "human", "workloads": [{"principal": "a", "claims": {"sub": "x"}}]}, "kind: agent or service"),
            ({"platform": "spiffe", "trust_domain": DOMAIN}, "jwks_url"),
            ({"platform": "spiffe", "jwks_url": "https://k.example"}, "trust_domain"),
            ({"trust_domain": DOMAIN}, "trust_domain"),
            ({"platform": "jenkins"}, "platform"),
            ({"audience": ""}, "audience"),
            ({"max_age": "0s"}, "max_age"),
        ],
    )
    def test_what_interlock_check_refuses(self, tmp_path: Path, issuer: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            self.parsed(tmp_path, **issuer)

    def test_two_issuers_of_one_name_and_scim_of_none(self, tmp_path: Path) -> None:
        one = {"name": "i", "issuer": "https://i.example", "audience": "a"}
        for identity in (
            {"issuers": [one, {**one, "issuer": "https://j.example"}]}, {"issuers": [one, {**one, "name": "j"}]},
            {"issuers": [one], "scim": {"token": "env:X", "issuer": "k"}},
            {"issuers": [{**one, "kind": "agent"}], "scim": {"token": "env:X", "issuer": "i"}},
            {"issuers": [one], "scim": {"token": "secret", "issuer": "i"}},
        ):  # fmt: skip
            with pytest.raises(ConfigError):
                parse({"version": 1, "node": {"data_dir": "d"}, "identity": identity}, base=tmp_path)

    def test_tokens_of_one_use_are_remembered_longer_than_they_live(self, tmp_path: Path) -> None:
        (issuer,) = self.parsed(tmp_path, platform="github-actions", max_age="30d").issuers
        assert (issuer.once, issuer.oldest) == (True, 12 * 3600)

    def test_one_use_without_a_place_to_remember(self, directory: Directory, clock: ManualClock) -> None:
        issuer = Issuer(name="i", issuer="https://i.example", audience="a", kind="agent", single_use=True)
        with pytest.raises(ConfigError, match="one use"):
            Authenticator(directory, clock=clock, journal=Journal(), issuers=[issuer])
