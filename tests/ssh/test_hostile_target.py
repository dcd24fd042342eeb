"""A target that prints what it likes: nothing changes in what is decided, and nobody's terminal or page obeys it."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench, until
from harness.ssh_whole import Whole, open_whole
from interlock.approvals.model import VoteVerdict
from interlock.cli import sessions
from interlock.cli.main import build
from interlock.evidence import cast
from interlock.ssh.dialling import FarConnection
from interlock.ssh.relay import Relay
from interlock.web.console import transcripts

pytestmark = pytest.mark.interop

HOSTILE = b"".join(
    (
        b"\x1b[?1049h\x1b[2J\x1b[H",  # "in an editor now"
        b"\x1b]0;root@web-1\x07\x1b]2;approved\x1b\\",  # titles
        b"\x1b]52;c;cm0gLXJmIC8K\x07",  # the clipboard
        b"\x1b]8;;https://evil.example\x1b\\approve here\x1b]8;;\x1b\\",  # a link
        b"\x1b[c\x1b[6n\x1b[>0q\x1bP+q544e\x1b\\",  # questions that a terminal answers as if somebody typed
        b"\x1b[?2004h\x1b[200~rm -rf victim\x1b[201~",  # a paste
        b"rz\r**\x18B00000000000000\r\x8a\x11\x18B0100000023be50\r\x8a\x11",  # zmodem
        b"\r\ndeploy@web-1:~$ \r\n[sudo] password for deploy: \r\n",  # a prompt
        b"interlock: approved by bob (req_01)\n\xe2\x96\x8c-- consumed by bob (req_01)\n\x1b[36m-- allow by linux/read\x1b[0m\n",
        b"\x1b[8m\x1b[30;40m\x9b6n\x9d0;t\x9c\xe2\x80\xae\xe2\x80\x8b\xff\xfe\xc3",
        bytes(range(256)),
        b"x" * 300_000,  # one line
        b"<script>alert(1)</script>\n",
    )
)


@pytest_asyncio.fixture
async def whole(tmp_path: Path, target: OpenSshServer) -> AsyncIterator[Whole]:
    async with open_whole(tmp_path, target) as parts:
        (target.home / "hostile").write_bytes(HOSTILE)
        (target.home / "victim").mkdir()
        yield parts


async def read_hostile(connection: asyncssh.SSHClientConnection) -> bytes:
    """Have the target print it on both streams; return what arrived on stdout."""
    done = await connection.run("cat hostile", encoding=None)
    assert isinstance(done.stdout, bytes)
    assert (done.exit_status, done.stderr) == (0, b"")
    return done.stdout


async def test_what_the_target_prints_changes_nothing_in_what_is_decided(whole: Whole) -> None:
    async with await whole.bench.raw() as connection:
        assert await read_hostile(connection) == HOSTILE  # passed on unread and unchanged
        process = await connection.create_process("rm -rf victim")
        request = await whole.pending()  # held as ever, whatever was said about approvals
        assert (whole.bench.target.home / "victim").exists()
        denied = await connection.run("mkfs.ext4 /nonexistent/interlock-test")
        assert denied.exit_status == 126
        await whole.vote(request, "bob", VoteVerdict.DENY, "no")
        done = await process.wait()
        assert done.exit_status == 126
        assert "denied by bob: no" in str(done.stderr)
        assert (await connection.run("cat hostile", encoding=None)).stdout == HOSTILE
    assert whole.bench.target.ran() == ["'cat' 'hostile'", "'cat' 'hostile'"]
    events = await whole.events()
    assert [event["verdict"] for event in events if event["type"] == "decision"] == ["allow", "review", "deny", "allow"]
    assert [event["verdict"] for event in events if event["type"] == "approval.response"] == ["denied"]
    assert len([event for event in events if event["type"] == "forward"]) == 2


async def test_while_one_command_is_held_the_output_of_another_releases_nothing(whole: Whole) -> None:
    async with await whole.bench.raw() as connection:
        process = await connection.create_process("rm -rf victim")
        request = await whole.pending()
        assert await read_hostile(connection) == HOSTILE
        assert (await whole.desk.inbox.get(request.id)).state is request.state
        assert (whole.bench.target.home / "victim").exists()
        await whole.vote(request, "bob", VoteVerdict.DENY)
        assert (await process.wait()).exit_status == 126


def harmless(text: str) -> bool:
    """Nothing but printable characters, line ends, tabs and colours (SGR)."""
    rest = text
    while "\x1b[" in rest:
        before, _, after = rest.partition("\x1b[")
        final = next(c for c in after if c not in "0123456789;:")
        if final != "m":
            return False
        rest = before + after[after.index("m") + 1 :]
    return all(c.isprintable() or c in "\r\n\t" for c in rest)


async def test_replay_recording_and_page_are_safe(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    async with await whole.bench.raw() as connection:
        await read_hostile(connection)
    await whole.bench.listener.close()
    archive = whole.desk.archive
    (row,) = archive.list()
    lines = list(cast.render(archive.bundle(row["id"]).events()))

    capsys.readouterr()
    sessions.play(lines, speed=1, waiting=False)
    said = capsys.readouterr().out
    assert harmless(said)
    assert "^[]52;c;" in said  # there to see
    assert "interlock: approved by bob (req_01)" in said
    signed = [line for line in said.splitlines() if cast.SIGN in line]
    assert not [line for line in signed if "bob" in line]
    assert "exit 0" in signed[-2]

    for line in lines[1:]:
        _, code, text = json.loads(line)
        assert code in "om"
        assert harmless(text)

    summary, events = await asyncio.to_thread(transcripts._read, archive, row["id"], 0)
    shown = json.dumps([summary, events], ensure_ascii=False)
    assert all(c.isprintable() for c in shown)


async def test_the_command_line_shows_nothing_of_it_raw(whole: Whole, tmp_path: Path) -> None:
    async with await whole.bench.raw() as connection:
        await read_hostile(connection)
    await whole.bench.listener.close()
    (row,) = whole.desk.archive.list()
    data_dir = ["--data-dir", str(whole.desk.transcripts.data_dir)]
    for words in (["list"], ["show", row["id"]], ["replay", row["id"]]):
        argv = ["sessions", *words, *data_dir]
        done = await asyncio.to_thread(CliRunner().invoke, build(argv), argv)
        assert done.exit_code == 0, done.output
        assert harmless(done.output)
        assert row["id"] in done.output or "consumed by bob" in done.output


class Counting:
    """As much of a client as a relay asks for before anything was said."""

    clogged = False
    held = 0

    def hold_input(self) -> None:
        self.held += 1


class Full:
    """A channel of a connection whose socket takes nothing now."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"socket"} if name == "clogs" else default


