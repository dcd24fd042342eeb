"""What a login is worth, what comes from it, and that all of it ends together."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncssh
import pytest

from harness.change_journal import Journal
from harness.clock import ManualClock
from harness.entrance import issuance_over, logins_over, public_line, somebody
from interlock.config import parse
from interlock.entrance import open_entrance
from interlock.errors import ConfigError, EvidenceError, InterlockError, Reason, StoreError
from interlock.identity.authenticate import Authenticator
from interlock.identity.derived import PASSWORD, Ended, principal_name
from interlock.identity.directory import Directory
from interlock.identity.issuance import Issuance, Order
from interlock.identity.logins import MAX_PER_PERSON, Logins
from interlock.identity.logouts import Logouts
from interlock.identity.principal import CredentialKind, Identity, Kind, Principal
from interlock.identity.ssh_ca import SshCa
from interlock.identity.sshkey import fingerprint
from interlock.store.engine import Store
from interlock.store.logins import DerivedRow, LoginRow

KEY = asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
async def logins(directory: Directory, store: Store, clock: ManualClock, journal: Journal) -> AsyncIterator[Logins]:
    made = logins_over(directory, store.logins, clock=clock, journal=journal)
    yield made
    await made.close()


@pytest.fixture
def issuance(tmp_path: Path, logins: Logins, directory: Directory, clock: ManualClock, journal: Journal) -> Issuance:
    return issuance_over(tmp_path, logins, directory, clock=clock, journal=journal)


@pytest.fixture
def ended(logins: Logins) -> list[Ended]:
    told: list[Ended] = []
    logins.subscribe(told.append)
    return told


def shown(certificate: asyncssh.SSHCertificate, issuance: Issuance, **changes: object) -> Principal | None:
    """Show a certificate as the SSH front end would."""
    assert isinstance(certificate, asyncssh.public_key.SSHOpenSSHCertificate)
    said = {
        "authority": certificate.signing_key.public_data, "serial": f"{certificate._serial:016x}",
        "key": fingerprint(certificate.key.public_data), "principals": list(certificate.principals), **changes,
    }  # fmt: skip
    return issuance.accept(**said)  # type: ignore[arg-type]


async def certified(issuance: Issuance, holder: Principal) -> asyncssh.SSHCertificate:
    return asyncssh.import_certificate((await issuance.issue(holder, public_line(KEY))).line)


async def test_a_certificate_is_its_holders_until_the_login_ends(logins: Logins, issuance: Issuance, ended: list[Ended]) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    certificate = await certified(issuance, opened.principal)
    found = shown(certificate, issuance)
    assert found is not None
    assert (found.handle, found.groups, found.credential.kind) == ("dora", {"dba"}, CredentialKind.SSH_CERTIFICATE)
    await logins.end([opened.id], "logout")
    assert shown(certificate, issuance) is None
    (told,) = ended
    assert told.credentials == {opened.id, found.credential.ident}
    assert told.identities == {opened.principal.identity}
    with pytest.raises(InterlockError):
        logins.resolve(opened.secret.reveal())
    with pytest.raises(InterlockError):
        await issuance.issue(opened.principal, public_line(KEY))  # nothing new comes from it either


async def test_what_was_not_registered_is_no_certificate(logins: Logins, issuance: Issuance) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    other = await logins.open(somebody("erin"), method="device", source="here")
    certificate = await certified(issuance, opened.principal)
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    assert shown(certificate, issuance, serial="0" * 16) is None
    assert shown(certificate, issuance, key=fingerprint(stranger.public_data)) is None
    assert shown(certificate, issuance, authority=stranger.public_data) is None
    assert shown(certificate, issuance, principals=[principal_name(other.principal.identity)]) is None
    assert shown(certificate, issuance, principals=[*certificate.principals, "root"]) is None  # type: ignore[attr-defined]
    assert shown(certificate, issuance, principals=[]) is None
    assert shown(certificate, issuance) is not None


async def test_openssh_reads_what_the_certificate_says(logins: Logins, issuance: Issuance, tmp_path: Path) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    signed = await issuance.issue(opened.principal, public_line(KEY))
    (tmp_path / "cert.pub").write_text(signed.line + "\n")
    said = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(tmp_path / "cert.pub")], capture_output=True, text=True, check=True
    ).stdout
    options = said.partition("Critical Options:")[2].replace("Extensions:", "").split()
    assert options == ["(none)", "permit-port-forwarding", "permit-pty"]
    assert f"interlock:{opened.principal.identity.subject}" in said
    assert f"dora/{signed.serial}" in said


async def test_the_certificate_is_on_disk_in_the_journal_before_anybody_has_it(
    logins: Logins, issuance: Issuance, journal: Journal
) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    signed = await issuance.issue(opened.principal, public_line(KEY))
    (noted,) = journal.of("certificate.issue")
    assert (noted.fields["serial"], noted.fields["key_id"], noted.fields["name"]) == (
        signed.serial, signed.key_id, signed.principal,
    )  # fmt: skip
    assert journal.synced >= journal.events.index(noted) + 1
    journal.broken = True
    with pytest.raises(EvidenceError):
        await issuance.issue(opened.principal, public_line(KEY))
    with pytest.raises(EvidenceError):
        await logins.open(somebody("erin"), method="device", source="here")


async def test_a_certificate_that_comes_with_the_login_is_like_any_other(
    logins: Logins, issuance: Issuance, journal: Journal, ended: list[Ended], store: Store
) -> None:
    order = issuance.order(public_line(KEY))
    opened = await logins.open(somebody(), method="device", source="here", derive=order)
    assert order.signed is not None
    (noted,) = journal.of("certificate.issue")
    assert noted.fields["credential"] == opened.id
    assert journal.synced >= journal.events.index(noted) + 1
    rows, made = await store.logins.load(opened.principal.credential.expires - timedelta(hours=8))  # type: ignore[operator]
    assert [row.id for row in rows] == [opened.id] and [(row.id, row.parent) for row in made] == [
        (order.signed.serial, opened.id)
    ]
    certificate = asyncssh.import_certificate(order.signed.line)
    found = shown(certificate, issuance)
    assert found is not None and (found.handle, found.groups) == ("dora", {"dba"})
    await logins.end([opened.id], "logout")
    assert shown(certificate, issuance) is None and order.signed.serial in ended[0].credentials


async def test_login_and_certificate_are_written_together_or_not_at_all(
    logins: Logins, issuance: Issuance, journal: Journal, store: Store
) -> None:
    await logins.open(somebody(), method="device", source="here")
    first = issuance.order(public_line(KEY))
    await logins.open(somebody(), method="device", source="here", derive=first)
    assert first.signed is not None
    signed = first.signed
    twin = Order(lambda _: signed)  # a serial that is taken
    with pytest.raises(StoreError):
        await logins.open(somebody(), method="device", source="here", derive=twin)
    rows, _ = await store.logins.load(signed.expires - timedelta(hours=8))
    assert len(rows) == 2 and len(logins._logins) == 2 and not logins._opening


async def test_a_logout_at_the_provider_ends_a_login_that_is_just_being_written(
    logins: Logins, issuance: Issuance, store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    who, order, add = somebody(), issuance.order(public_line(KEY)), store.logins.add

    async def meanwhile(*rows: LoginRow | DerivedRow) -> None:
        await add(*rows)
        assert await logins.end_at_provider(who.identity.issuer, who.identity.subject, "", clock.now()) == 1

    monkeypatch.setattr(store.logins, "add", meanwhile)
    with pytest.raises(InterlockError) as refused:
        await logins.open(who, method="device", source="here", derive=order)
    assert refused.value.code is Reason.LOGIN_ENDED
    assert order.signed is not None and shown(asyncssh.import_certificate(order.signed.line), issuance) is None
    assert await store.logins.load(clock.now()) == ((), ())


async def test_who_leaves_while_a_login_is_written_leaves_no_login_behind(
    logins: Logins, store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stock client that is gone has no token, and nobody else has: the row would stand for hours, and after a restart too."""
    reached, go_on, written, add = asyncio.Event(), asyncio.Event(), asyncio.Event(), store.logins.add

    async def slowly(*rows: LoginRow | DerivedRow) -> None:
        reached.set()
        await go_on.wait()
        await add(*rows)
        written.set()

    monkeypatch.setattr(store.logins, "add", slowly)
    opening = asyncio.ensure_future(logins.open(somebody(), method="ssh", source="here"))
    await reached.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    await written.wait()
    await logins.close()
    assert await store.logins.load(clock.now()) == ((), ())


