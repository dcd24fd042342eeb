"""Slack accounts, passkeys, and whose word an authority rests on until another administrator confirms it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.change_journal import Journal, seeded
from harness.clock import ManualClock
from interlock.errors import ConfigError, InterlockError, NotFoundError, Reason, StoreError
from interlock.evidence import sshsig
from interlock.identity import registration
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.directory import Directory
from interlock.identity.entries import OPERATOR
from interlock.identity.principal import Identity, Kind
from interlock.identity.registration import MAX_PASSKEYS, NewPasskey
from interlock.store.engine import Store

TEAM, USER = "T024BE7LD", "U024BE7LH"
PHRASE = "correct horse battery"
KEY = sshsig.public_line(Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key())
PHONE = NewPasskey("Y3JlZC1h", b"cose", 3, "Bob's phone")


@pytest.fixture
async def team(directory: Directory) -> Directory:
    """Alice and root administer, Bob reviews, claude-ci is Alice's agent."""
    await directory.add("alice", Kind.HUMAN, groups=["interlock-admins"])
    await directory.add("root", Kind.HUMAN, groups=["interlock-admins"])
    await directory.add("bob", Kind.HUMAN, groups=["sre"], passphrase=PHRASE)
    await directory.add("claude-ci", Kind.AGENT, owner="alice")
    return directory


def who(directory: Directory, handle: str) -> Identity:
    entry = directory.by_handle(handle)
    assert entry is not None
    return entry.identity


async def reopened(store: Store, clock: ManualClock) -> Directory:
    again = Directory(store.principals, clock=clock, entropy=seeded("again"), journal=Journal(), salt_secret=b"secret")
    await again.load()
    return again


class TestSlack:
    async def test_an_account_is_one_person_also_after_a_restart(self, team: Directory, store: Store, clock: ManualClock) -> None:
        await team.link_slack("bob", TEAM, USER)
        for directory in (team, await reopened(store, clock)):
            found = directory.by_slack(TEAM, USER)
            assert found is not None
            assert (found.handle, found.slack) == ("bob", ((TEAM, USER),))
            assert directory.by_slack("T000000000", USER) is None
        await team.unlink_slack("bob", TEAM, USER)
        assert team.by_slack(TEAM, USER) is None

    async def test_an_account_is_committed_to_and_not_shown(self, team: Directory, journal: Journal) -> None:
        await team.link_slack("bob", TEAM, USER)
        event = journal.events[-1]
        assert (event.fields["change"], event.secret) == ("linked", {"slack": [f"{TEAM}/{USER}"]})
        assert USER not in str(event.fields)

    @pytest.mark.parametrize(
        ("handle", "slack"),
        [
            ("bob", ("bob@example.com", USER)), ("bob", (TEAM, "bob")), ("bob", (TEAM, "B024BE7LH")),
            ("bob", (TEAM, USER + "\n")),
            ("bob", (TEAM.lower(), USER)), ("claude-ci", (TEAM, USER)),
        ],
    )  # fmt: skip
    async def test_names_bots_and_agents_are_not_linked(self, team: Directory, handle: str, slack: tuple[str, str]) -> None:
        with pytest.raises(ConfigError):
            await team.link_slack(handle, *slack)
        assert team.by_slack(*slack) is None

    async def test_an_account_of_somebody_is_not_taken_over_and_only_the_owner_s_link_ends(self, team: Directory) -> None:
        await team.link_slack("bob", TEAM, USER)
        with pytest.raises(ConfigError, match="linked to bob already"):
            await team.link_slack("alice", TEAM, USER)
        with pytest.raises(NotFoundError):
            await team.unlink_slack("alice", TEAM, USER)
        assert team.by_slack(TEAM, USER) == team.by_handle("bob")

    async def test_unlinking_takes_effect_although_the_store_is_down(self, team: Directory, store: Store) -> None:
        await team.link_slack("bob", TEAM, USER)
        await store.close()
        with pytest.raises(StoreError):
            await team.unlink_slack("bob", TEAM, USER)
        assert team.by_slack(TEAM, USER) is None


