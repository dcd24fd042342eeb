"""What an account says of its shell and charset: asked on the record, and never able to loosen anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench
from harness.ssh_whole import open_whole
from interlock.commands.model import ShellContext
from interlock.commands.shell.dialect import POSIX_SHELLS
from interlock.ssh import enrolment
from interlock.ssh.enrolment import MAX_ANSWER, Statement

CONFIGURED = ("bash", "posix", "unknown", "fish", "tcsh", "csh")


def entry(shell: str, account: str = "deploy") -> bytes:
    return f"{account}:x:1000:1000:Deploy,,,:/home/deploy:{shell}\n".encode()


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "statement"),
    [
        (entry("/bin/bash") + b"UTF-8\n", Statement("bash", "UTF-8")),
        (entry("/usr/bin/fish") + b"ANSI_X3.4-1968\n", Statement("fish", "ANSI_X3.4-1968")),
        (entry("") + b"UTF-8\n", Statement("sh", "UTF-8")),
        (b"Welcome!\n" + entry("/bin/csh") + b"bye\nGBK\n", Statement("csh", "GBK")),
        (entry("/bin/bash") + entry("/bin/csh") + b"UTF-8\n", Statement("unlisted", "UTF-8")),
        (entry("/bin/b\x1b[31m") + b"UTF-8\n", Statement("unlisted", "UTF-8")),
        (entry("/bin/bash", account="root") + b"UTF-8\n", Statement("", "UTF-8")),
        (b"getent: not found\nlocale: not found\n", Statement("", "")),
        (b"", Statement("", "")),
        (b"\xff\xfe\0" * 100, Statement("", "")),
    ],
)
def test_an_answer_is_read_or_says_nothing(output: bytes, statement: Statement) -> None:
    assert enrolment.read("deploy", output) == statement


@pytest.mark.parametrize(
    ("configured", "said", "read_as"),
    [
        ("bash", None, ShellContext("bash")),
        ("bash", Statement("bash", "UTF-8"), ShellContext("bash")),
        ("bash", Statement("dash", "UTF-8"), ShellContext("unknown")),
        ("bash", Statement("fish", "UTF-8"), ShellContext("fish")),
        ("bash", Statement("xonsh", ""), ShellContext("xonsh")),
        ("unknown", Statement("bash", "UTF-8"), ShellContext("unknown")),
        ("unknown", Statement("csh", "UTF-8"), ShellContext("csh")),
        ("posix", Statement("bash", "UTF-8"), ShellContext("posix")),
        ("fish", Statement("bash", "UTF-8"), ShellContext("fish")),
        ("bash", Statement("bash", "GBK"), ShellContext("bash", utf8_locale=False)),
        ("bash", Statement("bash", "ISO-8859-1"), ShellContext("bash", utf8_locale=False)),
        ("bash", Statement("bash", "ANSI_X3.4-1968"), ShellContext("bash")),
        ("bash", Statement("", ""), ShellContext("bash")),
    ],
)
def test_a_contradiction_tightens(configured: str, said: Statement | None, read_as: ShellContext) -> None:
    assert enrolment.context(configured, said) == read_as


_lines = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"UTF-8", b"GBK", b"utf8", entry("/bin/bash")[:-1], entry("/bin/sh")[:-1], entry("/usr/bin/fish")[:-1]]),
)


@given(configured=st.sampled_from(CONFIGURED), lines=st.lists(_lines, max_size=6))
def test_nothing_that_a_target_prints_loosens(configured: str, lines: list[bytes]) -> None:
    reading = enrolment.context(configured, enrolment.read("deploy", b"\n".join(lines)))
    same = reading.shell == configured
    foreign = reading.shell not in POSIX_SHELLS
    assert same or foreign or (configured, reading.shell) == ("bash", "unknown")


# -- at a real sshd ----------------------------------------------------------------------------------------------------


def started_with(target: OpenSshServer, lines: str) -> None:
    """Put lines into the account's start-up file: what an agent that may write there can do."""
    with (target.home / ".bashrc").open("a") as file:
        file.write(lines + "\n")


