"""From credentials to principals: each way in, each way to be refused, and what the journal says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness.change_journal import Journal
from harness.clock import ManualClock
from harness.issuer import FakeIssuer
from interlock.config import Issuer
from interlock.errors import AuthenticationError, EvidenceError, Reason
from interlock.identity import sshkey
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.oidc import TokenVerifier
from interlock.identity.passphrase import Passphrases
from interlock.identity.principal import CredentialKind, Identity, Kind

PHRASE = "correct horse battery"


@pytest.fixture
async def team(directory: Directory) -> Directory:
    await directory.add("alice", Kind.HUMAN, groups=["sre", "agents"], passphrase=PHRASE)
    await directory.add("bob", Kind.HUMAN, groups=["sre"], passphrase=PHRASE)
    await directory.add("claude-ci", Kind.AGENT, owner="alice", groups=["agents", "ci"])
    return directory


def identity(directory: Directory, handle: str) -> Identity:
    entry = directory.by_handle(handle)
    assert entry is not None
    return entry.identity


class TestSshKey:
    async def test_who_a_key_is(self, team: Directory, authenticator: Authenticator, journal: Journal) -> None:
        public = ed25519.Ed25519PrivateKey.generate().public_key()
        line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        blob = sshkey.parse(line).blob
        assert authenticator.ssh_key(blob) is None
        await team.add_ssh_key("claude-ci", line)
        before = len(journal.events)
        found = authenticator.ssh_key(blob)
        assert found is not None
        assert (found.handle, found.kind, found.owner_handle) == ("claude-ci", Kind.AGENT, "alice")
        assert found.credential.kind is CredentialKind.SSH_KEY
        assert found.credential.ident == sshkey.fingerprint(blob)
        assert len(journal.events) == before  # an offered key leaves no trace and changes nothing
        await team.set_disabled("alice", True)
        assert authenticator.ssh_key(blob) is None


class TestOpaqueTokens:
    async def test_a_token_opens_as_its_principal(
        self, team: Directory, authenticator: Authenticator, clock: ManualClock
    ) -> None:
        issued = await team.issue_token("claude-ci", timedelta(hours=1))
        found = await authenticator.token(issued.secret.reveal())
        assert (found.handle, found.groups) == ("claude-ci", {"agents", "ci"})
        assert (found.credential.kind, found.credential.ident) == (CredentialKind.TOKEN, issued.id)
        assert found.credential.expires == clock.now() + timedelta(hours=1)
        assert found.excluded() == {found.identity, identity(team, "alice")}

    async def test_tokens_that_open_nothing(self, team: Directory, authenticator: Authenticator, clock: ManualClock) -> None:
        issued = await team.issue_token("bob", timedelta(minutes=1))
        secret = issued.secret.reveal()
        for wrong in (
            "",
            "ilk_",
            secret[:-1],
            secret + "x",
            secret.upper(),
            secret.replace("ilk_", "ilp_"),
            "ilk_" + "A" * 43,
            "\ud800",
        ):
            with pytest.raises(AuthenticationError) as caught:
                await authenticator.token(wrong)
            assert caught.value.code is Reason.TOKEN_REJECTED
        clock.advance(60)
        with pytest.raises(AuthenticationError):
            await authenticator.token(secret)

    async def test_a_revoked_token_and_a_stopped_principal(self, team: Directory, authenticator: Authenticator) -> None:
        one, two = await team.issue_token("bob"), await team.issue_token("claude-ci")
        await team.revoke_token("bob", one.id)
        with pytest.raises(AuthenticationError):
            await authenticator.token(one.secret.reveal())
        await team.set_disabled("alice", True)
        with pytest.raises(AuthenticationError) as caught:
            await authenticator.token(two.secret.reveal())
        assert caught.value.code is Reason.DISABLED_PRINCIPAL

    async def test_a_refused_login_is_recorded_without_the_secret(
        self, team: Directory, authenticator: Authenticator, journal: Journal
    ) -> None:
        secret = "ilk_" + "s" * 43
        with pytest.raises(AuthenticationError) as caught:
            await authenticator.token(secret, source="192.0.2.1")
        (event,) = journal.of("login")
        assert event.fields == {"method": "token", "outcome": "refused", "reason": "token-rejected", "source": "192.0.2.1"}
        assert "sssss" not in journal.everything() + str(caught.value) + repr(caught.value)

    async def test_a_full_disk_lets_nobody_in_and_hides_no_refusal(
        self, team: Directory, authenticator: Authenticator, journal: Journal
    ) -> None:
        journal.broken = True
        with pytest.raises(AuthenticationError):
            await authenticator.token("ilk_x")
        with pytest.raises(EvidenceError):
            await authenticator.passphrase("bob", PHRASE)


class TestSource:
    async def test_guessing_from_one_place_slows_down_and_nowhere_else(
        self, team: Directory, authenticator: Authenticator, journal: Journal, clock: ManualClock
    ) -> None:
        good = (await team.issue_token("bob")).secret.reveal()
        codes = []
        for _ in range(40):
            with pytest.raises(AuthenticationError) as caught:
                await authenticator.token("ilk_wrong", source="192.0.2.1")
            codes.append(caught.value.code)
        assert codes == [Reason.TOKEN_REJECTED] * 21 + [Reason.LIMIT_REACHED] * 19
        assert len(journal.of("login")) == 22  # the limit is said once, so that guessing does not fill the disk
        with pytest.raises(AuthenticationError):
            await authenticator.token(good, source="192.0.2.1")
        with pytest.raises(AuthenticationError):
            authenticator.scram("bob", source="192.0.2.1")
        assert (await authenticator.token(good, source="192.0.2.2")).handle == "bob"
        clock.advance(1)
        assert (await authenticator.token(good, source="192.0.2.1")).handle == "bob"

    async def test_another_address_of_the_same_host_is_the_same_place(self, authenticator: Authenticator) -> None:
        """Who has one IPv6 address has 2^64."""
        codes = []
        for number in range(30):
            with pytest.raises(AuthenticationError) as caught:
                await authenticator.token("ilk_wrong", source=f"2001:db8:0:1::{number:x}")
            codes.append(caught.value.code)
        assert Reason.LIMIT_REACHED in codes
        with pytest.raises(AuthenticationError) as caught:
            await authenticator.token("ilk_wrong", source="2001:db8:0:2::1")
        assert caught.value.code is Reason.TOKEN_REJECTED

    async def test_the_table_of_sources_is_bounded(self, authenticator: Authenticator) -> None:
        for number in range(10_100):
            authenticator._by_source.failed(f"2001:db8::{number:x}")
        assert len(authenticator._by_source._table) == 10_000


class TestScram:
    async def test_the_verifier_that_matched_names_the_session(
        self, team: Directory, authenticator: Authenticator, clock: ManualClock
    ) -> None:
        issued = await team.issue_password("claude-ci")
        assert [v.id for v in authenticator.scram("claude-ci").verifiers] == [issued.id]
        found = authenticator.scram_principal("claude-ci", issued.id)
        assert (found.handle, found.credential.kind, found.credential.ident) == ("claude-ci", CredentialKind.SCRAM, issued.id)
        assert not found.expired(clock.now())
        clock.advance(15 * 60)
        assert found.expired(clock.now())

    async def test_verifiers_of_others_ended_or_stopped(
        self, team: Directory, authenticator: Authenticator, clock: ManualClock
    ) -> None:
        bobs = await team.issue_password("bob", timedelta(minutes=1))
        for handle, ident in (("claude-ci", bobs.id), ("bob", "pwd_made-up"), ("nobody", bobs.id), ("bob", "")):
            with pytest.raises(AuthenticationError):
                authenticator.scram_principal(handle, ident)
        clock.advance(60)
        with pytest.raises(AuthenticationError):
            authenticator.scram_principal("bob", bobs.id)
        again = await team.issue_password("bob")
        await team.set_disabled("bob", True)
        with pytest.raises(AuthenticationError):
            authenticator.scram_principal("bob", again.id)


class TestPassphrase:
    async def test_the_right_one(
        self, team: Directory, authenticator: Authenticator, journal: Journal, clock: ManualClock
    ) -> None:
        found = await authenticator.passphrase("bob", PHRASE, source="192.0.2.9")
        assert (found.handle, found.credential.kind, found.assurance.amr) == ("bob", CredentialKind.PASSPHRASE, ("pwd",))
        assert found.assurance.auth_time == clock.now()
        assert journal.of("login")[-1].fields["outcome"] == "accepted"
        assert PHRASE not in journal.everything()

    async def test_one_form_for_what_looks_the_same(self, team: Directory, authenticator: Authenticator) -> None:
        await team.set_passphrase("bob", "caf\u00e9 au lait bleu")
        assert await authenticator.passphrase("bob", "cafe\u0301 au lait bleu")

    async def test_every_failure_says_the_same(self, team: Directory, authenticator: Authenticator, journal: Journal) -> None:
        await team.add("carol", Kind.HUMAN)
        await team.set_disabled("alice", True)
        said = set()
        for handle in ("bob", "nobody", "carol", "alice", "claude-ci", "", "x" * 500, "\ud800"):
            with pytest.raises(AuthenticationError) as caught:
                await authenticator.passphrase(handle, PHRASE if handle == "alice" else "wrong horse battery")
            said.add((str(caught.value), caught.value.code))
        assert len(said) == 1
        assert all(len(str(e.secret.get("handle", ""))) <= 64 for e in journal.of("login"))

    async def test_a_name_that_nobody_has_is_committed_to_not_shown(
        self, team: Directory, authenticator: Authenticator, journal: Journal
    ) -> None:
        with pytest.raises(AuthenticationError):
            await authenticator.passphrase("my-passphrase-typed-as-name", "x")
        (event,) = journal.of("login")
        assert "typed" not in repr(event.fields)
        assert event.secret == {"handle": "my-passphrase-typed-as-name"}

    async def test_nobody_costs_as_much_as_somebody(self, team: Directory, clock: ManualClock, journal: Journal) -> None:
        """Both run Argon2 exactly once: counted, not timed."""
        passphrases = Passphrases(memory_kib=64, passes=1)
        counted: list[str] = []
        verify = passphrases._hasher.verify
        passphrases._check(None, b"warm")
        authenticator = Authenticator(team, clock=clock, journal=journal, passphrases=passphrases)

        class Counting:
            def verify(self, stored: str, prepared: bytes) -> bool:
                counted.append(stored.rsplit("$", 2)[0])
                return verify(stored, prepared)

        passphrases._hasher = Counting()  # type: ignore[assignment]
        for handle in ("bob", "nobody"):
            with pytest.raises(AuthenticationError):
                await authenticator.passphrase(handle, "wrong horse battery")
        assert len(counted) == 2
        assert counted[0] == counted[1]  # the same algorithm and cost
        await authenticator.close()

    @pytest.mark.parametrize("handle", ["bob", "nobody"])
    async def test_backoff(self, team: Directory, authenticator: Authenticator, clock: ManualClock, handle: str) -> None:
        async def attempt(passphrase: str) -> Reason | None:
            try:
                await authenticator.passphrase(handle, passphrase)
            except AuthenticationError as error:
                return error.code
            return None

        for _ in range(6):
            assert await attempt("wrong") is Reason.NOT_AUTHENTICATED
        assert await attempt(PHRASE) is Reason.LIMIT_REACHED
        for wait in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300):
            clock.advance(wait - 0.5)
            assert await attempt(PHRASE) is Reason.LIMIT_REACHED
            clock.advance(0.5)
            assert await attempt("wrong") is Reason.NOT_AUTHENTICATED
        clock.advance(300)
        assert await attempt(PHRASE) is (None if handle == "bob" else Reason.NOT_AUTHENTICATED)
        if handle == "bob":
            assert await attempt("wrong") is Reason.NOT_AUTHENTICATED
            assert await attempt(PHRASE) is None

    async def test_a_hundred_guesses_at_once_are_not_a_hundred_guesses(
        self, team: Directory, authenticator: Authenticator, clock: ManualClock
    ) -> None:
        attempts = [authenticator.passphrase("bob", f"guess number {n}") for n in range(100)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        codes = [r.code for r in results if isinstance(r, AuthenticationError)]
        assert codes.count(Reason.NOT_AUTHENTICATED) == 6
        assert codes.count(Reason.LIMIT_REACHED) == 94

    async def test_a_clock_set_forward_shortens_no_wait(
        self, team: Directory, authenticator: Authenticator, clock: ManualClock
    ) -> None:
        for _ in range(6):
            with pytest.raises(AuthenticationError):
                await authenticator.passphrase("bob", "wrong")
        clock.step(86_400)
        with pytest.raises(AuthenticationError) as caught:
            await authenticator.passphrase("bob", PHRASE)
        assert caught.value.code is Reason.LIMIT_REACHED

    async def test_stopped_while_the_hash_was_computed(self, team: Directory, clock: ManualClock, journal: Journal) -> None:
        class Slow(Passphrases):
            async def check(self, stored: str | None, passphrase: str) -> bool:
                matches = await super().check(stored, passphrase)
                await team.set_disabled("bob", True)
                return matches

        authenticator = Authenticator(team, clock=clock, journal=journal, passphrases=Slow(memory_kib=64, passes=1))
        with pytest.raises(AuthenticationError):
            await authenticator.passphrase("bob", PHRASE)
        await authenticator.close()

    async def test_nobody_is_locked_out_from_afar(
        self, team: Directory, authenticator: Authenticator, clock: ManualClock
    ) -> None:
        """Attack: one foreign source fails at the reviewer's name until the reviewer can deny nothing any more."""
        for _ in range(200):
            with pytest.raises(AuthenticationError):
                await authenticator.passphrase("bob", "wrong horse battery", source="203.0.113.66")
            clock.advance(2)
        assert (await authenticator.passphrase("bob", PHRASE, source="192.0.2.9")).handle == "bob"

    async def test_many_sources_together_are_slowed_down_for_seconds_only(
        self, team: Directory, authenticator: Authenticator, clock: ManualClock
    ) -> None:
        codes = []
        for number in range(300):
            with pytest.raises(AuthenticationError) as caught:
                await authenticator.passphrase("bob", "wrong horse battery", source=f"2001:db8:0:{number:x}::1")
            codes.append(caught.value.code)
        assert codes == [Reason.NOT_AUTHENTICATED] * 101 + [Reason.LIMIT_REACHED] * 199
        clock.advance(5)
        assert (await authenticator.passphrase("bob", PHRASE, source="192.0.2.9")).handle == "bob"

    async def test_a_flood_from_one_source_is_refused_before_it_is_computed(
        self, team: Directory, authenticator: Authenticator, clock: ManualClock
    ) -> None:
        """Attack: a thousand names at once, each of which would cost 64 MiB and a thread's time."""
        attempts = [authenticator.passphrase(f"name{n}", PHRASE, source="203.0.113.66") for n in range(100)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        codes = [r.code for r in results if isinstance(r, AuthenticationError)]
        assert codes.count(Reason.NOT_AUTHENTICATED) == 21
        assert codes.count(Reason.LIMIT_REACHED) == 79
        assert (await authenticator.passphrase("bob", PHRASE, source="192.0.2.9")).handle == "bob"

    async def test_who_is_right_costs_the_source_nothing_and_wipes_nothing_away(
        self, team: Directory, authenticator: Authenticator
    ) -> None:
        for _ in range(50):
            await authenticator.passphrase("bob", PHRASE, source="192.0.2.9")
        for number in range(21):  # with a login of one's own in between
            with pytest.raises(AuthenticationError) as caught:
                await authenticator.passphrase(f"name{number}", PHRASE, source="192.0.2.9")
            assert caught.value.code is Reason.NOT_AUTHENTICATED
            if number < 20:
                await authenticator.passphrase("bob", PHRASE, source="192.0.2.9")
        with pytest.raises(AuthenticationError) as caught:
            await authenticator.passphrase("bob", PHRASE, source="192.0.2.9")
        assert caught.value.code is Reason.LIMIT_REACHED


class TestJwt:
    """People come from one issuer, workloads from another."""

    @pytest.fixture
    async def people(self) -> AsyncIterator[FakeIssuer]:
        async with FakeIssuer() as opened:
            yield opened

    @pytest.fixture
    async def workloads(self) -> AsyncIterator[FakeIssuer]:
        async with FakeIssuer() as opened:
            yield opened

    @pytest.fixture
    async def house(
        self, team: Directory, clock: ManualClock, journal: Journal, people: FakeIssuer, workloads: FakeIssuer
    ) -> AsyncIterator[Authenticator]:
        issuers = [
            Issuer(name="people", issuer=people.issuer, audience="interlock", kind="human"),
            Issuer(name="ci", issuer=workloads.issuer, audience="interlock", kind="agent"),
        ]
        opened = Authenticator(team, clock=clock, journal=journal, verifier=TokenVerifier(issuers, clock=clock))
        yield opened
        await opened.close()

    @staticmethod
    def token(issuer: FakeIssuer, clock: ManualClock, sub: str, **more: Any) -> str:
        now = int(clock.now().timestamp())
        return issuer.token(
            {"iss": issuer.issuer, "aud": "interlock", "sub": sub, "jti": "j", "iat": now, "exp": now + 600, **more}
        )

    async def test_a_person_whom_only_the_issuer_knows(
        self, house: Authenticator, people: FakeIssuer, clock: ManualClock
    ) -> None:
        found = await house.token(self.token(people, clock, "00u9", groups=["dba"]))
        assert found.identity == Identity(people.issuer, "00u9")
        assert (found.kind, found.groups, found.owner) == (Kind.HUMAN, {"dba"}, None)
        assert found.handle.startswith("jwt-")
        assert found.credential.kind is CredentialKind.JWT
        assert found.credential.expires == clock.now() + timedelta(seconds=600)

    async def test_a_subject_named_like_a_handle_is_not_that_person(
        self, house: Authenticator, team: Directory, people: FakeIssuer, clock: ManualClock
    ) -> None:
        found = await house.token(self.token(people, clock, "bob"))
        assert found.handle != "bob"
        assert found.groups == frozenset()
        assert identity(team, "bob") not in found.excluded()

    async def test_a_linked_person(self, house: Authenticator, team: Directory, people: FakeIssuer, clock: ManualClock) -> None:
        await team.link("bob", Identity(people.issuer, "00u1"))
        found = await house.token(self.token(people, clock, "00u1", groups=["dba"]))
        assert (found.handle, found.groups) == ("bob", {"sre", "dba"})
        assert found.identity == identity(team, "bob")
        assert Identity(people.issuer, "00u1") in found.excluded()
        await team.set_disabled("bob", True)
        with pytest.raises(AuthenticationError) as caught:
            await house.token(self.token(people, clock, "00u1"))
        assert caught.value.code is Reason.DISABLED_PRINCIPAL

    async def test_an_agent_nobody_answers_for(self, house: Authenticator, workloads: FakeIssuer, clock: ManualClock) -> None:
        with pytest.raises(AuthenticationError) as caught:
            await house.token(self.token(workloads, clock, "repo:acme/app"))
        assert caught.value.code is Reason.UNKNOWN_PRINCIPAL

    async def test_an_agent_gets_its_owner_from_the_directory(
        self, house: Authenticator, team: Directory, workloads: FakeIssuer, clock: ManualClock
    ) -> None:
        await team.link("claude-ci", Identity(workloads.issuer, "repo:acme/app"))
        found = await house.token(self.token(workloads, clock, "repo:acme/app", owner="mallory"))
        assert (found.handle, found.kind, found.owner_handle) == ("claude-ci", Kind.AGENT, "alice")
        assert {identity(team, "alice"), identity(team, "claude-ci")} <= found.excluded()
        await team.remove("alice")
        with pytest.raises(AuthenticationError):
            await house.token(self.token(workloads, clock, "repo:acme/app"))

    async def test_an_issuer_of_agents_vouches_for_no_person(
        self, house: Authenticator, team: Directory, people: FakeIssuer, workloads: FakeIssuer, clock: ManualClock
    ) -> None:
        await team.link("bob", Identity(workloads.issuer, "repo:evil"))
        with pytest.raises(AuthenticationError, match="another kind"):
            await house.token(self.token(workloads, clock, "repo:evil"))
        await team.link("claude-ci", Identity(people.issuer, "00u7"))
        with pytest.raises(AuthenticationError, match="another kind"):
            await house.token(self.token(people, clock, "00u7"))

    async def test_an_agent_for_a_person(
        self, house: Authenticator, team: Directory, people: FakeIssuer, workloads: FakeIssuer, clock: ManualClock
    ) -> None:
        """Authority is the intersection, and everybody in the chain is excluded, with all their accounts."""
        await team.link("claude-ci", Identity(workloads.issuer, "repo:acme/app"))
        await team.link("bob", Identity(people.issuer, "00u1"))
        act = {"sub": "repo:acme/app", "iss": workloads.issuer, "act": {"sub": "earlier", "iss": workloads.issuer}}
        found = await house.token(self.token(people, clock, "00u1", groups=["ci"], act=act))
        assert (found.handle, found.kind, found.owner_handle) == ("claude-ci", Kind.AGENT, "alice")
        assert found.identity == identity(team, "claude-ci")
        assert found.acting_for == (Identity(workloads.issuer, "earlier"), identity(team, "bob"))
        assert found.acting_for_handles[1] == "bob"
        assert [(one.handle, set(one.groups)) for one in found.behind] == [("bob", {"sre", "ci"})]
        assert [set(view.groups) for view in found.views()] == [{"agents", "ci"}, {"sre", "ci"}]
        assert {identity(team, h) for h in ("alice", "bob", "claude-ci")} <= found.excluded()

    async def test_everybody_in_the_chain_must_be_active(
        self, house: Authenticator, team: Directory, people: FakeIssuer, workloads: FakeIssuer, clock: ManualClock
    ) -> None:
        await team.link("claude-ci", Identity(workloads.issuer, "now"))
        await team.add("older", Kind.AGENT, owner="bob")
        await team.link("older", Identity(workloads.issuer, "earlier"))
        act = {"sub": "now", "iss": workloads.issuer, "act": {"sub": "earlier", "iss": workloads.issuer}}
        assert await house.token(self.token(people, clock, "00u5", act=act))
        await team.set_disabled("older", True)
        with pytest.raises(AuthenticationError) as caught:
            await house.token(self.token(people, clock, "00u5", act=act))
        assert caught.value.code is Reason.DISABLED_PRINCIPAL

    @pytest.mark.parametrize("actor", ["stranger", "00u2"])
    async def test_an_actor_that_is_no_registered_agent(
        self, house: Authenticator, team: Directory, people: FakeIssuer, clock: ManualClock, actor: str
    ) -> None:
        await team.link("bob", Identity(people.issuer, "00u2"))
        with pytest.raises(AuthenticationError) as caught:
            await house.token(self.token(people, clock, "00u1", act={"sub": actor}))
        assert caught.value.code is Reason.UNKNOWN_PRINCIPAL

    async def test_the_token_is_nowhere(
        self, house: Authenticator, people: FakeIssuer, clock: ManualClock, journal: Journal
    ) -> None:
        token = self.token(people, clock, "00u1", nbf=clock.now().timestamp() + 9999)
        with pytest.raises(AuthenticationError) as caught:
            await house.token(token)
        for part in token.split("."):
            assert part not in journal.everything() + str(caught.value)
