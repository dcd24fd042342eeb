"""scp -O through the proxy to a real sshd: what passes, what waits for a person, what leads elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import pytest_asyncio

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import finish
from harness.ssh_copies import ADDRESS, run, scp, spawn
from harness.ssh_whole import Whole, open_whole
from interlock.approvals.model import VoteVerdict
from interlock.verify import verify_bundle

pytestmark = pytest.mark.interop

RULES = """\
version: 1
pack: drop
access:
  - {who: {groups: [agents]}, targets: {env: prod}, accounts: ["*"], roles: ["*"]}
rules:
  - {id: read, title: Reading, match: {protocol: ssh, verbs: [read]}, decide: allow}
  - id: drop
    title: The drop box
    match: {protocol: ssh, verbs: [write]}
    when: effect.object.matches("^/.*/home/drop(/.*)?$")
    decide: allow
"""


@pytest_asyncio.fixture
async def whole(tmp_path: Path, target: OpenSshServer) -> AsyncIterator[Whole]:
    (target.home / "drop").mkdir()
    async with open_whole(tmp_path, target, rules=RULES) as parts:
        yield parts


def of_type(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def test_a_file_goes_where_it_may_and_its_hash_is_on_record(whole: Whole, tmp_path: Path) -> None:
    content = os.urandom(1_500_000)
    (tmp_path / "upload").write_bytes(content)
    (tmp_path / "upload").chmod(0o640)
    drop = whole.bench.target.home / "drop"
    done = await run(*scp(whole.bench, "-p", str(tmp_path / "upload"), f"{ADDRESS}:{drop}"))
    assert (done.status, done.err) == (0, "")
    assert (drop / "upload").read_bytes() == content
    assert stat.S_IMODE((drop / "upload").stat().st_mode) == 0o640
    assert whole.bench.target.ran() == [f"'scp' '-p' '-t' '{drop}'"]
    events = await whole.events()
    (passed,) = of_type(events, "sftp.content")
    assert (passed["direction"], passed["bytes"], passed["complete"]) == ("in", len(content), True)
    assert passed["disclosed"] == {"sha256": hashlib.sha256(content).hexdigest(), "place": f"{drop}/upload"}
    texts = [event["disclosed"]["text"] for event in events if event["type"] in ("command", "sftp")]
    assert texts[:2] == [f"scp -p -t {drop}", f"scp put {drop}/upload mode=0640"]
    assert sum(event["bytes"] for event in of_type(events, "term.input")) > len(content)


async def test_a_tree_comes_back_as_it_went(whole: Whole, tmp_path: Path) -> None:
    tree, drop = tmp_path / "tree", whole.bench.target.home / "drop"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "empty").touch()
    (tree / "a" / "b" / "größe.txt").write_bytes(b"x" * 100_000)
    (tree / "top").write_text("top\n")
    done = await run(*scp(whole.bench, "-r", str(tree), f"{ADDRESS}:{drop}"))
    assert (done.status, done.err) == (0, "")
    done = await run(*scp(whole.bench, "-r", "-p", f"{ADDRESS}:{drop}/tree", str(tmp_path / "back")))
    assert (done.status, done.err) == (0, "")
    came = {p.relative_to(tmp_path / "back"): p.is_dir() or p.read_bytes() for p in (tmp_path / "back").rglob("*")}
    assert came == {p.relative_to(tree): p.is_dir() or p.read_bytes() for p in tree.rglob("*")}
    passed = of_type(await whole.events(), "sftp.content")
    assert sorted(one["direction"] for one in passed) == ["in"] * 3 + ["out"] * 3


async def test_what_can_not_be_read_or_written_there_fails_as_scp_fails(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    drop = whole.bench.target.home / "drop"
    (drop / "one").mkdir()  # a folder is in the way of the first file; the second one goes on
    done = await run(*scp(whole.bench, str(tmp_path / "one"), str(tmp_path / "two"), f"{ADDRESS}:{drop}"))
    assert done.status == 1
    assert "Is a directory" in done.err
    assert (drop / "two").read_text() == "2"
    done = await run(*scp(whole.bench, f"{ADDRESS}:{drop}/missing", str(tmp_path / "back")))
    assert done.status == 1
    assert "No such file" in done.err


async def test_an_approved_copy_is_forced_and_its_names_stay_below(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "app.conf").write_text("a=1\n")
    place = whole.bench.target.home / "app.conf"
    process = await spawn(*scp(whole.bench, str(tmp_path / "app.conf"), f"{ADDRESS}:{place}"))
    request = await whole.pending()
    assert request.draft.command.text.decode() == f"scp -t {place}"
    assert request.draft.command.stdin is None
    assert not place.exists()
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    done = await finish(process, None)
    assert done.status == 0, done.err
    assert place.read_text() == "a=1\n"
    assert whole.bench.target.forced() == 1
    events = await whole.events()
    (passed,) = of_type(events, "sftp.content")
    assert passed["disclosed"]["sha256"] == hashlib.sha256(b"a=1\n").hexdigest()


async def test_a_denied_copy_leaves_nothing_behind(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "app.conf").write_text("a=1\n")
    place = whole.bench.target.home / "app.conf"
    process = await spawn(*scp(whole.bench, str(tmp_path / "app.conf"), f"{ADDRESS}:{place}"))
    await whole.vote(await whole.pending(), "bob", VoteVerdict.DENY, "not today")
    done = await finish(process, None)
    assert done.status != 0
    assert "denied by bob: not today" in done.err
    assert not place.exists()
    assert whole.bench.target.ran() == []


async def talk(whole: Whole, command: str, said: bytes) -> tuple[int | None, bytes, str]:
    """Start an end by hand and say all of this at once, whatever it answers."""
    async with await whole.bench.raw() as connection:
        process = await connection.create_process(command, encoding=None)
        process.stdin.write(said)
        process.stdin.write_eof()
        async with asyncio.timeout(30):
            done = await process.wait()
        assert isinstance(done.stdout, bytes)
        assert isinstance(done.stderr, bytes)
        return done.exit_status, done.stdout, done.stderr.decode()


ELSEWHERE = (
    b"C0644 4 ../up\nevil\0", b"C0644 4 a/b\nevil\0", b"C0644 4 ..\nevil\0", b"D0755 0 ..\nC0644 4 up\nevil\0E\n",
    b"C0644 4 \nevil\0", b"C0644 4 a\x1b]0;x\nevil\0", b"C0644 4 \xff\nevil\0", b"C0644 -4 a\nevil\0", b"C644 4 a\nevil\0",
    b"E\n", b"x\n", b"T1 0 1\n", b"C0644 4 " + b"a" * 2000 + b"\nevil\0", b"C0644 4 a\r\nevil\0",
)  # fmt: skip


async def test_a_line_that_is_none_or_leads_elsewhere_ends_the_copy(whole: Whole) -> None:
    home = whole.bench.target.home
    before = sorted(home.rglob("*"))
    for line in ELSEWHERE:
        status, _, err = await talk(whole, f"scp -r -t {home}/drop", line)
        assert (status, "protocol-violation" in err) == (255, True), (line, err)
        assert sorted(home.rglob("*")) == before, line


async def test_a_name_below_that_policy_would_not_allow_is_not_written(whole: Whole) -> None:
    """The path of the command may be written; what comes below it need not be what was meant."""
    drop = whole.bench.target.home / "drop"
    status, _, err = await talk(whole, f"scp -r -t {drop}", b"D0755 0 .ssh\nC0644 4 authorized_keys\nevil\0E\n")
    assert status == 126
    assert "use sftp" in err
    assert list(drop.iterdir()) == []
    blocked = of_type(await whole.events(), "block")
    assert [event["reason"] for event in blocked] == ["request-not-offered"]


async def test_a_name_that_is_hidden_where_we_would_see_content_is_seen(whole: Whole) -> None:
    """The target refuses the first file and then reads names, where the client says that content comes.

    Both decide by the target's answer what follows, so the line is a name here as well.
    """
    drop = whole.bench.target.home / "drop"
    (drop / "folder").mkdir()
    hidden = b"C0644 4 .bashrc\nevil\0"
    said = b"C0644 %d folder\n" % len(hidden) + hidden
    status, _, err = await talk(whole, f"scp -t {drop}", said)
    assert not (drop / ".bashrc").exists()
    assert (status, "use sftp" in err) == (126, True), err


async def test_a_set_id_bit_is_not_taken_from_an_approved_copy(whole: Whole) -> None:
    home = whole.bench.target.home
    async with await whole.bench.raw() as connection:
        process = await connection.create_process(f"scp -p -t {home}/tool", encoding=None)
        process.stdin.write(b"C4755 4 tool\nevil\0")
        await whole.vote(await whole.pending(), "bob", VoteVerdict.APPROVE)
        process.stdin.write_eof()
        done = await process.wait()
    assert done.exit_status == 126
    assert not (home / "tool").exists()


async def test_a_set_id_bit_on_an_allowed_path_is_a_privilege(whole: Whole) -> None:
    drop = whole.bench.target.home / "drop"
    status, _, _ = await talk(whole, f"scp -p -t {drop}", b"C4755 4 tool\nevil\0")
    assert status == 126
    assert list(drop.iterdir()) == []


async def test_a_secret_in_a_tree_is_not_read_along_with_it(whole: Whole, tmp_path: Path) -> None:
    drop = whole.bench.target.home / "drop"
    (drop / "tree" / ".ssh").mkdir(parents=True)
    (drop / "tree" / ".ssh" / "id_ed25519").write_text("the key")
    done = await run(*scp(whole.bench, "-r", f"{ADDRESS}:{drop}/tree", str(tmp_path / "back")))
    assert done.status != 0
    assert "use sftp" in done.err
    assert not (tmp_path / "back" / ".ssh" / "id_ed25519").exists()
    status, out, _ = await talk(whole, f"scp -r -f {drop}/tree", b"\0" * 20)  # answers ahead do not help
    assert status == 126
    assert b"the key" not in out


async def test_bytes_ahead_of_the_approval_go_to_nobody_else(whole: Whole) -> None:
    """What was typed while a person was asked belongs to this copy, and only once it runs."""
    home = whole.bench.target.home
    async with await whole.bench.raw() as connection:
        first = await connection.create_process(f"scp -t {home}/one", encoding=None)
        second = await connection.create_process(f"scp -t {home}/two", encoding=None)
        first.stdin.write(b"C0644 3 one\n111\0")
        second.stdin.write(b"C0644 3 two\n222\0")
        first.stdin.write_eof()
        second.stdin.write_eof()
        for request in await whole.all_pending(2):
            verdict = VoteVerdict.APPROVE if b"/one" in request.draft.command.text else VoteVerdict.DENY
            await whole.vote(request, "bob", verdict)
        assert (await first.wait()).exit_status == 0
        assert (await second.wait()).exit_status == 126
    assert (home / "one").read_text() == "111"
    assert not (home / "two").exists()


@pytest.mark.parametrize("wrapped", ["nice scp -t {0}/drop", "cd {0}; scp -t drop", "scp -t {0}/drop >&2", "X=1 scp -t {0}/drop"])
async def test_a_copy_that_does_not_stand_alone_is_never_let_through_unread(whole: Whole, wrapped: str) -> None:
    home = whole.bench.target.home
    command = wrapped.format(home)
    process = await whole.bench.spawn(command)
    assert process.stdin is not None
    process.stdin.write(b"D0755 0 .ssh\nC0644 4 authorized_keys\nevil\0E\n")
    process.stdin.write_eof()
    request = await whole.pending()
    assert "transfer-not-alone" in {one.reason for one in request.draft.analysis.opaque}
    assert request.draft.command.stdin is not None  # read to its end and shown, like other data
    await whole.vote(request, "bob", VoteVerdict.DENY)
    assert (await finish(process, None)).status == 126


async def test_a_client_that_leaves_in_the_middle_is_on_record_with_what_it_sent(whole: Whole) -> None:
    drop = whole.bench.target.home / "drop"
    async with await whole.bench.raw() as connection:
        process = await connection.create_process(f"scp -t {drop}", encoding=None)
        assert await process.stdout.read(1) == b"\0"
        process.stdin.write(b"C0644 1000 part\n")
        assert await process.stdout.read(1) == b"\0"
        process.stdin.write(b"x" * 10)
    (passed,) = of_type(await whole.events(), "sftp.content")
    assert (passed["complete"], passed["direction"]) == (False, "in")


async def test_the_transcript_of_a_copy_verifies(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = await run(*scp(whole.bench, str(tmp_path / "file"), f"{ADDRESS}:{whole.bench.target.home}/drop/"))
    assert done.status == 0, done.err
    await whole.bench.listener.close()
    (row,) = whole.desk.archive.list()
    data = whole.desk.transcripts.data_dir
    report = await asyncio.to_thread(verify_bundle, data / "sessions" / row["id"], data / "trust")
    assert {problem.check for problem in report.problems} <= {"policies"}, report.problems


async def test_asyncssh_speaks_it_too(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("by asyncssh\n")
    drop = whole.bench.target.home / "drop"
    async with await whole.bench.raw() as connection:
        await asyncssh.scp(str(tmp_path / "file"), (connection, str(drop)), preserve=True)
        await asyncssh.scp((connection, str(drop / "file")), str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "by asyncssh\n"