async def test_nothing_outlives_what_it_came_from(
    logins: Logins, issuance: Issuance, directory: Directory, clock: ManualClock
) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    clock.advance(8 * 3600 - 100)
    signed = await issuance.issue(opened.principal, public_line(KEY))
    assert signed.expires == opened.principal.credential.expires
    certificate = asyncssh.import_certificate(signed.line)
    clock.advance(99)
    assert shown(certificate, issuance) is not None
    clock.advance(1)
    assert shown(certificate, issuance) is None
    with pytest.raises(InterlockError):
        logins.resolve(opened.secret.reveal())


async def test_an_agents_certificate_is_short_and_ends_with_its_token(
    logins: Logins, issuance: Issuance, directory: Directory, clock: ManualClock, authenticator: Authenticator, ended: list[Ended]
) -> None:
    await directory.add("alice", Kind.HUMAN)
    await directory.add("claude", Kind.AGENT, owner="alice", groups=["agents"])
    token = await directory.issue_token("claude", timedelta(days=1))
    holder = await authenticator.token(token.secret.reveal())
    signed = await issuance.issue(holder, public_line(KEY))
    assert signed.expires - clock.now() == timedelta(minutes=15)
    certificate = asyncssh.import_certificate(signed.line)
    found = shown(certificate, issuance)
    assert found is not None and found.owner_handle == "alice"
    await directory.revoke_token("claude", token.id)
    assert shown(certificate, issuance) is None
    assert ended[-1].credentials == {signed.serial}


