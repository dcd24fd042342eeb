"""A stock ssh through the proxy to a real sshd: what an agent sees, and what the target ran."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from harness.ssh_bench import SshBench, finish, until
from interlock.approvals.model import VoteVerdict

pytestmark = pytest.mark.interop


async def test_outputs_and_status_are_the_commands_own(bench: SshBench) -> None:
    done = await bench.ssh("echo out; echo err >&2; exit 3")
    assert (done.status, done.out, done.err) == (3, b"out\n", "err\n")
    assert bench.target.ran() == ["echo out; echo err >&2; exit 3"]


async def test_a_signal_that_ends_the_command_arrives_as_a_signal(bench: SshBench) -> None:
    connection = await bench.raw()
    async with connection:
        done = await connection.run("kill -USR1 $$")
        assert done.exit_signal is not None
        assert done.exit_signal[0] == "USR1"


async def test_standard_input_streams_through_and_is_recorded(bench: SshBench) -> None:
    process = await bench.spawn("cat")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"first\n")
    assert await process.stdout.readline() == b"first\n"  # answered while input is still open: nothing waits for EOF
    process.stdin.write(b"second\n")
    process.stdin.write_eof()
    done = await finish(process, None)
    assert (done.status, done.out) == (0, b"second\n")
    assert sum(int(str(event.fields["bytes"])) for event in bench.memory.transcripts.all("term.input")) == 13


async def test_large_input_arrives_whole(bench: SshBench) -> None:
    data = bytes(range(256)) * 20_000
    done = await bench.ssh("sha256sum", stdin=data)
    assert done.out.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_large_output_arrives_whole_before_the_status(bench: SshBench) -> None:
    process = await bench.spawn("head -c 52428800 /dev/zero; exit 7")
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdin.write_eof()
    size = 0
    while chunk := await process.stdout.read(1 << 18):
        size += len(chunk)
    assert await process.wait() == 7
    assert size == 52_428_800
    recorded = bench.memory.transcripts.all("term.output")
    assert sum(int(str(event.fields["bytes"])) for event in recorded) == size


@pytest.mark.parametrize("how", ["small window", "full socket"])
async def test_a_client_that_does_not_read_holds_the_target_back(bench: SshBench, how: str) -> None:
    """The proxy keeps a bounded part of an endless output; then the target waits for the client.

    A hostile client announces a window of gigabytes and does not read its socket.
    """
    connection = await bench.raw()
    window = 65536 if how == "small window" else 1 << 30
    process = await connection.create_process("sleep 0.3; head -c 200000000 /dev/zero", encoding=None, window=window)
    if how == "small window":
        process.channel.pause_reading()
    else:
        assert connection._transport is not None
        connection._transport.pause_reading()
    recorder = bench.memory.transcripts.sessions[0]
    await until(lambda: recorder.of("term.output"))
    quiet = 0
    seen = -1
    async with asyncio.timeout(60):
        while quiet < 5:  # the flow has stopped when the record does not grow any more
            await asyncio.sleep(0.1)
            size = sum(int(str(event.fields["bytes"])) for event in recorder.of("term.output"))
            quiet, seen = (quiet + 1, seen) if size == seen else (0, size)
    assert 0 < seen < 24_000_000
    connection.abort()
    await connection.wait_closed()


@pytest.mark.timeout(300)
async def test_several_channels_at_once_over_one_connection(bench: SshBench) -> None:
    """Twenty clients start at once, for which a busy machine may take minutes. A deadlock never ends, and says where it was."""
    control = bench.directory / "control"
    master = await bench.spawn(options=["-M", "-S", str(control), "-N"])
    await until(control.exists, 120)
    wanted = [bench.ssh(f"sleep 0.2; echo {n}; exit {n}", options=["-S", str(control)], timeout=150) for n in range(20)]
    try:
        answers = await asyncio.gather(*wanted)
    except TimeoutError:
        phases = [
            (c.number, c.execution and c.execution.phase)
            for i in bench.listener._house.connections
            for c in i._session_channels()
        ]
        pytest.fail(f"{phases=}, lines: {bench.listener.lines.count}, ran at the target: {bench.target.ran()}")
    assert [(a.status, a.out) for a in answers] == [(n, f"{n}\n".encode()) for n in range(20)]
    assert len(bench.memory.transcripts.sessions) == 1  # one session for the connection, every channel decided on its own
    assert len(bench.memory.transcripts.all("decision")) == 20
    master.kill()
    await master.wait()


async def test_a_held_command_runs_after_approval_and_its_status_arrives(bench: SshBench) -> None:
    victim = bench.target.home / "victim"
    victim.mkdir()
    process = await bench.spawn("rm -rf victim; exit 5")
    request = await bench.memory.approvals.next_request()
    assert victim.exists()
    assert bench.target.ran() == []
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    done = await finish(process)
    assert done.status == 5
    assert not victim.exists()
    assert f"interlock: held for approval {request.id}" in done.err
    assert "interlock: approved by bob" in done.err
    assert bench.target.ran() == ["rm -rf victim; exit 5"]
    assert bench.target.forced() == 1  # sshd itself enforced the bytes


async def test_a_denied_command_is_126_with_the_reviewers_reason(bench: SshBench) -> None:
    process = await bench.spawn("rm -rf victim")
    request = await bench.memory.approvals.next_request()
    bench.memory.approvals.answer(request.id, VoteVerdict.DENY, reason="still in use")
    done = await finish(process)
    assert done.status == 126
    assert "denied by bob: still in use" in done.err
    assert "[denied-by-reviewer, rule test/risky]" in done.err
    assert bench.target.ran() == []


async def test_a_policy_denial_is_126_with_reason_and_hint(bench: SshBench) -> None:
    done = await bench.ssh("shutdown --help")
    assert done.status == 126
    assert "interlock: hosts are not shut down from here [denied-by-policy, rule test/no-shutdown]" in done.err
    assert "interlock: Ask operations." in done.err
    assert bench.target.ran() == []


async def test_75_then_the_same_again_after_approval_runs_once(bench: SshBench) -> None:
    bench.memory.policy.terms = replace(bench.memory.policy.terms, hold=0)
    done = await bench.ssh("rm -f victim")
    assert done.status == 75
    request = await bench.memory.approvals.next_request()
    assert f"pending {request.id}: run the same command again after approval" in done.err
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    assert (await bench.ssh("rm -f victim")).status == 0
    assert bench.target.ran() == ["rm -f victim"]
    assert (await bench.ssh("rm -f victim")).status == 75  # used up: the next one waits again
    assert bench.target.ran() == ["rm -f victim"]


async def test_another_command_does_not_use_the_approval(bench: SshBench) -> None:
    bench.memory.policy.terms = replace(bench.memory.policy.terms, hold=0)
    await bench.ssh("rm -f victim")
    request = await bench.memory.approvals.next_request()
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    assert (await bench.ssh("rm -f  victim")).status == 75
    assert bench.target.ran() == []


async def test_a_client_that_leaves_gives_its_request_back(bench: SshBench) -> None:
    process = await bench.spawn("rm -rf victim")
    request = await bench.memory.approvals.next_request()
    assert process.stdin is not None
    process.stdin.write(b"typed ahead\n")  # unread input must not hide the departure
    process.kill()
    await process.wait()
    await until(lambda: bench.memory.approvals.returned)
    assert bench.memory.approvals.returned == [request.id]
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    assert bench.target.ran() == []


async def test_a_client_that_dies_takes_its_command_with_it(ordinary_bench: SshBench) -> None:
    bench = ordinary_bench
    process = await bench.spawn("echo $$ > pid; sleep 300")
    pid_file = bench.target.home / "pid"
    await until(lambda: pid_file.exists() and pid_file.read_text().strip())
    pid = int(pid_file.read_text())
    process.kill()
    await process.wait()
    await until(lambda: not _alive(pid))
    await until(lambda: bench.memory.transcripts.all("channel.close"))
    assert bench.memory.transcripts.all("channel.close")[0].fields["ended"] == "left"
    await until(lambda: bench.memory.transcripts.sessions[0].closed is not None)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_signal_from_the_client_reaches_the_command(ordinary_bench: SshBench) -> None:
    bench = ordinary_bench
    connection = await bench.raw()
    async with connection:
        process = await connection.create_process("trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.05; done")
        assert await process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        done = await process.wait()
        assert (done.stdout, done.exit_status) == ("caught\n", 9)


async def test_a_script_on_standard_input_is_read_shown_and_released_once(bench: SshBench) -> None:
    process = await bench.spawn("bash -s")
    assert process.stdin is not None
    process.stdin.write(b"touch made; rm -f other")
    process.stdin.write_eof()
    request = await bench.memory.approvals.next_request()
    assert request.draft.command.stdin is not None
    assert request.draft.command.stdin.data == b"touch made; rm -f other"
    assert not (bench.target.home / "made").exists()
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    assert (await finish(process, None)).status == 0
    assert (bench.target.home / "made").exists()


async def test_data_for_a_reviewed_command_is_part_of_what_is_approved(bench: SshBench) -> None:
    process = await bench.spawn("tee file")
    assert process.stdin is not None
    process.stdin.write(b"content\n")
    process.stdin.write_eof()
    request = await bench.memory.approvals.next_request()
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    done = await finish(process, None)
    assert (done.status, done.out) == (0, b"content\n")
    assert (bench.target.home / "file").read_bytes() == b"content\n"
    assert request.draft.command.stdin is not None
    assert request.draft.command.stdin.data == b"content\n"


async def test_input_after_a_reviewed_command_that_ignores_it_goes_nowhere(bench: SshBench) -> None:
    process = await bench.spawn("rm -f x; cat")
    request = await bench.memory.approvals.next_request()
    assert process.stdin is not None
    process.stdin.write(b"smuggled\n")
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    done = await finish(process, None)
    assert (done.status, done.out) == (0, b"")


async def test_environment_of_the_locale_passes_and_is_part_of_the_command(bench: SshBench) -> None:
    done = await bench.ssh('echo "$LC_TIME"', options=["-o", "SetEnv=LC_TIME=C.UTF-8"])
    assert done.out == b"C.UTF-8\n"
    (command,) = bench.memory.transcripts.all("command")
    assert command.fields["env"] == {"LC_TIME": "C.UTF-8"}


@pytest.mark.parametrize("assignment", ["LANG=zh_CN.GBK", "LC_ALL=ja_JP.SJIS", "LC_CTYPE=../x.UTF-8", "BASH_ENV=/tmp/evil"])
async def test_environment_that_could_change_the_reading_is_refused(bench: SshBench, assignment: str) -> None:
    name = assignment.partition("=")[0]
    done = await bench.ssh(f'echo "[${name}]"', options=["-o", f"SetEnv={assignment}"])
    assert done.out == b"[]\n"
    (refused,) = bench.memory.transcripts.all("channel.refuse")
    assert refused.fields["request"] == "env"
    assert refused.secret["detail"] == assignment


@pytest.mark.parametrize("text", [b"echo a\0; touch made", b"echo \xff\xfe", b"echo a\rtouch made", b"   "])
async def test_text_that_can_not_be_shown_is_refused_in_words(bench: SshBench, text: bytes) -> None:
    connection = await bench.raw()
    async with connection:
        process = await connection.create_process(text, encoding=None)  # type: ignore[arg-type]  # bytes on purpose
        done = await process.wait()
    assert done.exit_status == 126
    assert done.stderr is not None
    assert bytes(done.stderr, "ascii") if isinstance(done.stderr, str) else bytes(done.stderr).startswith(b"interlock: ")
    assert bench.target.ran() == []


async def test_nothing_is_released_when_the_transcript_breaks_in_the_middle_of_output(bench: SshBench) -> None:
    process = await bench.spawn("echo one; read line; echo two")
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline() == b"one\n"
    bench.memory.transcripts.sessions[0].broken = True
    process.stdin.write(b"\n")
    done = await finish(process, None)
    assert done.status == 255
    assert b"two" not in done.out


async def test_a_broken_transcript_releases_nothing(bench: SshBench) -> None:
    bench.memory.transcripts.hooks.append(lambda recorder: setattr(recorder, "broken", True))
    done = await bench.ssh("touch made")
    assert done.status == 255
    assert bench.target.ran() == []
    assert not (bench.target.home / "made").exists()


async def test_a_closed_channel_gives_its_request_back_though_input_was_never_read(bench: SshBench) -> None:
    connection = await bench.raw()
    async with connection:
        process = await connection.create_process("rm -rf victim")
        request = await bench.memory.approvals.next_request()
        process.stdin.write("typed ahead\n" * 1000)
        process.channel.abort()  # the connection stays: only the channel is closed
        await until(lambda: bench.memory.approvals.returned)
        assert bench.memory.approvals.returned == [request.id]
        assert (await connection.run("echo still")).stdout == "still\n"
    assert bench.target.ran() == ["echo still"]


async def test_the_status_comes_after_all_the_data(bench: SshBench) -> None:
    """Over a small window the proxy still has output to send when the target has ended."""
    received = 0
    at_exit: list[int] = []
    over = asyncio.Event()

    class Client(asyncssh.SSHClientSession[bytes]):
        def data_received(self, data: bytes, datatype: int | None) -> None:
            nonlocal received
            received += len(data)

        def exit_status_received(self, status: int) -> None:
            at_exit.append(received)

        def connection_lost(self, exc: Exception | None) -> None:
            over.set()

    connection = await bench.raw()
    async with connection:
        await connection.create_session(Client, "head -c 300000 /dev/zero; exit 3", encoding=None, window=32768)
        async with asyncio.timeout(30):
            await over.wait()
    assert at_exit == [300_000]


async def test_sixty_four_channels_of_one_connection_are_each_decided_and_recorded(bench: SshBench) -> None:
    async with await bench.raw() as connection:
        processes = [await connection.create_process("cat", encoding=None) for _ in range(64)]
        for number, process in enumerate(processes):
            process.stdin.write(b"%d\n" % number)
        assert [await process.stdout.readline() for process in processes] == [b"%d\n" % n for n in range(64)]
        with pytest.raises(asyncssh.ChannelOpenError, match="too many channels at once"):
            await connection.create_process("cat")
        for process in processes:
            process.stdin.write_eof()
        assert {(await process.wait()).exit_status for process in processes} == {0}
    transcript = bench.memory.transcripts
    assert len(transcript.sessions) == 1
    assert len(transcript.all("decision")) == len(transcript.all("forward")) == 64
    typed = {(event.fields["channel"], event.fields["bytes"]) for event in transcript.all("term.input")}
    assert len({channel for channel, _ in typed}) == 64
