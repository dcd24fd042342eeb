"""Connections to a real sshd that are kept and shared: whose they are, when they end, and that nothing is ever sent twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from harness.cuttable import CuttableWay
from harness.openssh_server import OpenSshServer
from harness.people import ALICE, CLAUDE, agent, person
from harness.ssh_bench import SshBench, finish, open_bench, until
from interlock.approvals.model import VoteVerdict
from interlock.clock import SystemClock
from interlock.config import TargetConfig
from interlock.identity.principal import Credential, CredentialKind, Principal
from interlock.ssh.limits import Limits
from interlock.ssh.lines import Way

pytestmark = pytest.mark.interop


@asynccontextmanager
async def far(tmp_path: Path, target: OpenSshServer, **parts: Any) -> AsyncIterator[tuple[SshBench, CuttableWay]]:
    """The target `far` is the same sshd over a stretch of network that can be cut."""
    way = CuttableWay(target.address)
    await way.start()
    there = {"name": "far", "address": f"127.0.0.1:{way.port}"}
    try:
        async with open_bench(tmp_path / "proxy", target, more_targets=[there], **parts) as bench:
            with (bench.directory / "known_hosts").open("a") as known:
                known.write(f"\n[127.0.0.1]:{way.port} {target.host_key.export_public_key().decode()}")
            yield bench, way
    finally:
        await way.stop()


def enter(bench: SshBench, principal: Principal) -> asyncssh.SSHKey:
    """Register a key for a principal of the test's own."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    bench.authenticator.keys[key.public_data] = principal
    return key


async def run(bench: SshBench, command: str, **kwargs: Any) -> asyncssh.SSHCompletedProcess:
    """Run one command over a connection of its own."""
    async with await bench.raw(**kwargs) as connection:
        async with asyncio.timeout(60):
            return await connection.run(command)


def logins(target: OpenSshServer) -> int:
    return target.log.count("Accepted publickey")


def routed(bench: SshBench) -> list[dict[str, Any]]:
    return [dict(e.fields) for e in bench.memory.transcripts.all("channel.open") if e.fields["side"] == "target"]


# -- whose a line is ---------------------------------------------------------------------------------------------------


async def test_one_principals_connections_share_a_line_and_the_record_names_it(bench: SshBench) -> None:
    assert (await run(bench, "echo one")).stdout == "one\n"
    assert (await run(bench, "echo two")).stdout == "two\n"
    assert logins(bench.target) == 1
    first, second = routed(bench)
    assert (first["reused"], second["reused"]) == (False, True)
    assert first["line"] == second["line"]
    assert f"port {first['port']} " in bench.target.log  # the target's own log names the connection by that
    assert first["serial"] == second["serial"]


@pytest.mark.parametrize(
    "other",
    [
        person(),
        replace(agent(), credential=Credential(CredentialKind.SSH_KEY, "SHA256:another")),
        replace(agent(), credential=Credential(CredentialKind.TOKEN, "SHA256:test")),
        agent(acting_for=(ALICE,)),
    ],
    ids=["another principal", "another key", "another kind of credential", "another chain"],
)
async def test_nobody_else_gets_on_a_line(bench: SshBench, other: Principal) -> None:
    await run(bench, "echo one")
    key = enter(bench, other)
    assert (await run(bench, "echo two", key=key)).stdout == "two\n"
    first, second = routed(bench)
    assert first["line"] != second["line"]
    assert logins(bench.target) == 2


async def test_the_same_target_by_another_route_is_another_line(tmp_path: Path, target: OpenSshServer) -> None:
    async with far(tmp_path, target) as (bench, _):
        await run(bench, "echo one")
        await run(bench, "echo two", user="far")
        assert len({event["line"] for event in routed(bench)}) == 2


def test_every_part_of_a_way_tells_lines_apart() -> None:
    target = TargetConfig.model_validate(
        {"name": "web-1", "protocol": "ssh", "address": "10.0.0.1:22", "account": "deploy", "host_keys": "known_hosts"}
    )
    here = Way.of(agent(), target, "deploy")
    assert Way.of(agent(groups=("others",)), target, "deploy") == here
    others = [
        Way.of(person(), target, "deploy"), Way.of(person(CLAUDE), target, "deploy"), Way.of(agent(), target, "root"),
        Way.of(agent(acting_for=(ALICE,)), target, "deploy"),
        Way.of(agent(), target.model_copy(update={"name": "web-2"}), "deploy"),
        Way.of(agent(), target.model_copy(update={"address": "10.0.0.2:22"}), "deploy"),
    ]  # fmt: skip
    assert here not in others


