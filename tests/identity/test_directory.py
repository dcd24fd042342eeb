"""The directory on a real store: what can be registered, what a change does and in which order, who is stopped."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness.change_journal import Journal, seeded
from harness.clock import ManualClock
from interlock.errors import AuthenticationError, ConfigError, EvidenceError, InterlockError, NotFoundError, Reason, StoreError
from interlock.evidence.events import EventDraft
from interlock.identity import sshkey
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.directory import Directory
from interlock.identity.passphrase import Passphrases
from interlock.identity.principal import Credential, CredentialKind, Identity, Kind
from interlock.identity.scram import PLAIN, ScramClient, ScramServer, salted_password
from interlock.store.engine import Store
from interlock.store.principals import PrincipalRow

TENANT = "0a0b0c0d-0000-4000-8000-000000000001"
OID = "0a0b0c0d-0000-4000-8000-00000000000a"
OKTA = Identity("https://okta.example", "00u1")
PHRASE = "correct horse battery"


def key_line(comment: str = "") -> str:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{line} {comment}" if comment else line


@pytest.fixture
async def team(directory: Directory) -> Directory:
    """Alice owns the agent claude-ci; Bob reviews."""
    await directory.add("alice", Kind.HUMAN, groups=["sre"], passphrase=PHRASE)
    await directory.add("bob", Kind.HUMAN, groups=["sre"], passphrase=PHRASE)
    await directory.add("claude-ci", Kind.AGENT, owner="alice", groups=["agents"])
    return directory


async def reopened(store: Store, clock: ManualClock) -> Directory:
    """The directory as another process would find it."""
    again = Directory(store.principals, clock=clock, entropy=seeded("again"), journal=Journal(), salt_secret=b"secret")
    await again.load()
    return again


class TestRegistering:
    async def test_what_was_added_is_found_also_after_a_restart(self, team: Directory, store: Store, clock: ManualClock) -> None:
        line = key_line("laptop")
        await team.add_ssh_key("claude-ci", line)
        await team.link_teams("bob", TENANT.upper(), OID)
        for directory in (team, await reopened(store, clock)):
            agent = directory.by_handle("claude-ci")
            alice = directory.by_handle("alice")
            assert agent is not None
            assert alice is not None
            assert (agent.kind, agent.owner, agent.owner_handle) == (Kind.AGENT, alice.identity, "alice")
            assert directory.by_ssh_key(sshkey.parse(line).blob) == agent
            assert directory.by_teams(TENANT, OID.upper()) == directory.by_handle("bob")
            assert directory.get(alice.identity) == alice
            assert alice.reviewer
            assert alice.groups == {"sre"}
        assert team.entries() == (await reopened(store, clock)).entries()

    @pytest.mark.parametrize(
        "handle",
        [
            "",
            "Alice",
            "-x",
            ".x",
            "a b",
            "a,b",
            "a@b",
            "a\nb",
            "a\x1b[31m",
            "älice",
            "a" * 64,
            "a/b",
            "jwt-0123456789abcdef",
            "a\n",
        ],
    )
    async def test_handles_that_can_not_be(self, directory: Directory, handle: str) -> None:
        with pytest.raises(ConfigError):
            await directory.add(handle, Kind.HUMAN)
        assert directory.entries() == ()

    async def test_a_handle_is_unique(self, team: Directory) -> None:
        with pytest.raises(ConfigError, match="taken"):
            await team.add("alice", Kind.SERVICE)

    async def test_a_freed_handle_inherits_nothing(self, team: Directory) -> None:
        before = team.by_handle("alice")
        await team.remove("alice")
        after = await team.add("alice", Kind.HUMAN)
        agent = team.by_handle("claude-ci")
        assert before is not None
        assert agent is not None
        assert after.identity != before.identity
        assert agent.owner == before.identity
        assert agent.disabled  # its owner is gone; the new alice does not answer for it

    @pytest.mark.parametrize("owner", [None, "nobody", "claude-ci", "robot"])
    async def test_an_agent_needs_an_owner_that_is_a_person(self, team: Directory, owner: str | None) -> None:
        await team.add("robot", Kind.SERVICE)
        with pytest.raises(ConfigError, match="owner"):
            await team.add("second", Kind.AGENT, owner=owner)

    async def test_a_disabled_person_owns_nothing_new(self, team: Directory) -> None:
        await team.set_disabled("bob", True)
        with pytest.raises(ConfigError, match="owner"):
            await team.add("second", Kind.AGENT, owner="bob")

    async def test_a_person_has_no_owner(self, team: Directory) -> None:
        with pytest.raises(ConfigError):
            await team.add("carol", Kind.HUMAN, owner="alice")

    @pytest.mark.parametrize("kind", [Kind.AGENT, Kind.SERVICE])
    async def test_only_people_have_passphrases_and_teams_accounts(self, team: Directory, kind: Kind) -> None:
        owner = "alice" if kind is Kind.AGENT else None
        with pytest.raises(ConfigError, match="never approve"):
            await team.add("robot", kind, owner=owner, passphrase=PHRASE)
        with pytest.raises(ConfigError, match="never approve"):
            await team.add("robot", kind, owner=owner, teams=[(TENANT, OID)])
        await team.add("robot", kind, owner=owner)
        with pytest.raises(ConfigError, match="never approve"):
            await team.set_passphrase("robot", PHRASE)

    @pytest.mark.parametrize("passphrase", ["", "short", "elevenchars", "x" * 1025, "lone surrogate \ud800"])
    async def test_weak_passphrases(self, team: Directory, passphrase: str) -> None:
        with pytest.raises(ConfigError, match="passphrase"):
            await team.set_passphrase("alice", passphrase)

    @pytest.mark.parametrize("group", ["", " x", "a,b", "a\nb", "a\x1b", "x" * 128, "ä"])
    async def test_groups_that_can_not_be(self, team: Directory, group: str) -> None:
        with pytest.raises(ConfigError, match="group"):
            await team.set_groups("alice", [group])

    async def test_nobody(self, team: Directory) -> None:
        for call in (team.remove("x"), team.set_groups("x", []), team.issue_token("x"), team.link("x", OKTA)):
            with pytest.raises(NotFoundError):
                await call


class TestSshKeys:
    def test_the_fingerprint_is_opensshs(self) -> None:
        # ssh-keygen -lf of GitHub's published ed25519 host key
        line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github.com"
        assert sshkey.parse(line).fingerprint == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"

    @pytest.mark.parametrize("bits", [2048, 3072])
    def test_rsa_of_enough_bits(self, bits: int) -> None:
        public = rsa.generate_private_key(65537, bits).public_key()
        assert sshkey.parse(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()).algorithm == "ssh-rsa"

    @pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
    def test_ecdsa(self, curve: ec.EllipticCurve) -> None:
        public = ec.generate_private_key(curve).public_key()
        line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        assert sshkey.parse(line + " a comment with spaces").comment == "a comment with spaces"

    def test_security_keys(self) -> None:
        raw = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        name = b"sk-ssh-ed25519@openssh.com"
        blob = b"".join(len(part).to_bytes(4, "big") + part for part in (name, raw, b"ssh:"))
        assert sshkey.parse(f"{name.decode()} {base64.b64encode(blob).decode()}").blob == blob

    def test_weak_rsa(self) -> None:
        public = rsa.generate_private_key(65537, 1024).public_key()
        with pytest.raises(ConfigError, match="1024 bits"):
            sshkey.parse(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())

    def test_dsa(self) -> None:
        numbers = dsa.generate_private_key(1024).public_key().public_numbers()
        values = (numbers.parameter_numbers.p, numbers.parameter_numbers.q, numbers.parameter_numbers.g, numbers.y)
        parts = [b"ssh-dss", *(v.to_bytes(v.bit_length() // 8 + 1, "big") for v in values)]
        blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        with pytest.raises(ConfigError, match="not accepted"):
            sshkey.parse("ssh-dss " + base64.b64encode(blob).decode())

    @pytest.mark.parametrize(
        "change",
        [
            lambda line: line + " a,b",
            lambda line: line + " a\x1b[2Jb",
            lambda line: line + "\nssh-ed25519 AAAA second",
            lambda line: line + " name\u202eeman",
            lambda line: 'command="id" ' + line,
            lambda line: line.replace("ssh-ed25519 ", "ssh-rsa "),
            lambda line: line.replace("ssh-ed25519 ", "ssh-ed25519-cert-v01@openssh.com "),
            lambda line: line[:-8],
            lambda line: line[:-4] + "AAAA" + "AAAA",
            lambda _: "",
            lambda _: "ssh-ed25519",
            lambda _: "ssh-ed25519 ????",
            lambda _: "ssh-ed25519 " + "A" * 10_000,
            lambda _: "-----BEGIN OPENSSH PRIVATE KEY-----",
        ],
    )
    def test_lines_that_are_refused(self, change: Callable[[str], str]) -> None:
        with pytest.raises(ConfigError):
            sshkey.parse(change(key_line()))

    async def test_a_key_belongs_to_one_principal(self, team: Directory) -> None:
        line = key_line()
        await team.add_ssh_key("alice", line)
        with pytest.raises(ConfigError, match="registered for alice"):
            await team.add_ssh_key("claude-ci", line + " other comment")

    async def test_too_many_keys(self, team: Directory) -> None:
        with pytest.raises(ConfigError, match="at most"):
            await team.add("many", Kind.HUMAN, ssh_keys=[key_line() for _ in range(33)])

    async def test_a_removed_key_is_nobodys(self, team: Directory) -> None:
        line = key_line()
        await team.add_ssh_key("alice", line)
        changes: list[Change] = []
        team.subscribe(changes.append)
        await team.remove_ssh_key("alice", sshkey.parse(line).fingerprint)
        assert team.by_ssh_key(sshkey.parse(line).blob) is None
        assert changes[0].credentials == {sshkey.parse(line).fingerprint}


class TestLinks:
    async def test_a_teams_account_is_exactly_one_person(self, team: Directory) -> None:
        await team.link_teams("bob", TENANT, OID)
        with pytest.raises(ConfigError, match="linked to bob"):
            await team.link_teams("alice", TENANT.upper(), OID.upper())
        await team.unlink_teams("bob", TENANT, OID)
        assert team.by_teams(TENANT, OID) is None

    @pytest.mark.parametrize("account", [("contoso.com", OID), (TENANT, "bob@contoso.com"), ("", ""), (TENANT, OID + "\n")])
    async def test_names_and_addresses_are_no_teams_account(self, team: Directory, account: tuple[str, str]) -> None:
        with pytest.raises(ConfigError, match="GUID"):
            await team.link_teams("bob", *account)

    async def test_accounts_of_one_person_exclude_each_other(self, team: Directory) -> None:
        """a ~ b and b ~ c make a ~ c: a chain of accounts does not launder a request."""
        second = await team.add("alice-admin", Kind.HUMAN)
        alice = await team.link("alice", second.identity)
        second = await team.link("alice-admin", OKTA)
        assert second.linked == {alice.identity, OKTA}
        alice = team.by_handle("alice") or alice
        assert alice.linked == {second.identity, OKTA}
        assert team.get(OKTA) == second

    async def test_the_owners_other_accounts_can_not_approve_for_the_agent(self, team: Directory) -> None:
        second = await team.add("alice-admin", Kind.HUMAN)
        await team.link("alice", second.identity)
        agent = team.by_handle("claude-ci")
        assert agent is not None
        assert agent.owner is not None
        assert {agent.identity, agent.owner, second.identity} <= agent.principal(
            Credential(CredentialKind.SSH_KEY, "k")
        ).excluded()

    async def test_an_outside_identity_is_linked_once(self, team: Directory) -> None:
        await team.link("alice", OKTA)
        with pytest.raises(ConfigError, match="linked to alice"):
            await team.link("bob", OKTA)
        with pytest.raises(ConfigError, match="already"):
            await team.link("alice", OKTA)

    async def test_an_agent_is_nobodys_second_account(self, team: Directory) -> None:
        alice, agent = team.by_handle("alice"), team.by_handle("claude-ci")
        assert alice is not None
        assert agent is not None
        with pytest.raises(ConfigError, match="only people"):
            await team.link("alice", agent.identity)
        with pytest.raises(ConfigError, match="only people"):
            await team.link("claude-ci", alice.identity)

    @pytest.mark.parametrize(
        "other",
        [
            Identity("local", "ghost"),
            Identity("unix", "operator"),
            Identity("", "x"),
            Identity("https://x", ""),
            Identity("https://x", "a b"),
            Identity("https://x", "a\n"),
        ],
    )
    async def test_identities_that_can_not_be_linked(self, team: Directory, other: Identity) -> None:
        with pytest.raises(ConfigError):
            await team.link("alice", other)

    async def test_unlinking(self, team: Directory) -> None:
        await team.link("alice", OKTA)
        alice = await team.unlink("alice", OKTA)
        assert alice.linked == frozenset()
        assert team.get(OKTA) is None
        with pytest.raises(NotFoundError):
            await team.unlink("alice", OKTA)

    async def test_removing_an_account_leaves_no_link_to_it(self, team: Directory, store: Store, clock: ManualClock) -> None:
        second = await team.add("alice-admin", Kind.HUMAN)
        await team.link("alice", second.identity)
        await team.remove("alice-admin")
        for directory in (team, await reopened(store, clock)):
            alice = directory.by_handle("alice")
            assert alice is not None
            assert alice.linked == frozenset()


class TestNewReviewerDelay:
    """`changed` moves when authority grows, so that a sock puppet has to wait (threat A16)."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: d.set_groups("bob", ["sre", "dba"]),
            lambda d: d.link("bob", OKTA),
            lambda d: d.link_teams("bob", TENANT, OID),
            lambda d: d.set_passphrase("bob", "another passphrase"),
            lambda d: d.set_disabled("bob", False),
        ],
    )
    async def test_growing_moves_it(
        self, team: Directory, clock: ManualClock, change: Callable[[Directory], Awaitable[object]]
    ) -> None:
        clock.advance(1000)
        await change(team)
        bob = team.by_handle("bob")
        assert bob is not None
        assert bob.changed == clock.now()
        assert bob.created < bob.changed

    async def test_losing_a_group_or_issuing_a_token_does_not(self, team: Directory, clock: ManualClock) -> None:
        clock.advance(1000)
        await team.set_groups("bob", [])
        await team.issue_token("bob")
        bob = team.by_handle("bob")
        assert bob is not None
        assert bob.changed == bob.created


