"""Stock sftp and scp through the proxy to a real sshd: what passes, what waits for a person, what is on record."""

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
from harness.ssh_bench import QUIET, Finished, finish
from harness.ssh_whole import Whole, open_whole
from interlock.approvals.model import ApprovalRequest, VoteVerdict
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
    match: {protocol: ssh, verbs: [write, delete]}
    when: effect.object.matches("^/.*/home/drop/.*$")
    decide: allow
"""


@pytest_asyncio.fixture
async def whole(tmp_path: Path, target: OpenSshServer, request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    (target.home / "drop").mkdir()
    credentials = {"kind": "key", "key": "file:operator"}
    async with open_whole(tmp_path, target, rules=RULES, credentials=credentials, hold=getattr(request, "param", 60)) as parts:
        yield parts


async def spawn_sftp(whole: Whole, batch: str) -> asyncio.subprocess.Process:
    """Start a stock sftp with a batch of commands."""
    bench = whole.bench
    file = bench.directory / "batch"
    file.write_text(batch)
    return await asyncio.create_subprocess_exec(
        "sftp", "-b", str(file), *QUIET, "-o", f"UserKnownHostsFile={bench.directory / 'proxy_known_hosts'}",
        "-i", str(bench.directory / "agent"), "-P", str(bench.listener.port), "web-1@127.0.0.1",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def sftp(whole: Whole, *batch: str) -> Finished:
    process = await spawn_sftp(whole, "\n".join(batch) + "\n")
    async with asyncio.timeout(60):
        return await finish(process, None)


def of_type(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def test_what_is_read_arrives_and_its_hash_is_on_record(whole: Whole, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    home = whole.bench.target.home
    (home / "report").write_bytes(content)
    done = await sftp(whole, f"cd {home}", f"get report {tmp_path / 'report'}", "ls")
    assert done.status == 0, done.err
    assert (tmp_path / "report").read_bytes() == content
    assert b"drop" in done.out
    events = await whole.events()
    (passed,) = of_type(events, "sftp.content")
    assert (passed["direction"], passed["bytes"], passed["complete"]) == ("out", len(content), True)
    assert passed["disclosed"]["sha256"] == hashlib.sha256(content).hexdigest()


async def test_what_may_be_written_is_written(whole: Whole, tmp_path: Path) -> None:
    content = os.urandom(2_000_000)
    (tmp_path / "upload").write_bytes(content)
    drop = whole.bench.target.home / "drop"
    done = await sftp(
        whole, f"put {tmp_path / 'upload'} {drop / 'a'}", f"rename {drop / 'a'} {drop / 'b'}", f"mkdir {drop / 'c'}",
        f"chmod 640 {drop / 'b'}", f"ln -s {drop / 'b'} {drop / 'l'}", f"rmdir {drop / 'c'}", f"rm {drop / 'l'}",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert (drop / "b").read_bytes() == content
    assert stat.S_IMODE((drop / "b").stat().st_mode) == 0o640
    assert sorted(path.name for path in drop.iterdir()) == ["b"]
    events = await whole.events()
    (passed,) = of_type(events, "sftp.content")
    assert (passed["direction"], passed["disclosed"]["sha256"]) == ("in", hashlib.sha256(content).hexdigest())


async def test_an_upload_that_a_person_must_see_waits_with_its_content(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("[Service]\nExecStart=/bin/true\n")
    place = whole.bench.target.home / "app.conf"
    process = await spawn_sftp(whole, f"put {tmp_path / 'unit'} {place}\n")
    request = await whole.pending()
    assert not place.exists()
    assert request.draft.command.text.decode() == f"sftp put {place} create=yes truncate=yes mode=0644"
    assert request.draft.command.stdin is not None
    assert request.draft.command.stdin.data == b"[Service]\nExecStart=/bin/true\n"
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    done = await finish(process, None)
    assert done.status == 0, done.err
    assert place.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert "approved by bob" in done.err
    kinds = [event["type"] for event in await whole.events()]
    assert kinds.index("approval.request") < kinds.index("approval.response") < kinds.index("sftp.content")


async def test_a_denied_upload_leaves_nothing_behind(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("x")
    place = whole.bench.target.home / "app.conf"
    process = await spawn_sftp(whole, f"put {tmp_path / 'unit'} {place}\n")
    await whole.vote(await whole.pending(), "bob", VoteVerdict.DENY, "not today")
    done = await finish(process, None)
    assert done.status == 1
    assert "denied by bob: not today" in done.err
    assert not place.exists()


async def test_a_secret_is_not_read_by_sftp_either_nor_through_a_link(whole: Whole, tmp_path: Path) -> None:
    home = whole.bench.target.home
    (home / ".ssh").mkdir()
    (home / ".ssh/id_ed25519").write_text("the key")
    (home / "drop/innocent").symlink_to(home / ".ssh/id_ed25519")
    (home / "drop/folder").symlink_to(home / ".ssh")
    for path in (".ssh/id_ed25519", "drop/innocent", "drop/folder/id_ed25519", "drop/../.ssh/id_ed25519"):
        process = await spawn_sftp(whole, f"get {home}/{path} {tmp_path / 'stolen'}\n")
        request = await whole.pending()
        assert "secret" in {effect.verb for effect in request.draft.analysis.effects}, path
        await whole.vote(request, "bob", VoteVerdict.DENY)
        done = await finish(process, None)
        assert done.status == 1
        assert "denied by bob" in done.err
        assert not (tmp_path / "stolen").exists() or not (tmp_path / "stolen").read_bytes()


async def test_scp_of_today_is_sftp(whole: Whole, tmp_path: Path) -> None:
    bench, drop = whole.bench, whole.bench.target.home / "drop"
    (tmp_path / "file").write_text("by scp\n")
    process = await asyncio.create_subprocess_exec(
        "scp", *QUIET, "-o", f"UserKnownHostsFile={bench.directory / 'proxy_known_hosts'}", "-i", str(bench.directory / "agent"),
        "-P", str(bench.listener.port), "-p", str(tmp_path / "file"), f"web-1@127.0.0.1:{drop}/file",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    done = await finish(process, None)
    assert done.status == 0, done.err
    assert (drop / "file").read_text() == "by scp\n"


async def test_rights_that_come_after_the_upload_are_decided_as_well(whole: Whole) -> None:
    place = whole.bench.target.home / "drop/tool"
    async with (
        await whole.bench.raw() as connection,
        connection.start_sftp_client() as client,
        client.open(str(place), "wb") as file,
    ):
        await file.write(b"#!/bin/sh\n")
        asked = asyncio.ensure_future(file.setstat(asyncssh.SFTPAttrs(permissions=0o4755)))
        request = await whole.pending()
        assert request.draft.command.text.decode() == f"sftp setstat {place} mode=4755"
        assert "privilege" in {effect.verb for effect in request.draft.analysis.effects}
        await whole.vote(request, "bob", VoteVerdict.DENY)
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await asked
    assert stat.S_IMODE(place.stat().st_mode) & 0o7000 == 0


async def test_an_upload_that_is_resumed_is_shown_as_what_it_appends(whole: Whole, tmp_path: Path) -> None:
    place = whole.bench.target.home / "app.conf"
    place.write_text("half")
    (tmp_path / "whole").write_text("half and the rest")
    process = await spawn_sftp(whole, f"reput {tmp_path / 'whole'} {place}\n")
    request = await whole.pending()
    assert request.draft.command.text.decode().startswith(f"sftp append {place}")
    assert request.draft.command.stdin is not None
    assert request.draft.command.stdin.data == b" and the rest"
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    assert (await finish(process, None)).status == 0
    assert place.read_text() == "half and the rest"


async def test_a_piece_in_the_middle_of_a_file_can_not_be_shown_to_a_person(whole: Whole) -> None:
    place = whole.bench.target.home / "app.conf"
    place.write_text("a=1\nb=2\n")
    async with await whole.bench.raw() as connection, connection.start_sftp_client() as client:
        file = await client.open(str(place), "r+b")
        with pytest.raises(asyncssh.SFTPPermissionDenied, match="sent from its beginning"):
            await file.write(b"9", 2)
            await file.close()
    assert place.read_text() == "a=1\nb=2\n"
    assert await whole.desk.inbox.list() == []


async def test_a_client_that_leaves_while_its_upload_is_held_leaves_nothing(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("x")
    place = whole.bench.target.home / "app.conf"
    process = await spawn_sftp(whole, f"put {tmp_path / 'unit'} {place}\n")
    request = await whole.pending()
    process.kill()
    await process.communicate()
    await whole.bench.listener.close()
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    assert not place.exists()


async def test_an_approval_is_for_the_content_that_was_shown(whole: Whole, tmp_path: Path) -> None:
    place, file = whole.bench.target.home / "app.conf", tmp_path / "unit"

    async def hangs_up() -> ApprovalRequest:
        process = await spawn_sftp(whole, f"put {file} {place}\n")
        request = await whole.pending()
        process.kill()
        await process.communicate()
        return request

    file.write_text("first")
    request = await hangs_up()
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    file.write_text("other")
    other = await hangs_up()
    assert other.id != request.id
    await whole.vote(other, "bob", VoteVerdict.DENY)
    assert not place.exists()
    file.write_text("first")
    assert (await sftp(whole, f"put {file} {place}")).status == 0
    assert place.read_text() == "first"


async def test_requests_that_are_not_offered_are_unsupported_and_the_rest_goes_on(whole: Whole) -> None:
    async with await whole.bench.raw() as connection, connection.start_sftp_client() as client:
        handler = client._handler
        for name in (b"copy-data", b"exec@example.com"):
            with pytest.raises(asyncssh.SFTPOpUnsupported):
                await handler._make_request(name, b"touch x")
        assert "drop" in await client.listdir(str(whole.bench.target.home))


async def test_what_may_go_by_sftp_on_a_pinned_target_is_what_needs_no_person(tmp_path: Path, target: OpenSshServer) -> None:
    (target.home / "drop").mkdir()
    (tmp_path / "file").write_text("x")
    async with open_whole(tmp_path, target, rules=RULES) as whole:
        allowed = await sftp(whole, f"put {tmp_path / 'file'} {target.home}/drop/file")
        assert allowed.status == 0, allowed.err
        done = await sftp(whole, f"put {tmp_path / 'file'} {target.home}/other")
        assert done.status == 1
        assert "cannot-be-pinned" in done.err
        assert "ssh TARGET 'tee FILE' < file" in done.err
        assert not (target.home / "other").exists()
        assert await whole.desk.inbox.list() == []


async def test_the_target_hears_nothing_of_what_policy_denies(tmp_path: Path, target: OpenSshServer) -> None:
    denied = RULES.replace("verbs: [read]}, decide: allow", "verbs: [read]}, decide: deny")
    async with open_whole(tmp_path, target, rules=denied) as whole:
        done = await sftp(whole, "ls")
        assert done.status != 0
        assert "rule drop/read" in done.err
        assert "Accepted" not in target.log


async def test_the_transcript_of_a_transfer_verifies(whole: Whole, tmp_path: Path) -> None:
    (whole.bench.target.home / "report").write_text("content")
    done = await sftp(whole, f"get {whole.bench.target.home}/report {tmp_path / 'report'}")
    assert done.status == 0, done.err
    await whole.bench.listener.close()
    (row,) = whole.desk.archive.list()
    data = whole.desk.transcripts.data_dir
    report = await asyncio.to_thread(verify_bundle, data / "sessions" / row["id"], data / "trust")
    assert {problem.check for problem in report.problems} <= {"policies"}, report.problems  # this desk keeps no policy bytes
    assert [released.text for released in report.released][-1] == f"sftp get {whole.bench.target.home}/report"


async def test_raw_reads_and_writes_need_a_handle_that_was_opened_for_them(whole: Whole) -> None:
    drop = whole.bench.target.home / "drop"
    (drop / "file").write_text("content")
    async with await whole.bench.raw() as connection, connection.start_sftp_client() as client:
        handler = client._handler
        opened = await handler.open(str(drop / "file").encode(), asyncssh.FXF_READ, asyncssh.SFTPAttrs())
        with pytest.raises(asyncssh.SFTPPermissionDenied, match="not opened for that"):
            await handler.write(opened, 0, b"changed")
        with pytest.raises(asyncssh.SFTPFailure, match="no such handle"):
            await handler.read(b"\0\0\0\0\0\0\0\x63", 0, 10)
        with pytest.raises(asyncssh.SFTPFailure, match="no such handle"):
            await handler.close(b"\0\0\0\1")
    assert (drop / "file").read_text() == "content"