async def test_a_reviewed_command_never_takes_a_shared_line_and_its_own_carries_nothing_else(bench: SshBench) -> None:
    await run(bench, "echo before")
    process = await bench.spawn("rm -f x")
    request = await bench.memory.approvals.next_request()
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    assert (await finish(process)).status == 0
    await run(bench, "echo after")
    before, pinned, after = routed(bench)
    assert (before["pinned"], pinned["pinned"], after["pinned"]) == (False, True, False)
    assert before["line"] == after["line"] != pinned["line"]
    assert pinned["reused"] is False
    assert bench.target.ran() == ["echo before", "rm -f x", "echo after"]
    assert bench.listener.lines.count == 1


# -- when a line ends --------------------------------------------------------------------------------------------------


async def test_an_idle_line_closes_after_its_time(tmp_path: Path, target: OpenSshServer) -> None:
    hasty = {"name": "hasty", "reuse": {"idle": "50ms"}}
    async with open_bench(tmp_path / "proxy", target, more_targets=[hasty]) as bench:
        await run(bench, "echo one", user="hasty")
        await until(lambda: bench.listener.lines.count == 0)
        assert (await run(bench, "echo two", user="hasty")).stdout == "two\n"
        assert logins(target) == 2


async def test_idle_of_zero_closes_a_line_with_its_last_command(tmp_path: Path, target: OpenSshServer) -> None:
    alone = {"name": "alone", "reuse": {"idle": "0s"}}
    async with open_bench(tmp_path / "proxy", target, more_targets=[alone]) as bench:
        async with await bench.raw("alone") as connection:
            both = await asyncio.gather(connection.run("read x; echo one", input="\n"), connection.run("echo two"))
            assert [done.stdout for done in both] == ["one\n", "two\n"]
            assert bench.listener.lines.count == 0
            await connection.run("echo three")
        assert logins(target) == 2


class LaterClock(SystemClock):
    """The machine's clock, whose monotonic side a test can put forward."""

    ahead = 0

    def monotonic_us(self) -> int:
        return super().monotonic_us() + self.ahead


async def test_no_command_begins_on_a_line_whose_certificate_has_ended(tmp_path: Path, target: OpenSshServer) -> None:
    clock = LaterClock()
    async with open_bench(tmp_path / "proxy", target, clock=clock) as bench:
        await run(bench, "echo one")
        clock.ahead = 239_000_000
        await run(bench, "echo two")
        assert logins(target) == 1
        clock.ahead = 241_000_000
        await run(bench, "echo three")
        assert logins(target) == 2
        assert bench.listener.lines.count == 1


async def test_a_line_that_is_too_old_ends_though_its_key_file_is_good(tmp_path: Path, target: OpenSshServer) -> None:
    clock = LaterClock()
    keyed = {"name": "keyed", "credentials": {"kind": "key", "key": "file:operator"}, "reuse": {"age": "1h"}}
    async with open_bench(tmp_path / "proxy", target, clock=clock, more_targets=[keyed]) as bench:
        await run(bench, "echo one", user="keyed")
        clock.ahead = 3599_000_000
        await run(bench, "echo two", user="keyed")
        assert logins(target) == 1
        clock.ahead = 3601_000_000
        await run(bench, "echo three", user="keyed")
        assert logins(target) == 2


async def test_a_killed_session_takes_its_principals_lines_along(bench: SshBench) -> None:
    with contextlib.suppress(asyncssh.DisconnectError):
        async with await bench.raw() as connection:
            await connection.run("echo one")
            (session,) = bench.memory.gate.sessions()
            assert bench.memory.gate.kill(session.id, person(), "no more")
            await connection.wait_closed()
    assert bench.listener.lines.count == 0
    await run(bench, "echo two")
    assert logins(bench.target) == 2


async def test_revocation_closes_idle_lines_of_the_revoked_and_of_nobody_else(bench: SshBench) -> None:
    key = enter(bench, person())
    await run(bench, "echo one")
    await run(bench, "echo two", key=key)
    assert bench.listener.lines.count == 2
    bench.memory.gate.revoke(frozenset(), frozenset({"SHA256:another"}))
    assert bench.listener.lines.count == 2
    bench.memory.gate.revoke(frozenset(), frozenset({"SHA256:test"}))
    assert bench.listener.lines.count == 1
    await run(bench, "echo three", key=key)
    assert routed(bench)[-1]["reused"]
    bench.memory.gate.revoke(frozenset({person().identity}), frozenset())
    assert bench.listener.lines.count == 0