async def test_whoever_acts_for_somebody_gets_none(logins: Logins, issuance: Issuance, directory: Directory) -> None:
    """It would name the agent alone: whom it acts for would be gone from every record and exclusion."""
    opened = await logins.open(somebody(), method="device", source="here")
    with pytest.raises(InterlockError) as error:
        await issuance.issue(replace(opened.principal, acting_for=(Identity("x", "y"),)), public_line(KEY))
    assert error.value.code is Reason.MISSING_SCOPE


async def test_a_certificate_leads_to_no_other_certificate(logins: Logins, issuance: Issuance) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    found = shown(await certified(issuance, opened.principal), issuance)
    assert found is not None
    with pytest.raises(InterlockError) as error:
        await issuance.issue(found, public_line(KEY))
    assert error.value.code is Reason.REQUEST_NOT_OFFERED


@pytest.mark.parametrize("line", ["", "ssh-dss AAAA", "ssh-ed25519 AAAA", 'command="x" ssh-ed25519 AAAA', "x\ny"])
async def test_only_good_keys_are_certified(logins: Logins, issuance: Issuance, line: str) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    with pytest.raises(ConfigError):
        await issuance.issue(opened.principal, line)


async def test_stopping_a_person_ends_their_logins(
    logins: Logins, issuance: Issuance, directory: Directory, ended: list[Ended]
) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    certificate = await certified(issuance, opened.principal)
    await directory.set_disabled("dora", True)
    assert shown(certificate, issuance) is None
    with pytest.raises(InterlockError) as error:
        await logins.open(somebody(), method="device", source="here")
    assert error.value.code is Reason.DISABLED_PRINCIPAL
    await logins.close()
    await directory.set_disabled("dora", False)
    with pytest.raises(InterlockError):
        logins.resolve(opened.secret.reveal())  # it does not come back with the person
    assert shown(certificate, issuance) is None


async def test_what_ended_stays_so_after_a_restart_and_the_rest_goes_on(
    logins: Logins, issuance: Issuance, directory: Directory, store: Store, clock: ManualClock, journal: Journal, tmp_path: Path
) -> None:
    one = await logins.open(somebody(), method="device", source="here")
    two = await logins.open(somebody(session="s2"), method="device", source="here")
    gone, kept = await certified(issuance, one.principal), await certified(issuance, two.principal)
    await logins.end([one.id], "logout")
    again = logins_over(directory, store.logins, clock=clock, journal=journal)
    await again.load()
    issuing = issuance_over(tmp_path, again, directory, clock=clock, journal=journal)
    assert shown(gone, issuing) is None
    assert shown(kept, issuing) is not None
    assert again.resolve(two.secret.reveal()).handle == "dora"
    with pytest.raises(InterlockError):
        again.resolve(one.secret.reveal())