class TestOrder:
    async def test_a_change_is_recorded_before_it_takes_effect(self, team: Directory, journal: Journal) -> None:
        seen: list[tuple[str, bool]] = []

        def look(event: EventDraft) -> None:
            seen.append((str(event.fields["change"]), team.by_handle("carol") is not None))

        journal.on_append = look
        await team.add("carol", Kind.HUMAN)
        assert seen == [("added", False)]
        assert journal.synced == len(journal.events)

    async def test_nothing_is_added_when_it_can_not_be_recorded(
        self, team: Directory, journal: Journal, store: Store, clock: ManualClock
    ) -> None:
        journal.broken = True
        for call in (
            team.add("carol", Kind.HUMAN), team.set_groups("bob", ["dba"]), team.issue_token("bob"), team.issue_password("bob"),
            team.link("bob", OKTA), team.set_passphrase("bob", "another passphrase"), team.add_ssh_key("bob", key_line()),
        ):  # fmt: skip
            with pytest.raises(EvidenceError):
                await call
        for directory in (team, await reopened(store, clock)):
            bob = directory.by_handle("bob")
            assert bob is not None
            assert directory.by_handle("carol") is None
            assert (bob.groups, bob.linked, bob.tokens, bob.passwords, bob.ssh_keys) == ({"sre"}, frozenset(), (), (), ())

    async def test_stopping_takes_effect_even_when_nothing_can_be_written(self, team: Directory, journal: Journal) -> None:
        token = await team.issue_token("bob")
        changes: list[Change] = []
        team.subscribe(changes.append)
        journal.broken = True
        with pytest.raises(EvidenceError):
            await team.set_disabled("alice", True)
        with pytest.raises(EvidenceError):
            await team.revoke_token("bob", token.id)
        alice, agent = team.by_handle("alice"), team.by_handle("claude-ci")
        assert alice is not None
        assert agent is not None
        assert alice.disabled
        assert agent.disabled
        assert team.by_token(token.secret.reveal()) is None
        assert [c.kind for c in changes] == [ChangeKind.DISABLED, ChangeKind.TOKEN_REVOKED]

    async def test_a_store_that_fails_changes_nothing_and_the_journal_says_so(
        self, team: Directory, journal: Journal, store: Store
    ) -> None:
        # Another process took the handle: our snapshot does not know, the store's own rule does.
        bob = team.by_handle("bob")
        assert bob is not None
        await store.principals.change(put=[PrincipalRow("local", "elsewhere", "carol", "human", bob.created, bob.created)])
        with pytest.raises(StoreError):
            await team.add("carol", Kind.HUMAN)
        assert team.by_handle("carol") is None
        recorded = [e.fields for e in journal.of("identity.change") if e.fields["handle"] == "carol"]
        assert [("failed" in fields) for fields in recorded] == [False, True]

    async def test_every_change_names_who_made_it(self, team: Directory, journal: Journal) -> None:
        bob = team.by_handle("bob")
        assert bob is not None
        await team.set_groups("alice", [], by=bob.identity)
        assert journal.of("identity.change")[-1].fields["by"] == str(bob.identity)

    async def test_no_secret_is_recorded(self, team: Directory, journal: Journal) -> None:
        token, password = await team.issue_token("bob"), await team.issue_password("bob")
        await team.set_passphrase("bob", "another passphrase")
        await team.link_teams("bob", TENANT, OID)
        kept = journal.everything() + repr(team.entries()) + repr(team._index) + repr((token, password))
        for secret in (token.secret.reveal(), password.secret.reveal(), "another passphrase", "argon2", PHRASE):
            assert secret not in kept
        assert OID not in repr([e.fields for e in journal.events])


