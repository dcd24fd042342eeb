"""What a login leaves on a person's machine, and what a browser there may bring back."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from interlock.cli import certified, login
from interlock.cli.clients import _conninfo, _listener, _quoted
from interlock.cli.kept import Kept, Session, current_server
from interlock.cli.login import _check_page, _check_safe, _picture
from interlock.cli.loopback import Loopback
from interlock.errors import AuthenticationError, ConfigError, InterlockError, Reason

SERVER = "https://gw.example:8443"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_HOME", str(tmp_path / "kept"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def kept(token: str = "ils_secret", expires: str = "2999-01-01T00:00:00.000000Z") -> Kept:
    made = Kept(SERVER)
    made.keep(Session(SERVER, "dora", expires, token=token))
    return made


def test_only_its_owner_reads_a_login() -> None:
    old = os.umask(0)
    try:
        made = kept()
    finally:
        os.umask(old)
    for path in (made.folder.parent, made.folder, *made.folder.parent.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert made.session().secret() == "ils_secret"
    assert current_server() == SERVER
    assert "ils_secret" not in repr(made.session())


def test_a_login_that_others_can_read_is_refused() -> None:
    made = kept()
    (made.folder / "session.json").chmod(0o640)
    with pytest.raises(InterlockError, match="chmod 600"):
        made.session()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    made = kept()
    file = made.folder / "session.json"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        made.session()
    made.keep(Session(SERVER, "dora", "", token="new"))  # replaces the link, and not what it leads to
    assert "new" not in (tmp_path / "elsewhere").read_text()


@pytest.mark.parametrize("broken", ["", "{}", "[]", '{"server": 1}', "null"])
def test_a_login_that_is_broken_or_over_asks_to_log_in(broken: str) -> None:
    made = kept()
    (made.folder / "session.json").write_text(broken)
    with pytest.raises(AuthenticationError, match="interlock login"):
        made.session()
    with pytest.raises(AuthenticationError, match="interlock login"):
        kept(expires="2000-01-01T00:00:00.000000Z").session()
    with pytest.raises(AuthenticationError, match="interlock login"):
        Kept("https://elsewhere.example").session()


def test_two_servers_do_not_share_a_folder() -> None:
    names = [
        SERVER,
        "https://gw.example",
        "https://gw.example:84",
        "http://gw.example",
        "unix:/run/a.sock",
        "https://../../etc",
        "",
    ]
    folders = {Kept(name).folder for name in names if not name.startswith("http://")}
    assert len(folders) == len(names) - 1
    assert all(folder.parent == Kept(SERVER).folder.parent for folder in folders)  # none leads out


def test_tokens_cross_no_network_in_clear() -> None:
    with pytest.raises(ConfigError):
        _check_safe("http://gw.example")
    _check_safe("http://127.0.0.1:8443")
    _check_safe(SERVER)


def test_the_code_is_drawn() -> None:
    drawn = _picture("https://idp.example/device?user_code=ABCD-EFGH")
    assert len(drawn.splitlines()) > 10


@pytest.mark.parametrize(("value", "shown"), [("a'b", r"'a\'b'"), ("a\\", r"'a\\'"), ("x dbname=y", "'x dbname=y'")])
def test_a_targets_name_is_one_value_of_a_conninfo(value: str, shown: str) -> None:
    """Never a second one, such as the host where the password then goes (CVE-2021-41395)."""
    assert _conninfo(value) == shown


def test_ssh_reads_no_token_of_its_own_in_a_path() -> None:
    assert _quoted("/home/%u x/id") == '"/home/%%u x/id"'


@pytest.mark.parametrize("host", ["gw\n  ProxyCommand touch x", "-oProxyCommand=x", "gw x", "", "gw\t", 'gw"'])
def test_a_daemon_that_was_taken_over_writes_no_line_of_ssh_s_configuration(host: str) -> None:
    with pytest.raises(InterlockError):
        _listener({"ssh": {"host": host, "port": 22}}, "ssh")
    with pytest.raises(InterlockError):
        _listener({"ssh": {"host": "gw", "port": "22\n  ProxyCommand x"}}, "ssh")
    for good in ("gw.example.com", "10.0.0.1", "fd00::1", "gw_1"):
        assert _listener({"ssh": {"host": good, "port": 22}}, "ssh")["host"] == good


@pytest.mark.parametrize("address", ["file:///etc/passwd", "http://gw.example/", "-P x", "https://idp/\x1b[2J", "x:y", ""])
def test_a_browser_opens_nothing_but_a_page(address: str) -> None:
    with pytest.raises(InterlockError):
        _check_page(address)
    _check_page("https://idp.example/auth?x=1")
    _check_page("http://127.0.0.1:9000/auth")


# -- the browser's way back --------------------------------------------------------------------------------------------------


def ask(port: int, *requests: bytes) -> list[bytes]:
    answers = []
    for request in requests:
        with socket.create_connection(("127.0.0.1", port), timeout=45) as link:
            link.sendall(request)
            link.shutdown(socket.SHUT_WR)
            answers.append(b"".join(iter(lambda: link.recv(4096), b"")))
    return answers


def test_only_the_answer_to_this_login_is_taken() -> None:
    loopback = Loopback()
    answers: list[bytes] = []
    stray = (
        b"GET /callback?code=x&state=another HTTP/1.1\r\n\r\n", b"GET /?code=x&state=good HTTP/1.1\r\n\r\n",
        b"POST /callback?code=x&state=good HTTP/1.1\r\n\r\n", b"GET /callback?code=x HTTP/1.1\r\n\r\n",
        b"GET /callback?code=x&state=good&state=good HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"G" * 40_000,
        b"GET /callback?code=right&state=good&iss=https%3A%2F%2Fidp.example HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    )  # fmt: skip
    browser = threading.Thread(target=lambda: answers.extend(ask(loopback.port, *stray[:-2], stray[-1])))
    browser.start()
    answer = loopback.wait("good", 30)
    browser.join(30)
    loopback.close()
    assert (answer.code, answer.issuer) == ("right", "https://idp.example")
    assert [b" 404 " in said for said in answers] == [True] * 6 + [False]
    assert b"right" not in answers[-1]


def test_a_refusal_ends_the_wait_and_so_does_time() -> None:
    loopback = Loopback()
    browser = threading.Thread(target=ask, args=(loopback.port, b"GET /callback?error=access_denied&state=good HTTP/1.1\r\n\r\n"))
    browser.start()
    with pytest.raises(AuthenticationError, match="refused"):
        loopback.wait("good", 30)
    browser.join(30)
    with pytest.raises(AuthenticationError, match="nobody finished"):
        loopback.wait("good", 0.05)
    loopback.close()


# -- the key -------------------------------------------------------------------------------------------------------------------


class Daemon:
    """Certifies like the real one, and notes what it was sent."""

    def __init__(self) -> None:
        self.ca = asyncssh.generate_private_key("ssh-ed25519")
        self.sent: list[object] = []

    def post(self, path: str, body: dict[str, str]) -> dict[str, str]:
        self.sent.append(body)
        certificate = self.ca.generate_user_certificate(asyncssh.import_public_key(body["public_key"]), "dora", serial=7)
        return {"certificate": certificate.export_certificate().decode().strip(), "expires": "2999-01-01T00:00:00.000000Z"}

    def get(self, path: str) -> dict[str, object]:
        place = {"host": "gw.example", "port": 2222, "host_key": "ssh-ed25519 AAAA", "host_authority": "ssh-ed25519 BBBB"}
        return {"ssh": place, "postgres": None}


def test_the_private_key_is_a_file_of_ones_own_and_is_never_sent() -> None:
    made, daemon = kept(), Daemon()
    certified.renew(made, daemon)  # type: ignore[arg-type]  # as much of a client as is asked for
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    first = made.key.read_text()
    assert "PRIVATE" in first and "PRIVATE" not in str(daemon.sent)
    assert made.known_hosts.read_text() == (
        "@cert-authority [gw.example]:2222 ssh-ed25519 BBBB\n[gw.example]:2222 ssh-ed25519 AAAA\n"
    )
    certified.renew(made, daemon)  # type: ignore[arg-type]
    assert made.key.read_text() != first  # each certificate has a key of its own
    made.forget()
    assert not any(made.folder.iterdir())


def test_with_an_agent_no_private_key_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real ssh-agent; what it lists is the certificate."""
    import subprocess

    place = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(3000):
            if place.exists():
                break
            threading.Event().wait(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        made, daemon = kept(), Daemon()
        certified.renew(made, daemon)  # type: ignore[arg-type]
        assert not made.key.exists() and made.key.with_name("id.pub").exists()
        listed = subprocess.run(["ssh-add", "-L"], capture_output=True, text=True, check=True).stdout
        assert made.certificate.read_text().split()[1] in listed
    finally:
        agent.terminate()
        agent.wait(30)


def test_a_tunnel_carries_bytes_both_ways_and_ends_with_its_client() -> None:
    from interlock.cli.relay import _join

    async def run() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.read()).upper())
            await writer.drain()
            writer.close()

        there = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = there.sockets[0].getsockname()[1]
        here = await asyncio.start_server(lambda r, w: _join(r, w, "127.0.0.1", port), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", here.sockets[0].getsockname()[1])
        writer.write(b"hello")
        writer.write_eof()
        async with asyncio.timeout(30):
            said = await reader.read()
        writer.close()
        here.close()
        there.close()
        return said

    assert asyncio.run(run()) == b"HELLO"


class Busy:
    """A daemon that says so many times that too many log in."""

    def __init__(self, times: int, reason: Reason = Reason.OVERLOADED) -> None:
        self.times = times
        self.reason = reason
        self.asked: list[tuple[str, Any]] = []

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        self.asked.append((path, body))
        if len(self.asked) <= self.times:
            raise InterlockError(reason=self.reason)
        return {"token": "ils_x"}


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes by sleeping alone."""
    naps: list[float] = []
    monkeypatch.setattr(login.time, "sleep", naps.append)
    monkeypatch.setattr(login.time, "monotonic", lambda: sum(naps))
    return naps


def test_a_turn_is_waited_for_with_the_same_answer(slept: list[float]) -> None:
    busy = Busy(3)
    assert login._in_turn(busy, "/finish", {"code": "c"}) == {"token": "ils_x"}  # type: ignore[arg-type]
    assert busy.asked == [("/finish", {"code": "c"})] * 4 and slept == [login.RETRY_AFTER_S] * 3


def test_a_turn_is_not_waited_for_for_ever_and_nothing_else_is_tried_twice(slept: list[float]) -> None:
    with pytest.raises(InterlockError):
        login._in_turn(Busy(1000), "/finish", None)  # type: ignore[arg-type]
    assert sum(slept) == login.TURN_S
    refused = Busy(1, Reason.NOT_AUTHENTICATED)
    with pytest.raises(InterlockError):
        login._in_turn(refused, "/finish", None)  # type: ignore[arg-type]
    assert len(refused.asked) == 1