async def test_a_password_carries_its_logins_groups_and_ends_with_it(
    logins: Logins, directory: Directory, clock: ManualClock, journal: Journal
) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    issued = await directory.issue_password("dora")
    await logins.derived.add(PASSWORD, issued.id, opened.principal, expires=issued.expires)
    asked = Authenticator(directory, clock=clock, journal=journal, logins=logins)
    assert asked.scram_principal("dora", issued.id).groups == {"dba"}
    await logins.end([opened.id], "logout")
    await logins.close()
    with pytest.raises(InterlockError):
        asked.scram_principal("dora", issued.id)
    await asked.close()


async def test_an_account_that_is_unlinked_leaves_no_login_behind(
    logins: Logins, issuance: Issuance, directory: Directory, ended: list[Ended]
) -> None:
    """Somebody else's account was linked to dora, logged in, and was found out."""
    mine = await logins.open(somebody(), method="device", source="here")
    await directory.link("dora", Identity("https://idp.example", "sub-mallory"))
    theirs = await logins.open(somebody("mallory"), method="device", source="there")
    assert theirs.principal.handle == "dora"
    certificate = await certified(issuance, theirs.principal)
    await directory.unlink("dora", Identity("https://idp.example", "sub-mallory"))
    with pytest.raises(InterlockError):
        logins.resolve(theirs.secret.reveal())
    assert shown(certificate, issuance) is None
    await logins.close()
    assert ended[-1].credentials == {theirs.id, f"{certificate._serial:016x}"}  # type: ignore[attr-defined]
    assert logins.resolve(mine.secret.reveal()).handle == "dora"
    await directory.link("dora", Identity("https://idp.example", "sub-mallory"))
    with pytest.raises(InterlockError):
        logins.resolve(theirs.secret.reveal())  # it does not come back with the link


async def test_what_came_from_a_revoked_credential_ends_with_it(
    logins: Logins, issuance: Issuance, directory: Directory, authenticator: Authenticator, ended: list[Ended]
) -> None:
    opened, other = [await logins.open(somebody(), method="device", source="here") for _ in range(2)]
    gone, kept = await certified(issuance, opened.principal), await certified(issuance, other.principal)
    token = await directory.issue_token("dora")
    third = await certified(issuance, await authenticator.token(token.secret.reveal()))
    logins.revoked(opened.id)
    logins.revoked(token.id)
    await logins.close()
    for certificate in (gone, third):
        assert shown(certificate, issuance) is None
    assert shown(kept, issuance) is not None
    with pytest.raises(InterlockError):
        logins.resolve(opened.secret.reveal())


@pytest.mark.parametrize(("session", "ends"), [("", 1), ("s1", 1), ("s2", 0)])
async def test_a_logout_ends_a_login_whose_session_was_never_told(
    logins: Logins, clock: ManualClock, session: str, ends: int
) -> None:
    await logins.open(somebody(session=session), method="device", source="here")
    assert await logins.end_at_provider("https://idp.example", "sub-dora", "s1", clock.now()) == ends


async def test_one_certificate_is_revoked_alone(logins: Logins, issuance: Issuance, ended: list[Ended]) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    one, two = await certified(issuance, opened.principal), await certified(issuance, opened.principal)
    await logins.derived.end_certificate(f"{one._serial:016x}")  # type: ignore[attr-defined]
    assert shown(one, issuance) is None and shown(two, issuance) is not None
    assert logins.resolve(opened.secret.reveal())
    assert ended[-1].identities == frozenset()  # the person goes on


async def test_nobody_piles_up_logins(logins: Logins) -> None:
    opened = [await logins.open(somebody(), method="device", source="here") for _ in range(MAX_PER_PERSON + 1)]
    with pytest.raises(InterlockError):
        logins.resolve(opened[0].secret.reveal())
    assert logins.resolve(opened[1].secret.reveal())


async def test_a_login_teaches_the_directory_what_a_reviewer_is_looked_up_by(logins: Logins, directory: Directory) -> None:
    await logins.open(somebody(groups=frozenset({"sre"})), method="console", source="here")
    entry = directory.by_handle("dora")
    assert entry is not None and "sre" in entry.groups
    await logins.open(somebody(groups=frozenset()), method="console", source="here")
    entry = directory.by_handle("dora")
    assert entry is not None and "sre" not in entry.groups  # what the provider took away is gone at the next login


