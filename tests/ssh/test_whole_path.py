"""Nothing in memory: the real grammars, packs, desk, directory, store and transcripts between a stock ssh and a real sshd."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import finish
from harness.ssh_whole import Whole, open_whole
from interlock.approvals.model import VoteVerdict
from interlock.approvals.portrait import chat_portrait
from interlock.errors import Reason, VoteError

pytestmark = pytest.mark.interop


@pytest_asyncio.fixture
async def whole(tmp_path: Path, target: OpenSshServer, request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    async with open_whole(tmp_path, target, hold=getattr(request, "param", 60)) as parts:
        yield parts


async def test_a_read_passes_and_is_in_the_transcript_with_its_output(whole: Whole) -> None:
    (whole.bench.target.home / "notes").write_text("hello\n")
    done = await whole.bench.ssh("cat notes")
    assert (done.status, done.out, done.err) == (0, b"hello\n", "")
    events = await whole.events()
    kinds = [event["type"] for event in events]
    assert kinds[:4] == ["session.open", "channel.open", "command", "decision"]
    assert kinds[-1] == "session.close"
    assert kinds.index("forward") < kinds.index("term.output") < kinds.index("channel.close")
    closed = next(event for event in events if event["type"] == "channel.close")
    assert (closed["exit_status"], closed["out"]) == (0, 6)


async def test_a_held_rm_waits_for_another_person_and_its_status_arrives(whole: Whole) -> None:
    victim = whole.bench.target.home / "victim"
    victim.mkdir()
    process = await whole.bench.spawn(f"rm -rf {victim}")
    request = await whole.pending()
    assert victim.exists()
    for who in ("claude", "alice"):  # the requester, and the owner of the agent
        with pytest.raises(VoteError) as refused:
            await whole.vote(request, who, VoteVerdict.APPROVE)
        assert refused.value.code in (Reason.SELF_APPROVAL, Reason.NOT_A_PERSON)
    assert victim.exists()
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    done = await finish(process)
    assert done.status == 0
    assert not victim.exists()
    assert "held for approval" in done.err
    assert "approved by bob" in done.err
    assert whole.bench.target.ran() == [f"rm -rf {victim}"]
    assert whole.bench.target.forced() == 1
    kinds = [event["type"] for event in await whole.events()]
    assert kinds.index("approval.request") < kinds.index("approval.response") < kinds.index("forward")


async def test_the_agents_reason_reaches_the_reviewer_and_never_the_target(whole: Whole) -> None:
    victim = whole.bench.target.home / "victim"
    victim.mkdir()
    reason = "cleaning up \u202eafter\x1b[2K " + "x" * 600
    async with await whole.bench.raw() as connection:
        process = await connection.create_process(f"rm -rf {victim}", env={"INTERLOCK_REASON": reason, "LANG": "C.UTF-8"})
        request = await whole.pending()
        assert request.draft.said.startswith("cleaning up after [2K x")
        assert len(request.draft.said) == 500
        assert request.draft.command.env == (("LANG", "C.UTF-8"),)
        await whole.vote(request, "bob", VoteVerdict.APPROVE)
        assert (await process.wait()).exit_status == 0
    seen = await whole.bench.ssh("printenv INTERLOCK_REASON", options=("-o", "SetEnv=INTERLOCK_REASON=why"))
    assert (seen.status, seen.out) == (1, b"")
    (asked,) = [event for event in await whole.events() if event["type"] == "approval.request"]
    assert asked["disclosed"]["said"].startswith("cleaning up")


async def test_what_is_behind_padding_and_in_comments_is_in_the_reviewers_sight(whole: Whole) -> None:
    victim = whole.bench.target.home / "victim"
    victim.mkdir()
    process = await whole.bench.spawn(f"uptime{' ' * 5000}; rm -rf {victim} # only a test")
    request = await whole.pending()
    view = chat_portrait(request)
    assert view.command.lines == (f"uptime⟦5000 blanks⟧; rm -rf {victim} # only a test",)
    assert view.effects[0] == f"deletes {victim} and everything below it, by force"
    assert view.remarks == ("comment: # only a test",)
    await whole.vote(request, "bob", VoteVerdict.DENY)
    assert (await finish(process)).status == 126


@pytest.mark.parametrize("whole", [0], indirect=True)
async def test_another_reason_is_another_digest_and_the_same_match(whole: Whole) -> None:
    victim = whole.bench.target.home / "victim"
    victim.mkdir()
    command = f"rm -rf {victim}"
    assert (await whole.bench.ssh(command, options=("-o", "SetEnv=INTERLOCK_REASON=one"))).status == 75
    await whole.vote(await whole.pending(), "bob", VoteVerdict.APPROVE)
    assert (await whole.bench.ssh(command, options=("-o", "SetEnv=INTERLOCK_REASON=other"))).status == 0
    assert not victim.exists()


async def test_a_denial_is_126_with_the_reason(whole: Whole) -> None:
    victim = whole.bench.target.home / "victim"
    victim.mkdir()
    process = await whole.bench.spawn(f"rm -rf {victim}")
    await whole.vote(await whole.pending(), "bob", VoteVerdict.DENY, "still in use")
    done = await finish(process)
    assert done.status == 126
    assert "denied by bob: still in use" in done.err
    assert victim.exists()
    assert whole.bench.target.ran() == []


async def test_what_is_never_done_is_denied_without_asking(whole: Whole) -> None:
    # The target would run it, as root perhaps, were the gate broken: so it must be a text that does no harm.
    done = await whole.bench.ssh("mkfs.ext4 /nonexistent/interlock-test")
    assert done.status == 126
    assert "rule linux-deny/format" in done.err
    assert await whole.desk.inbox.list() == []
    assert whole.bench.target.ran() == []


@pytest.mark.parametrize("whole", [0], indirect=True)
async def test_75_then_the_same_again_runs_once_and_then_waits_again(whole: Whole) -> None:
    victim = whole.bench.target.home / "victim"
    victim.mkdir()
    command = f"rm -rf {victim}"
    done = await whole.bench.ssh(command)
    assert done.status == 75
    assert "run the same command again after approval" in done.err
    await whole.vote(await whole.pending(), "bob", VoteVerdict.APPROVE)
    assert (await whole.bench.ssh(command)).status == 0
    assert not victim.exists()
    assert (await whole.bench.ssh(command)).status == 75
    assert whole.bench.target.ran() == [command]


async def test_a_script_on_standard_input_is_judged_by_what_it_says(whole: Whole) -> None:
    victim = whole.bench.target.home / "victim"
    victim.mkdir()
    process = await whole.bench.spawn("bash -s")
    assert process.stdin is not None
    process.stdin.write(f"rm -rf {victim}\n".encode())
    process.stdin.write_eof()
    request = await whole.pending()
    assert request.draft.command.stdin is not None
    assert victim.exists()
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    assert (await finish(process, None)).status == 0
    assert not victim.exists()


@pytest.mark.parametrize("text", ["echo a\rtouch made", "echo \u202e", "echo $(", "echo 'x"])
async def test_text_that_deceives_or_does_not_parse_is_refused_in_words(whole: Whole, text: str) -> None:
    done = await whole.bench.ssh(text)
    assert done.status == 126
    assert "interlock: " in done.err
    assert whole.bench.target.ran() == []


async def test_a_token_as_password_and_a_disabled_agent(whole: Whole, tmp_path: Path) -> None:
    issued = await whole.desk.directory.issue_token("claude", timedelta(minutes=5))
    askpass = tmp_path / "askpass"
    askpass.write_text('#!/bin/sh\necho "$TEST_TOKEN"\n')
    askpass.chmod(0o700)
    environment = {
        **os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "TEST_TOKEN": issued.secret.reveal(),
    }  # fmt: skip
    argv = whole.bench.argv("echo in", options=["-o", "BatchMode=no", "-o", "PubkeyAuthentication=no"])
    at = argv.index("BatchMode=yes")
    del argv[at - 1 : at + 1]
    process = await asyncio.create_subprocess_exec(
        *argv, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"in\n"), err
    await whole.desk.directory.set_disabled("claude", True)
    done = await whole.bench.ssh("echo in")
    assert done.status == 255
    assert "Permission denied" in done.err


async def test_a_transcript_that_can_not_be_written_releases_nothing(whole: Whole, tmp_path: Path) -> None:
    """The sessions folder is a file: what a read-only or full data_dir looks like from here, also for root."""
    sessions = whole.desk.transcripts.data_dir / "sessions"
    sessions.rename(sessions.with_name("moved"))
    sessions.write_text("")
    done = await whole.bench.ssh("touch made")
    assert done.status == 255
    assert "evidence-unavailable" in done.err
    assert whole.bench.target.ran() == []
    sessions.unlink()
    sessions.with_name("moved").rename(sessions)