class TestStopping:
    async def test_disabling_a_person_stops_the_agents_too(self, team: Directory) -> None:
        changes: list[Change] = []
        stop = team.subscribe(changes.append)
        await team.set_disabled("alice", True)
        alice, agent = team.by_handle("alice"), team.by_handle("claude-ci")
        assert alice is not None
        assert agent is not None
        assert changes == [Change(ChangeKind.DISABLED, alice.identity, "alice", frozenset({alice.identity, agent.identity}))]
        await team.set_disabled("alice", False)
        agent = team.by_handle("claude-ci")
        assert agent is not None
        assert not agent.disabled
        stop()
        await team.set_disabled("alice", True)
        assert len(changes) == 2

    async def test_an_agent_gets_another_owner(self, team: Directory) -> None:
        await team.remove("alice")
        agent = await team.set_owner("claude-ci", "bob")
        assert not agent.disabled
        assert agent.owner_handle == "bob"

    async def test_a_deaf_subscriber_does_not_keep_the_others_from_hearing(self, team: Directory) -> None:
        heard: list[Change] = []

        def deaf(_: Change) -> None:
            raise RuntimeError("deaf")

        team.subscribe(deaf)
        team.subscribe(heard.append)
        await team.remove("bob")
        assert [c.kind for c in heard] == [ChangeKind.REMOVED]