def answers(journal: Any) -> list[dict[str, Any]]:
    return [dict(event.fields) for event in journal.of("account")]


@pytest.mark.interop
async def test_an_account_is_asked_once_on_the_nodes_record_before_its_first_command(bench: SshBench) -> None:
    for word in ("one", "two"):
        assert (await bench.ssh(f"echo {word}")).out == f"{word}\n".encode()
    journal: Any = bench.memory.transcripts.journal
    asked, said = journal.of("account")
    assert asked.secret == {"text": enrolment.question(bench.target.account)}
    assert (asked.fields["asked"], said.fields["asked"]) == (True, False)
    assert said.fields["read_as"] == "bash"
    assert bench.target.asked() == 1
    assert bench.memory.transcripts.all("account") == []  # it is no part of anybody's session
    assert [event.secret["text"] for event in bench.memory.transcripts.all("command")] == ["echo one", "echo two"]


@pytest.mark.interop
async def test_an_account_that_says_fish_gets_nothing_that_was_read_for_bash(tmp_path: Path, target: OpenSshServer) -> None:
    started_with(target, f"getent() {{ echo '{target.account}:x:0:0::/:/usr/bin/fish'; }}")
    async with open_whole(tmp_path, target, hold=0) as whole:
        first = await whole.bench.ssh("uptime")
        assert (first.status, first.out) == (75, b"")
        assert "account-changed" in first.err
        again = await whole.bench.ssh("uptime")  # read anew: nothing is allowed automatically there
        assert again.status == 75
        assert "approval-pending" in again.err
        (request,) = await whole.desk.inbox.list()
        assert [o.reason for o in request.draft.analysis.opaque] == ["foreign-shell"]
        assert target.ran() == []


@pytest.mark.interop
@pytest.mark.parametrize("configured", ["fish", "csh"])
async def test_an_account_that_says_bash_is_still_what_was_configured(
    tmp_path: Path, target: OpenSshServer, configured: str
) -> None:
    started_with(target, f"getent() {{ echo '{target.account}:x:0:0::/:/bin/bash'; }}")
    async with open_whole(tmp_path, target, hold=0, shell=configured) as whole:
        for _ in range(2):
            done = await whole.bench.ssh("uptime")
            assert done.status == 75
            assert "approval-pending" in done.err
        assert target.ran() == []


@pytest.mark.interop
async def test_another_charset_ends_automatic_allows(tmp_path: Path, target: OpenSshServer) -> None:
    started_with(target, "locale() { echo GB18030; }")
    async with open_whole(tmp_path, target, hold=0) as whole:
        assert "account-changed" in (await whole.bench.ssh("uptime")).err
        assert "approval-pending" in (await whole.bench.ssh("uptime")).err
        (request,) = await whole.desk.inbox.list()
        assert [o.reason for o in request.draft.analysis.opaque] == ["locale"]
        assert target.ran() == []


@pytest.mark.interop
async def test_an_endless_answer_is_cut_and_says_nothing(bench: SshBench) -> None:
    started_with(bench.target, "getent() { yes UTF-8; }")
    done = await bench.ssh("echo in")
    assert (done.out, done.err) == (b"in\n", "")
    journal: Any = bench.memory.transcripts.journal
    _, said = journal.of("account")
    assert (said.fields["shell"], said.fields["read_as"]) == ("", "bash")
    assert len(said.secret["output"]) <= MAX_ANSWER


@pytest.mark.interop
async def test_nothing_is_asked_that_can_not_be_recorded(bench: SshBench) -> None:
    journal: Any = bench.memory.transcripts.journal
    journal.broken = True
    done = await bench.ssh("echo in")
    assert done.status == 255
    assert "evidence-unavailable" in done.err
    assert (bench.target.asked(), bench.target.ran()) == (0, [])


@pytest.mark.interop
async def test_of_another_account_than_the_configured_one_the_shell_is_unknown(bench: SshBench) -> None:
    target = bench.config.target("web-1")
    assert target is not None
    assert bench.listener.enrolments.context(target, target.account).shell == "bash"
    assert bench.listener.enrolments.context(target, "another").shell == "unknown"
