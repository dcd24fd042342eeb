"""Stock rsync through the proxy to a real sshd."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import finish
from harness.ssh_copies import ADDRESS, rsync, run, spawn
from harness.ssh_whole import Whole, open_whole
from interlock.approvals.model import VoteVerdict

pytestmark = pytest.mark.interop


@pytest_asyncio.fixture
async def whole(tmp_path: Path, target: OpenSshServer) -> AsyncIterator[Whole]:
    async with open_whole(tmp_path, target) as parts:
        yield parts


def tree(where: Path) -> dict[str, bytes]:
    return {str(p.relative_to(where)): p.read_bytes() for p in where.rglob("*") if p.is_file()}


async def test_what_is_read_passes_with_large_files_and_is_recorded(whole: Whole, tmp_path: Path) -> None:
    there = whole.bench.target.home / "logs"
    (there / "old").mkdir(parents=True)
    (there / "big").write_bytes(os.urandom(3_000_000))
    (there / "old" / "small").write_text("x\n")
    done = await run(*rsync(whole.bench, "-az", "--stats", f"{ADDRESS}:{there}/", str(tmp_path / "back")))
    assert done.status == 0, done.err
    assert tree(tmp_path / "back") == tree(there)
    events = await whole.events()
    assert [event["verdict"] for event in events if event["type"] == "decision"] == ["allow"]
    assert sum(event["bytes"] for event in events if event["type"] == "term.output") > 3_000_000


async def test_what_is_written_and_deleted_waits_for_a_person(whole: Whole, tmp_path: Path) -> None:
    there = whole.bench.target.home / "app"
    (there / "old").mkdir(parents=True)
    (there / "old" / "gone").write_text("gone\n")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "new").write_bytes(os.urandom(1_000_000))
    process = await spawn(*rsync(whole.bench, "-a", "--delete", f"{tmp_path}/app/", f"{ADDRESS}:{there}/"))
    request = await whole.pending()
    found = {(e.verb, e.object, e.recursive) for e in request.draft.analysis.effects}
    assert found == {("write", str(there), True), ("delete", str(there), True)}
    assert request.draft.command.stdin is None  # never read ahead
    assert tree(there) == {"old/gone": b"gone\n"}
    await whole.vote(request, "bob", VoteVerdict.APPROVE)
    done = await finish(process, None)
    assert done.status == 0, done.err
    assert tree(there) == tree(tmp_path / "app")
    assert whole.bench.target.forced() == 1


async def test_a_denied_upload_leaves_the_target_as_it_was(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new\n")
    there = whole.bench.target.home / "app"
    process = await spawn(*rsync(whole.bench, str(tmp_path / "new"), f"{ADDRESS}:{there}"))
    await whole.vote(await whole.pending(), "bob", VoteVerdict.DENY, "not on a Friday")
    done = await finish(process, None)
    assert done.status != 0
    assert "denied by bob: not on a Friday" in done.err
    assert not there.exists()
    assert whole.bench.target.ran() == []


async def test_an_option_that_is_not_known_is_never_let_through_unseen(whole: Whole, tmp_path: Path) -> None:
    there = whole.bench.target.home / "app"
    there.mkdir()
    process = await spawn(*rsync(whole.bench, "-a", "-M--log-file=/tmp/x", f"{ADDRESS}:{there}/", str(tmp_path / "back")))
    request = await whole.pending()
    assert "unknown-option" in {one.reason for one in request.draft.analysis.opaque}
    await whole.vote(request, "bob", VoteVerdict.DENY)
    assert (await finish(process, None)).status != 0