class TestTokens:
    async def test_a_token_is_found_until_it_ends(self, team: Directory, clock: ManualClock) -> None:
        issued = await team.issue_token("claude-ci", timedelta(minutes=5))
        found = team.by_token(issued.secret.reveal())
        assert found is not None
        assert (found[0].handle, found[1].id) == ("claude-ci", issued.id)
        clock.advance(300)
        assert team.by_token(issued.secret.reveal()) is None

    @pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(days=367)])
    async def test_lifetimes_that_can_not_be(self, team: Directory, lifetime: timedelta) -> None:
        with pytest.raises(ConfigError):
            await team.issue_token("claude-ci", lifetime)
        with pytest.raises(ConfigError):
            await team.issue_password("claude-ci", lifetime)

    async def test_the_store_holds_no_secret(self, team: Directory, store: Store, tmp_path: object) -> None:
        token, password = await team.issue_token("bob"), await team.issue_password("bob")
        rows = await store.principals.load_all()
        held = repr([(r.id, r.hash) for r in rows.tokens]) + repr([(r.stored_key, r.server_key, r.salt) for r in rows.scram])
        for secret in (token.secret.reveal(), password.secret.reveal()):
            assert secret not in held
            assert secret.encode() not in b"".join(r.hash for r in rows.tokens)

    async def test_nothing_is_issued_to_whom_is_stopped(self, team: Directory) -> None:
        await team.set_disabled("alice", True)
        for call in (team.issue_token("alice"), team.issue_token("claude-ci"), team.issue_password("claude-ci")):
            with pytest.raises(InterlockError) as caught:
                await call
            assert caught.value.code is Reason.DISABLED_PRINCIPAL