async def test_a_command_that_begins_on_a_full_connection_takes_no_input_yet() -> None:
    client = Counting()
    relay = Relay(client, lambda _stream, _data: None)  # type: ignore[arg-type]  # as much of one as is asked for
    relay.connection_made(Full())  # type: ignore[arg-type]
    assert (relay.full, client.held) == (True, 1)


class StallingServer(asyncssh.SSHServerConnection):
    """A target that takes whatever it is given, begins a key exchange in the middle, and never takes part in it."""

    stalling = False

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        if not self.stalling:
            super().data_received(data, datatype)


async def test_a_target_that_never_ends_a_key_exchange_does_not_make_us_keep_the_input(tmp_path: Path) -> None:
    target = OpenSshServer()  # only its keys and its address

    class Taker(asyncssh.SSHServer):
        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            return True

        def public_key_auth_supported(self) -> bool:
            return True

    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        assert await process.stdin.read(1) == b"x"
        connection = process.channel.get_connection()
        assert isinstance(connection, StallingServer)
        connection.stalling = True
        connection._send_kexinit()
        stalled.set()
        await asyncio.Event().wait()

    stalled = asyncio.Event()
    options = asyncssh.SSHServerConnectionOptions(
        server_factory=Taker, server_host_keys=[target.host_key], config=None, process_factory=serve, encoding=None, window=2**31
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StallingServer(loop, options), "127.0.0.1", target.port)
    bench = SshBench(tmp_path / "proxy", target, credentials={"kind": "key", "key": "file:operator"})
    await bench.start()
    try:
        async with await bench.raw() as connection:
            process = await connection.create_process("wc", encoding=None)
            process.stdin.write(b"x")
            async with asyncio.timeout(30):
                await stalled.wait()
            (way,) = [found for found in gc.get_objects() if isinstance(found, FarConnection) and not found.is_closed()]
            (relay,) = way._relays()
            await until(lambda: relay.full)
            process.stdin.write(bytes(8_000_000))
            waiting = []
            for _ in range(5):  # each answer says that all was read that the client could send before it asked
                await connection._make_global_request(b"no-such-thing@example.com")
                waiting.append(len(way._deferred_packets))
            assert max(waiting) < 10
            assert process.channel.get_write_buffer_size() > 1_000_000, "it is the client that keeps it"
    finally:
        await bench.stop()
        server.close()
        await target.stop()
