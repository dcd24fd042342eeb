"""What a console session may that was opened at the identity provider. The way there is in tests/blackbox/test_login.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.clock import ManualClock
from harness.desk import PASSPHRASE, open_desk
from harness.entrance import logins_over, somebody
from interlock.clock import system_entropy
from interlock.web.console.sessions import ConsoleSessions


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_a_login_at_the_provider_reads_and_does_not_decide(tmp_path: Path, clock: ManualClock) -> None:
    """Whoever sits at that browser would decide: the person is asked again, by the provider or for a passphrase."""
    async with open_desk(tmp_path, clock=clock) as desk:  # type: ignore[arg-type]
        sessions = ConsoleSessions(desk.directory, clock=clock, entropy=system_entropy)
        logins = logins_over(desk.directory, desk.store.logins, clock=clock, journal=desk.transcripts.journal)
        opened = await logins.open(somebody(), method="console", source="here")
        session = sessions.find(sessions.open(opened.principal))
        assert session is not None and not sessions.may_decide(session)
        sessions.stepped_up(session)
        assert sessions.may_decide(session)
        by_passphrase = sessions.find(sessions.open(await desk.authenticator.passphrase("bob", PASSPHRASE)))
        assert by_passphrase is not None and sessions.may_decide(by_passphrase)
        await logins.close()


async def test_the_end_of_a_login_logs_its_browsers_out_and_no_others(tmp_path: Path, clock: ManualClock) -> None:
    async with open_desk(tmp_path, clock=clock) as desk:  # type: ignore[arg-type]
        sessions = ConsoleSessions(desk.directory, clock=clock, entropy=system_entropy)
        logins = logins_over(desk.directory, desk.store.logins, clock=clock, journal=desk.transcripts.journal)
        logins.subscribe(lambda told: sessions.end(told.credentials))
        one = await logins.open(somebody(), method="console", source="here")
        two = await logins.open(somebody(session="s2"), method="console", source="there")
        cookies = [sessions.open(opened.principal) for opened in (one, two)]
        await logins.end([one.id], "logout-at-provider")
        assert sessions.find(cookies[0]) is None
        assert sessions.find(cookies[1]) is not None
        await logins.close()