class TestPasswords:
    @staticmethod
    def login(directory: Directory, handle: str, password: str) -> str:
        server = ScramServer(directory.scram(handle), entropy=seeded("server"))
        client = ScramClient([PLAIN], entropy=seeded("client"))
        stretch = client.challenge(server.first(PLAIN, client.first()))
        return server.final(client.final(salted_password(password, stretch.salt, stretch.iterations))).verifier

    async def test_several_live_passwords_each_name_themselves(self, team: Directory, store: Store, clock: ManualClock) -> None:
        issued = [await team.issue_password("claude-ci") for _ in range(8)]
        for directory in (team, await reopened(store, clock)):
            for one in issued:
                assert self.login(directory, "claude-ci", one.secret.reveal()) == one.id

    async def test_a_ninth_one_takes_the_place_of_the_first_to_end(self, team: Directory) -> None:
        first = await team.issue_password("bob", timedelta(minutes=1))
        others = [await team.issue_password("bob") for _ in range(8)]
        with pytest.raises(AuthenticationError):
            self.login(team, "bob", first.secret.reveal())
        for one in others:
            assert self.login(team, "bob", one.secret.reveal()) == one.id

    async def test_a_password_ends(self, team: Directory, clock: ManualClock) -> None:
        issued = await team.issue_password("claude-ci")
        assert issued.expires == clock.now() + timedelta(minutes=15)
        clock.advance(15 * 60)
        with pytest.raises(AuthenticationError):
            self.login(team, "claude-ci", issued.secret.reveal())

    async def test_a_password_never_outlives_the_credential_that_asked(self, team: Directory, clock: ManualClock) -> None:
        end = clock.now() + timedelta(seconds=90)
        assert (await team.issue_password("bob", not_after=end)).expires == end

    async def test_a_revoked_password_and_a_stopped_person(self, team: Directory) -> None:
        one, two = await team.issue_password("bob"), await team.issue_password("bob")
        await team.revoke_password("bob", one.id)
        with pytest.raises(AuthenticationError):
            self.login(team, "bob", one.secret.reveal())
        await team.set_disabled("bob", True)
        with pytest.raises(AuthenticationError):
            self.login(team, "bob", two.secret.reveal())

    async def test_the_salt_says_nothing_about_who_exists(self, team: Directory) -> None:
        """Before a password, with one, disabled, and as nobody: the same shape, and the same salt for the same name."""
        before = team.scram("bob")
        await team.issue_password("bob")
        live = team.scram("bob")
        await team.set_disabled("bob", True)
        stopped = team.scram("bob")
        assert {(c.salt, c.iterations) for c in (before, live, stopped)} == {(before.salt, 4096)}
        nobody = team.scram("nobody")
        assert (len(nobody.salt), nobody.iterations) == (len(before.salt), 4096)
        assert nobody == team.scram("nobody")
        assert (before.verifiers, stopped.verifiers, nobody.verifiers) == ((), (), ())


async def test_concurrent_changes_do_not_overwrite_each_other(team: Directory, store: Store, clock: ManualClock) -> None:
    import asyncio

    await asyncio.gather(*(team.add(f"person-{i}", Kind.HUMAN) for i in range(10)), team.set_groups("bob", ["dba"]))
    assert team.entries() == (await reopened(store, clock)).entries()
    assert len(team.entries()) == 13


async def test_hashing_does_not_hold_the_loop(passphrases: Passphrases) -> None:
    """The loop turns while Argon2 computes: a callback scheduled afterwards runs before the hash is there."""
    import asyncio

    turned = asyncio.Event()
    pending = asyncio.ensure_future(Passphrases(memory_kib=32768, passes=2).hash(PHRASE))
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()
    assert not pending.done()
    assert await passphrases.check(await pending, PHRASE)