async def test_a_logout_closes_the_lines_that_its_sessions_left_behind(bench: SshBench) -> None:
    await run(bench, "echo one")
    await until(lambda: not bench.memory.gate.sessions())
    assert bench.listener.lines.count == 1
    bench.memory.gate.end(frozenset({"SHA256:test"}), "logged out")
    assert bench.listener.lines.count == 0


async def test_an_owner_who_is_revoked_takes_the_agents_lines_along(bench: SshBench) -> None:
    await run(bench, "echo one")
    bench.memory.gate.revoke(frozenset({ALICE}), frozenset())
    assert bench.listener.lines.count == 0


async def test_what_runs_on_a_retired_line_ends_in_peace_and_the_line_with_it(bench: SshBench) -> None:
    async with await bench.raw() as connection:
        running = await connection.create_process("read x; echo $x")
        await until(lambda: bench.target.ran() == ["read x; echo $x"])
        bench.listener.lines.retire_all()
        assert (await connection.run("echo new")).stdout == "new\n"
        assert logins(bench.target) == 2
        running.stdin.write("old\n")
        assert (await running.wait()).stdout == "old\n"
        await until(lambda: bench.listener.lines.count == 1)


async def test_a_host_key_that_is_revoked_ends_the_line_that_was_verified_by_it(bench: SshBench) -> None:
    await run(bench, "echo one")
    assert bench.listener.lines.idle == 1
    key = bench.target.host_key.export_public_key().decode()
    (bench.directory / "known_hosts").write_text(f"{bench.target.known_hosts}\n@revoked * {key}")
    done = await run(bench, "echo two")
    assert done.exit_status == 255
    assert "target-identity" in str(done.stderr)
    assert bench.target.ran() == ["echo one"]


async def test_shutting_down_leaves_no_connection(tmp_path: Path, target: OpenSshServer) -> None:
    async with far(tmp_path, target) as (bench, way):
        await run(bench, "echo one", user="far")
        assert bench.listener.lines.count == 1
        await bench.listener.close()
        assert bench.listener.lines.count == 0
        assert way.made == 1


# -- lines that die ----------------------------------------------------------------------------------------------------


async def test_a_line_that_was_cut_while_idle_is_replaced_before_the_command_is_sent(
    tmp_path: Path, target: OpenSshServer
) -> None:
    async with far(tmp_path, target) as (bench, way):
        await run(bench, "echo one", user="far")
        way.cut()
        assert (await run(bench, "echo two", user="far")).stdout == "two\n"
        assert target.ran() == ["echo one", "echo two"]
        assert way.made == 2


async def test_a_line_that_fell_silent_is_replaced_and_the_command_runs_once(tmp_path: Path, target: OpenSshServer) -> None:
    """As after a lost NAT entry: the kernel takes what is written, and nothing comes back."""
    async with far(tmp_path, target, limits=Limits(answer=0.5)) as (bench, way):
        await run(bench, "echo one", user="far")
        way.silence()
        assert (await run(bench, "echo two", user="far")).stdout == "two\n"
        way.speak()  # what was written to the silent line arrives after all: a channel, and no command on it
        assert (await run(bench, "echo three", user="far")).stdout == "three\n"
        assert target.ran() == ["echo one", "echo two", "echo three"]
        assert way.made == 2
        one, silent, two, three = routed(bench)
        assert one["line"] == silent["line"]
        assert two["line"] == three["line"] != one["line"]


class Leaving(asyncssh.SSHServer):
    """A target that goes away at the moment a command has arrived."""

    def __init__(self, arrived: list[str]) -> None:
        self._arrived = arrived

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True

    def session_requested(self) -> Any:
        server = self

        class Session(asyncssh.SSHServerSession[str]):
            def connection_made(self, chan: Any) -> None:
                self._chan = chan

            def exec_requested(self, command: str) -> bool:
                if command.startswith("getent "):
                    return True
                server._arrived.append(command)
                server._connection.abort()
                return True

            def session_started(self) -> None:
                self._chan.exit(0)

        return Session()