async def test_without_registration_a_stranger_stays_one(
    directory: Directory, store: Store, clock: ManualClock, journal: Journal
) -> None:
    strict = logins_over(directory, store.logins, clock=clock, journal=journal, register=False)
    with pytest.raises(InterlockError) as error:
        await strict.open(somebody(), method="device", source="here")
    assert error.value.code is Reason.UNKNOWN_PRINCIPAL
    assert directory.entries() == ()


# -- the authority's keys ----------------------------------------------------------------------------------------------------


async def test_certificates_of_the_old_key_count_until_they_end(
    logins: Logins, issuance: Issuance, clock: ManualClock, tmp_path: Path
) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    old = await certified(issuance, opened.principal)
    before = issuance.ca.line
    await issuance.rotate(by=Identity("unix", "operator"), at_once=False)
    new = await certified(issuance, opened.principal)
    assert issuance.ca.line != before
    assert shown(old, issuance) is not None and shown(new, issuance) is not None
    restarted = SshCa.load_or_create(tmp_path / "ssh_ca")
    assert restarted.line == issuance.ca.line and [p.line for p in restarted.previous(clock.now())] == [before]
    assert (tmp_path / "ssh_ca").stat().st_mode & 0o077 == 0
    clock.advance(8 * 3600)
    assert not restarted.trusts(asyncssh.import_public_key(before).public_data, clock.now())


async def test_a_key_in_other_hands_is_worth_nothing_at_once(logins: Logins, issuance: Issuance, ended: list[Ended]) -> None:
    opened = await logins.open(somebody(), method="device", source="here")
    old = await certified(issuance, opened.principal)
    told = await issuance.rotate(by=Identity("unix", "operator"), at_once=True)
    assert told["ended"] == 1 and told["previous"] == []
    assert shown(old, issuance) is None
    assert ended[-1].credentials == {f"{old._serial:016x}"}  # type: ignore[attr-defined]
    assert shown(await certified(issuance, opened.principal), issuance) is not None


async def test_when_all_end_now_no_earlier_authority_counts_and_all_are_remembered(tmp_path: Path, clock: ManualClock) -> None:
    """One that was replaced an hour before still has seven; and what was ever ours must not become another authority's key."""
    first = SshCa.load_or_create(tmp_path / "ssh_ca")
    second = first.rotate(clock.now(), timedelta(hours=8))
    clock.advance(3600)
    third = second.rotate(clock.now(), timedelta(0))
    for made in (third, SshCa.load_or_create(tmp_path / "ssh_ca")):
        assert not made.trusts(first.blob, clock.now()) and not made.trusts(second.blob, clock.now())
        assert made.trusts(third.blob, clock.now())
        assert [old.blob for old in made.known] == [first.blob, second.blob]


@pytest.mark.parametrize("shared", ["targets_ca", "evidence", "earlier"])
async def test_no_two_authorities_share_a_key(
    tmp_path: Path, directory: Directory, store: Store, clock: ManualClock, journal: Journal, shared: str
) -> None:
    """With one key for both, a login certificate opens the target directly, around the proxy."""
    (tmp_path / "keys").mkdir(mode=0o700, exist_ok=True)
    made = SshCa.load_or_create(tmp_path / "login_ca")
    config = {"version": 1, "node": {"data_dir": str(tmp_path)}, "identity": {"ssh_ca": {"key": "file:login_ca"}}}
    if shared == "earlier":
        (tmp_path / "earlier").write_bytes((tmp_path / "login_ca").read_bytes())
        made.rotate(clock.now(), timedelta(hours=8))
    key = "file:earlier" if shared == "earlier" else "file:login_ca"
    config |= {"evidence": {"ca": {"key": key}}} if shared == "evidence" else {"targets_ca": {"key": key}}
    with pytest.raises(ConfigError, match="each authority needs one of its own"):
        await open_entrance(
            parse(config, base=tmp_path), tmp_path, store.logins, directory, journal=journal, clock=clock,
            entropy=bytes, logouts=Logouts(store.logouts, oldest={}, clock=clock, journal=journal),
        )  # fmt: skip


@pytest.mark.parametrize("subject", ["a,b", "a b", "a\nb", "ü"])
def test_a_name_that_could_be_two_is_none(subject: str) -> None:
    with pytest.raises(ConfigError):
        principal_name(Identity("local", subject))
