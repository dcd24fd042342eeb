"""Scripts on standard input, by a stock ssh and by hand, to a real sshd: read whole, shown, released once, with their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench, finish
from harness.ssh_whole import Whole, open_whole
from interlock.approvals.model import VoteVerdict
from interlock.ssh.limits import Limits

pytestmark = pytest.mark.interop


@pytest_asyncio.fixture
async def whole(tmp_path: Path, target: OpenSshServer, request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    async with open_whole(tmp_path, target, hold=getattr(request, "param", 60)) as parts:
        yield parts


async def test_a_shell_without_a_terminal_runs_a_script_that_is_allowed(whole: Whole) -> None:
    (whole.bench.target.home / "notes").write_text("hello\n")
    done = await whole.bench.ssh(stdin=b"# a script\ncat notes\n", options=["-T"])
    assert (done.status, done.out, done.err) == (0, b"hello\n", "")
    assert whole.bench.target.ran() == ["'bash' '-s'"]
    events = await whole.events()
    (command,) = [event for event in events if event["type"] == "command"]
    assert command["disclosed"]["text"] == "bash -s"


@pytest.mark.parametrize("words", [["bash -s"], ["sh"], ["bash", "-s", "--"], []])
async def test_a_script_is_held_shown_whole_and_its_own_status_comes_back(whole: Whole, words: list[str]) -> None:
    victim = whole.bench.target.home / "victim"
    victim.mkdir()
    script = f"# tidy up\nrm -rf {victim}\nexit 7\n".encode()
    process = await whole.bench.spawn(*words)
    assert process.stdin is not None
    process.stdin.write(script)
    process.stdin.write_eof()
    request = await whole.pending()
    assert request.draft.command.stdin is not None
    assert request.draft.command.stdin.data == script
    assert ("delete", str(victim)) in {(e.verb, e.object) for e in request.draft.analysis.effects}
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    done = await finish(process, None)
    assert (done.status, victim.exists()) == (7, False), done.err
    assert len(whole.bench.target.ran()) == whole.bench.target.forced() == 1


@pytest.mark.parametrize(("command", "verb"), [("python3 -", "interpret"), ("psql -X orders", "interpret")])
async def test_code_of_other_interpreters_is_shown_whole(whole: Whole, command: str, verb: str) -> None:
    code = b"DELETE FROM t;\n" if command.startswith("psql") else b"import os\nos.remove('x')\n"
    process = await whole.bench.spawn(command)
    assert process.stdin is not None
    process.stdin.write(code)
    process.stdin.write_eof()
    request = await whole.pending()
    assert request.draft.command.stdin is not None
    assert request.draft.command.stdin.data == code
    found = {e.verb for e in request.draft.analysis.effects}
    assert verb in found
    assert ("delete" in found) == command.startswith("psql")
    await whole.vote(request, "bob", VoteVerdict.DENY)
    assert (await finish(process, None)).status == 126
    assert whole.bench.target.ran() == []


async def test_what_comes_after_the_end_of_the_script_goes_nowhere(whole: Whole) -> None:
    """A raw client says that its input has ended, and sends more while a person is asked."""
    home = whole.bench.target.home
    async with await whole.bench.raw() as connection:
        process = await connection.create_process("bash -s", encoding=None)
        process.stdin.write(f"rm -rf {home}/none\ntouch {home}/ran\n".encode())
        process.stdin.write_eof()
        request = await whole.pending()
        # asyncssh writes nothing after EOF, so the packet is made by hand (RFC 4254 §5.3 forbids it).
        process.channel.send_packet(94, _string(f"touch {home}/smuggled\n".encode()))
        await whole.vote(request, "bob", VoteVerdict.APPROVE)
        done = await process.wait()
    assert not (home / "smuggled").exists()
    assert done.exit_status in (0, None)
    assert request.draft.command.stdin is not None
    assert b"smuggled" not in request.draft.command.stdin.data


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("whole", [0], indirect=True)
async def test_other_bytes_do_not_use_the_approval_of_the_first(whole: Whole) -> None:
    victim = whole.bench.target.home / "victim"
    victim.mkdir()
    one, other = f"rm -rf {victim}\n".encode(), f"rm -rf {victim} \n".encode()
    assert (await whole.bench.ssh("bash -s", stdin=one)).status == 75
    await whole.vote(await whole.pending(), "bob", VoteVerdict.APPROVE)
    assert (await whole.bench.ssh("bash -s", stdin=other)).status == 75
    assert (await whole.bench.ssh("sh -s", stdin=one)).status == 75  # nor another interpreter
    assert victim.exists()
    assert (await whole.bench.ssh("bash -s", stdin=one)).status == 0
    assert not victim.exists()
    assert (await whole.bench.ssh("bash -s", stdin=one)).status == 75  # once


async def test_two_channels_have_scripts_of_their_own(whole: Whole) -> None:
    home = whole.bench.target.home
    async with await whole.bench.raw() as connection:
        processes = [await connection.create_process("bash -s", encoding=None) for _ in range(2)]
        for number, process in enumerate(processes):
            process.stdin.write(f"rm -f {home}/none\n".encode())
            await asyncio.sleep(0)  # their bytes alternate on the connection
            process.stdin.write(f"touch {home}/made{number}\n".encode())
            process.stdin.write_eof()
        for request in await whole.all_pending(2):
            assert request.draft.command.stdin is not None
            first = b"made0" in request.draft.command.stdin.data
            assert first != (b"made1" in request.draft.command.stdin.data)
            await whole.vote(request, "bob", VoteVerdict.APPROVE if first else VoteVerdict.DENY)
        assert [(await process.wait()).exit_status for process in processes] == [0, 126]
    assert (home / "made0").exists()
    assert not (home / "made1").exists()


async def test_a_script_that_reads_itself_waits_for_a_person_and_goes_as_it_is(whole: Whole) -> None:
    """What else can't be known of a script: tests/commands/test_scripts.py."""
    script = b"cat\nrm -rf /srv/none\n"  # eats what follows it, and prints it
    process = await whole.bench.spawn("bash -s")
    assert process.stdin is not None
    process.stdin.write(script)
    process.stdin.write_eof()
    request = await whole.pending()
    assert "script-reads-itself" in {one.reason for one in request.draft.analysis.opaque}
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    done = await finish(process, None)
    assert (done.status, done.out) == (0, b"rm -rf /srv/none\n")


@pytest_asyncio.fixture
async def hasty(tmp_path: Path, target: OpenSshServer) -> AsyncIterator[SshBench]:
    """A proxy that waits a moment for data only, and keeps a little."""
    bench = SshBench(tmp_path / "proxy", target, limits=replace(Limits(), stdin=2000, stdin_idle=0.2))
    await bench.start()
    yield bench
    await bench.stop()


@pytest.mark.parametrize("words", [["bash -s"], ["tee file"], []])
async def test_input_that_does_not_end_is_refused_with_what_to_do(hasty: SshBench, words: list[str]) -> None:
    process = await hasty.spawn(*words)
    assert process.stdin is not None
    process.stdin.write(b"touch made\n")
    done = await finish(process, None)
    assert (done.status, "[stdin-without-eof" in done.err) == (126, True)
    assert ("no interactive shell is offered here; run single commands" in done.err) == (not words)
    assert hasty.target.ran() == []


async def test_input_that_is_too_long_is_refused(hasty: SshBench) -> None:
    done = await hasty.ssh("bash -s", stdin=b"# " + b"x" * 5000 + b"\ntouch made\n")
    assert (done.status, "[stdin-too-large" in done.err) == (126, True)
    assert hasty.target.ran() == []