async def test_a_command_that_may_have_arrived_is_never_sent_again(tmp_path: Path, target: OpenSshServer) -> None:
    arrived: list[str] = []
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=lambda: Leaving(arrived), server_host_keys=[target.host_key], config=None
    )
    there = {"name": "leaving", "address": f"127.0.0.1:{server.get_port()}",
             "credentials": {"kind": "key", "key": "file:operator"}}  # fmt: skip
    async with open_bench(tmp_path / "proxy", target, more_targets=[there]) as bench:
        with (bench.directory / "known_hosts").open("a") as known:
            known.write(f"\n[127.0.0.1]:{server.get_port()} {target.host_key.export_public_key().decode()}")
        done = await run(bench, "echo in", user="leaving")
        assert done.exit_status == 255
        assert "outcome unknown" in str(done.stderr)
        assert arrived == ["echo in"]
    server.close()
    await server.wait_closed()


async def test_one_client_that_leaves_does_not_cut_what_another_runs_on_the_same_line(bench: SshBench) -> None:
    async with await bench.raw() as staying:
        running = await staying.create_process("read x; echo $x")
        leaving = await bench.raw()
        await leaving.create_process("read y")
        await until(lambda: len(bench.target.ran()) == 2)
        assert logins(bench.target) == 1
        leaving.abort()
        await leaving.wait_closed()
        running.stdin.write("here\n")
        assert (await running.wait()).stdout == "here\n"
    assert logins(bench.target) == 1


# -- how many ----------------------------------------------------------------------------------------------------------


async def test_many_at_once_wait_for_few_connections(bench: SshBench) -> None:
    done = await asyncio.gather(*(run(bench, f"echo {n}") for n in range(16)))
    assert [answer.stdout for answer in done] == [f"{n}\n" for n in range(16)]
    assert logins(bench.target) <= 2
    assert sorted(bench.target.ran()) == sorted(f"echo {n}" for n in range(16))


async def test_those_who_wait_for_one_connection_fail_with_it_and_not_one_after_the_other(
    tmp_path: Path, target: OpenSshServer
) -> None:
    async with far(tmp_path, target) as (bench, way):
        (bench.directory / "known_hosts").write_text(target.known_hosts)  # the far address is not in it
        done = await asyncio.gather(*(run(bench, "echo in", user="far") for _ in range(6)))
        assert [answer.exit_status for answer in done] == [255] * 6
        assert all("target-identity" in str(answer.stderr) for answer in done)
        assert way.made < 6
        assert target.ran() == []


async def test_a_target_with_less_room_is_believed_across_connections(tmp_path: Path) -> None:
    target = OpenSshServer(extra="MaxSessions 2\n")
    await target.start()
    try:
        async with open_bench(tmp_path / "proxy", target) as bench:
            clients = [await bench.raw() for _ in range(6)]
            running = [await client.create_process(f"read x; exit {n}") for n, client in enumerate(clients)]
            await until(lambda: len(target.ran()) == 6)  # all at once
            for process in running:
                process.stdin.write("\n")
            assert [(await process.wait()).exit_status for process in running] == list(range(6))
            assert sorted(target.ran()) == [f"read x; exit {n}" for n in range(6)]
            # sshd counts a session that was just closed for a moment more, so that one more may have been thought full
            assert 3 <= logins(target) <= 6
            for client in clients:
                client.close()
                await client.wait_closed()
    finally:
        await target.stop()


async def test_all_lines_together_are_bounded_and_the_longest_idle_goes_first(tmp_path: Path, target: OpenSshServer) -> None:
    async with open_bench(tmp_path / "proxy", target, limits=Limits(lines=1)) as bench:
        key = enter(bench, person())
        await run(bench, "echo one")
        assert (await run(bench, "echo two", key=key)).stdout == "two\n"
        assert bench.listener.lines.count == 1
        async with await bench.raw() as connection:
            running = await connection.create_process("read x")
            await until(lambda: "read x" in target.ran())
            done = await run(bench, "echo three", key=key)
            assert done.exit_status == 255
            assert "limit-reached" in str(done.stderr)
            running.stdin.write("\n")
            await running.wait()
        assert "echo three" not in target.ran()


async def test_only_so_many_lines_wait_idle(tmp_path: Path, target: OpenSshServer) -> None:
    async with open_bench(tmp_path / "proxy", target, limits=Limits(idle_lines=1)) as bench:
        key = enter(bench, person())
        await run(bench, "echo one")
        await run(bench, "echo two", key=key)
        assert (bench.listener.lines.idle, bench.listener.lines.count) == (1, 1)
        await run(bench, "echo three", key=key)
        assert routed(bench)[-1]["reused"]