class TestPasskeys:
    async def test_a_person_brings_one_and_it_is_found(self, team: Directory, store: Store, clock: ManualClock) -> None:
        await team.add_passkey("bob", PHONE, by=who(team, "bob"))
        for directory in (team, await reopened(store, clock)):
            found = directory.by_passkey(PHONE.id)
            assert found is not None
            entry, row = found
            assert (entry.handle, row.public_key, row.sign_count, row.name) == ("bob", b"cose", 3, "Bob's phone")

    async def test_nobody_brings_one_for_somebody_else(self, team: Directory, journal: Journal) -> None:
        before = len(journal.events)
        for by in (OPERATOR, who(team, "root"), who(team, "claude-ci")):
            with pytest.raises(InterlockError) as refused:
                await team.add_passkey("bob", PHONE, by=by)
            assert refused.value.code is Reason.MISSING_SCOPE
        assert len(journal.events) == before
        with pytest.raises(ConfigError):
            await team.add_passkey("claude-ci", PHONE, by=who(team, "claude-ci"))
        assert team.by_passkey(PHONE.id) is None

    async def test_a_linked_account_may(self, team: Directory) -> None:
        await team.link("bob", Identity("okta", "00u1"))
        await team.add_passkey("bob", PHONE, by=Identity("okta", "00u1"))
        assert team.by_passkey(PHONE.id) is not None

    async def test_one_credential_is_one_person_s(self, team: Directory) -> None:
        await team.add_passkey("bob", PHONE, by=who(team, "bob"))
        for handle in ("bob", "alice"):
            with pytest.raises(ConfigError, match="registered already") as refused:
                await team.add_passkey(handle, PHONE, by=who(team, handle))
            assert "bob" not in str(refused.value)
        found = team.by_passkey(PHONE.id)
        assert found is not None
        assert found[0].handle == "bob"

    @pytest.mark.parametrize("name", ["", " x", "a\nb", "\u202ephone", "<script>", "x" * 65])
    async def test_a_name_is_plain(self, team: Directory, name: str) -> None:
        with pytest.raises(ConfigError):
            await team.add_passkey("bob", NewPasskey("YQ", b"", 0, name), by=who(team, "bob"))

    async def test_there_is_a_bound(self, team: Directory) -> None:
        for number in range(MAX_PASSKEYS):
            await team.add_passkey("bob", NewPasskey(f"Y{number}", b"", 0, "key"), by=who(team, "bob"))
        with pytest.raises(ConfigError, match="at most"):
            await team.add_passkey("bob", PHONE, by=who(team, "bob"))

    async def test_the_disabled_bring_none(self, team: Directory) -> None:
        await team.set_disabled("bob", True)
        with pytest.raises(InterlockError) as refused:
            await team.add_passkey("bob", PHONE, by=who(team, "bob"))
        assert refused.value.code is Reason.DISABLED_PRINCIPAL

    async def test_removing_tells_and_takes_effect_although_the_store_is_down(self, team: Directory, store: Store) -> None:
        await team.add_passkey("bob", PHONE, by=who(team, "bob"))
        told: list[Change] = []
        team.subscribe(told.append)
        await store.close()
        with pytest.raises(NotFoundError):
            await team.remove_passkey("alice", PHONE.id)
        with pytest.raises(StoreError):
            await team.remove_passkey("bob", PHONE.id)
        assert team.by_passkey(PHONE.id) is None
        assert [(c.kind, c.credentials) for c in told] == [(ChangeKind.PASSKEY_REMOVED, {PHONE.id})]

    async def test_a_counter_only_grows(self, team: Directory, store: Store, clock: ManualClock, journal: Journal) -> None:
        await team.add_passkey("bob", PHONE, by=who(team, "bob"))
        before = len(journal.events)
        for count in (7, 5, 7):
            await team.count_passkey(PHONE.id, count)
        await team.count_passkey("unknown", 9)
        for directory in (team, await reopened(store, clock)):
            found = directory.by_passkey(PHONE.id)
            assert found is not None
            assert found[1].sign_count == 7
        assert len(journal.events) == before


class TestConfirming:
    async def test_every_gain_says_who_gave_it_and_ends_what_was_confirmed(self, team: Directory, clock: ManualClock) -> None:
        alice, bob = who(team, "alice"), who(team, "bob")

        async def confirmed() -> None:
            clock.advance(60)
            entry = team.by_handle("bob")
            assert entry is not None
            assert entry.changed_by == str(OPERATOR)
            assert (await team.confirm("bob", by=alice)).confirmed

        await confirmed()
        for gain in (
            team.set_groups("bob", ["sre", "dba"]), team.link_slack("bob", TEAM, USER), team.add_ssh_key("bob", KEY),
            team.link("bob", Identity("okta", "00u1")), team.unlink("bob", Identity("okta", "00u1")),
            team.set_passphrase("bob", PHRASE), team.set_disabled("bob", False),
        ):  # fmt: skip
            clock.advance(60)
            await gain
            entry = team.by_handle("bob")
            assert entry is not None
            assert (entry.changed, entry.confirmed) == (clock.now(), False)
            await confirmed()
        clock.advance(60)
        own = await team.add_passkey("bob", PHONE, by=bob)
        assert (own.changed, own.changed_by, own.confirmed) == (clock.now(), str(bob), False)

    async def test_a_clock_set_back_confirms_nothing_gained_later(self, team: Directory, clock: ManualClock) -> None:
        await team.confirm("bob", by=who(team, "alice"))
        clock.step(-3600)
        entry = await team.link_slack("bob", TEAM, USER)
        assert not entry.confirmed

    async def test_losing_authority_leaves_it_confirmed(self, team: Directory, clock: ManualClock) -> None:
        await team.link_slack("bob", TEAM, USER)
        await team.confirm("bob", by=who(team, "alice"))
        clock.advance(60)
        await team.unlink_slack("bob", TEAM, USER)
        await team.set_groups("bob", [])
        entry = await team.set_disabled("bob", True)
        assert entry.confirmed

    async def test_it_is_recorded_and_survives_a_restart(
        self, team: Directory, journal: Journal, store: Store, clock: ManualClock
    ) -> None:
        alice = who(team, "alice")
        await team.confirm("bob", by=alice)
        event = journal.events[-1].fields
        assert (event["change"], event["handle"], event["by"]) == ("confirmed", "bob", str(alice))
        assert event["changed_by"] == str(OPERATOR)
        again = (await reopened(store, clock)).by_handle("bob")
        assert again is not None
        assert again.confirmed

    async def test_nobody_confirms_themselves_or_what_they_gave(self, team: Directory) -> None:
        alice, bob, root = (who(team, handle) for handle in ("alice", "bob", "root"))
        await team.set_groups("bob", ["sre", "dba"], by=alice)
        await team.link("bob", Identity("okta", "00u-bob"), by=root)
        await team.confirm("alice", by=root)
        for by in (alice, bob, Identity("okta", "00u-bob")):
            with pytest.raises(InterlockError) as refused:
                await team.confirm("bob", by=by)
            assert refused.value.code is Reason.SELF_APPROVAL, by

    async def test_a_colleague_s_later_change_does_not_hide_who_gave_the_first(self, team: Directory) -> None:
        alice, root = who(team, "alice"), who(team, "root")
        await team.confirm("bob", by=alice)
        await team.set_groups("bob", ["sre", "dba"], by=alice)
        await team.link_slack("bob", TEAM, USER, by=root)
        for by in (alice, root):
            with pytest.raises(InterlockError) as refused:
                await team.confirm("bob", by=by)
            assert refused.value.code is Reason.SELF_APPROVAL
        await team.add("carol", Kind.HUMAN)
        assert (await team.confirm("bob", by=who(team, "carol"))).confirmed

    async def test_through_another_account_neither(self, team: Directory) -> None:
        other = Identity("okta", "two words")
        await team.link("alice", Identity("okta", "00u-alice"))
        await team.set_groups("bob", ["sre", "dba"], by=Identity("okta", "00u-alice"))
        with pytest.raises(InterlockError) as refused:
            await team.confirm("bob", by=who(team, "alice"))
        assert refused.value.code is Reason.SELF_APPROVAL
        await team.set_groups("bob", ["sre"], by=other)
        await team.set_groups("bob", ["sre", "dba"], by=other)
        entry = team.by_handle("bob")
        assert entry is not None
        assert "okta:two%20words" in entry.changed_by.split()

    async def test_only_a_registered_active_person_confirms_and_only_people_are(self, team: Directory) -> None:
        await team.set_disabled("root", True)
        for by in (OPERATOR, who(team, "claude-ci"), who(team, "root"), Identity("okta", "nobody")):
            with pytest.raises(InterlockError) as refused:
                await team.confirm("bob", by=by)
            assert refused.value.code is Reason.MISSING_SCOPE, by
        with pytest.raises(ConfigError):
            await team.confirm("claude-ci", by=who(team, "alice"))

    async def test_what_was_looked_at_is_confirmed_and_nothing_later(self, team: Directory, clock: ManualClock) -> None:
        entry = team.by_handle("bob")
        assert entry is not None
        clock.advance(1)
        await team.link_slack("bob", TEAM, USER)
        with pytest.raises(ConfigError, match="look again"):
            await team.confirm("bob", by=who(team, "alice"), changed=entry.changed)
        assert (await team.confirm("bob", by=who(team, "alice"), changed=entry.changed + timedelta(seconds=1))).confirmed
        with pytest.raises(ConfigError, match="confirmed already"):
            await team.confirm("bob", by=who(team, "alice"))

    async def test_too_many_to_name_are_nobody_s_to_confirm(self, team: Directory) -> None:
        entry = team.by_handle("bob")
        assert entry is not None
        for number in range(20):
            by = Identity("https://issuer.example.com", f"administrator-{number}")
            await team.set_groups("bob", ["sre", f"g{number}"], by=by)
        entry = team.by_handle("bob")
        assert entry is not None
        assert entry.changed_by == "*"
        assert len(entry.changed_by) <= registration.MAX_CHANGERS
        with pytest.raises(InterlockError) as refused:
            await team.confirm("bob", by=who(team, "alice"))
        assert refused.value.code is Reason.SELF_APPROVAL

    async def test_an_administrator_made_for_the_occasion_confirms_nobody(
        self, team: Directory, store: Store, clock: ManualClock
    ) -> None:
        """Attack: one administrator makes a reviewer, and a second administrator who confirms the reviewer at once."""
        await team.confirm("alice", by=who(team, "root"))
        delayed = Directory(
            store.principals, clock=clock, entropy=seeded("x"), journal=Journal(), salt_secret=b"secret", newcomer=3600
        )
        await delayed.load()
        alice = who(delayed, "alice")
        await delayed.add("mallory", Kind.HUMAN, groups=["sre"], by=alice)
        puppet = (await delayed.add("puppet", Kind.HUMAN, groups=["interlock-admins"], by=alice)).identity
        clock.advance(3599)
        await delayed.set_passphrase("root", PHRASE, by=alice)  # nor one whose passphrase was taken over just now
        for by in (puppet, who(delayed, "root")):
            with pytest.raises(InterlockError) as refused:
                await delayed.confirm("mallory", by=by)
            assert refused.value.code is Reason.REVIEWER_TOO_NEW
        entry = delayed.by_handle("mallory")
        assert entry is not None
        assert not entry.confirmed
        with pytest.raises(InterlockError) as refused:
            await delayed.confirm("root", by=alice)
        assert refused.value.code is Reason.SELF_APPROVAL
        clock.advance(1)
        assert (await delayed.confirm("mallory", by=puppet)).confirmed  # as old as the delay
        await delayed.confirm("root", by=puppet)
        await delayed.set_groups("mallory", ["sre", "dba"], by=alice)
        assert (await delayed.confirm("mallory", by=who(delayed, "root"))).confirmed  # new, and confirmed
