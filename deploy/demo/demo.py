"""`make demo`: an agent at work through the proxy. Exits 0 only if every step was observed at the target itself.

Interactive: approve in the console or press a key. Unattended: DEMO_APPROVE=auto answers as the reviewer would, with
`interlock approvals`. DEMO_KEEP=1 keeps the scratch directory.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from world import INTERLOCK, DemoError, World, until

AUTO = os.environ.get("DEMO_APPROVE") == "auto"
BOLD, DIM, RED, GREEN, OFF = ("\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("",) * 5


def step(text: str) -> None:
    print(f"\n{BOLD}{text}{OFF}", flush=True)


def saw(text: str) -> None:
    print(f"  {GREEN}✓{OFF} {text}", flush=True)


def told(who: str, text: str) -> None:
    for line in text.strip().splitlines():
        print(f"  {DIM}{who} │{OFF} {line}", flush=True)


def must(condition: bool, promise: str) -> None:
    if not condition:
        raise DemoError(f"not observed: {promise}")
    saw(promise)


@dataclass
class AgentRun:
    """A command of the agent, running in its own process; its stderr is shown as it comes."""

    process: subprocess.Popen[str]
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.stdout, "agent")),
            threading.Thread(target=self._read, args=(self.process.stderr, self.stderr, "agent")),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: object, into: list[str], who: str) -> None:
        assert hasattr(stream, "readline")
        for line in iter(stream.readline, ""):
            into.append(line)
            told(who, line)

    def finish(self) -> int:
        status = self.process.wait(600)
        for thread in self._threads:
            thread.join()
        return status

    @property
    def errors(self) -> str:
        return "".join(self.stderr)


def untouched(title: str, run: AgentRun, expected: str) -> None:
    step(title)
    must(run.finish() == 0 and expected in "".join(run.stdout), "a harmless command passes untouched, with its own output")


def held(world: World, title: str, start: Callable[[], AgentRun], usual: str, unchanged: Callable[[], bool], changed: str) -> str:
    """A risky command: held, seen unchanged at the target, answered, and seen again. Returns what was answered."""
    step(title)
    run = start()
    waiting = wait_for_request(world, run)
    must(unchanged(), "while it is held, nothing has changed at the target")
    if usual == "approve":
        owner_tries(world, waiting)
    answer = decide(world, waiting, usual)
    status = run.finish()
    if answer == "approve":
        must(status == 0, "after the approval the command ran, and its exit status arrived")
        must(not unchanged(), changed if usual == "approve" else "it is seen at the target")
    else:
        must(status != 0 and "denied by bob" in run.errors, "the agent is told who denied it, and why")
        must(unchanged(), changed if usual == "deny" else "nothing has changed at the target")
    return answer


def wait_for_request(world: World, run: AgentRun) -> str:
    found: list[str] = []

    def pending() -> bool:
        if run.process.poll() is not None:
            raise DemoError("the command was not held: it ended before anybody was asked")
        rows = world.interlock_json("approvals", "list")["approvals"]
        assert isinstance(rows, list)
        found[:] = [str(row["id"]) for row in rows]
        return bool(found)

    until("a held request", pending)
    told("reviewer", world.interlock("approvals", "show", found[0]).stdout)
    return found[0]


def owner_tries(world: World, request: str) -> None:
    """The agent's owner is a reviewer, and still can't approve it."""
    done = subprocess.run(
        [INTERLOCK, "approvals", "approve", request, "--as", "alice", "--passphrase-file", world.private / "alice.passphrase"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "INTERLOCK_SERVER": str(world.data_dir / "interlock.sock")},
    )  # fmt: skip
    must(done.returncode != 0 and "owns the agent" in done.stderr, "its owner, a reviewer herself, is refused as approver")


def decide(world: World, request: str, usual: str) -> str:
    """Answer as the demo's story goes, or as the person at the terminal or in the console does; return the answer."""
    if AUTO or not sys.stdin.isatty():
        if not AUTO:
            print("  no terminal: answering by itself, as with DEMO_APPROVE=auto")
        vote(world, request, usual)
        return usual
    print(f"  {BOLD}Press a to approve, d to deny{OFF} (the story goes on with: {usual}), or answer in the console:")
    print(f"  {world.console}/approvals/{request}   log in as bob, passphrase {world.reviewer_passphrase}   (q quits)")
    socket = world.data_dir / "interlock.sock"
    print(f"  or in another terminal: INTERLOCK_SERVER={socket} {INTERLOCK} approvals watch --as bob")
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        while True:
            key = sys.stdin.read(1).lower() if select.select([sys.stdin], [], [], 0.5)[0] else ""
            if key == "q":
                raise DemoError("stopped by you")
            if key in ("a", "d"):
                vote(world, request, "approve" if key == "a" else "deny")
            state = world.interlock_json("approvals", "show", request)["state"]
            if state != "pending":
                return "deny" if state == "denied" else "approve"
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def vote(world: World, request: str, answer: str) -> None:
    reason = "that ledger is the only copy" if answer == "deny" else "looked at it"
    world.interlock("approvals", answer, request, "--as", "bob", "--passphrase-file", str(world.private / "bob.passphrase"),
                    "--reason", reason)  # fmt: skip
    saw(f"bob answered: {answer}")


def prove(world: World) -> None:
    step("9. The proof: verified with ssh-keygen alone, then with `interlock verify`, then replayed")
    rows = world.interlock_json("sessions", "list")["sessions"]
    assert isinstance(rows, list)
    must(len(rows) >= 6, f"{len(rows)} sessions were recorded and sealed")
    trust = world.data_dir / "trust"
    for row in rows:
        bundle = world.scratch / "bundles" / str(row["id"])
        world.interlock("sessions", "export", str(row["id"]), str(bundle))
        with (bundle / "seal.json").open("rb") as seal:
            checked = subprocess.run(
                ["ssh-keygen", "-Y", "verify", "-f", trust / "allowed_signers", "-I", principal_of(trust), "-n",
                 "session-seal@interlock", "-s", bundle / "seal.json.sig"],
                stdin=seal, capture_output=True, text=True, check=False,
            )  # fmt: skip
        if checked.returncode != 0:
            raise DemoError(f"ssh-keygen does not accept the seal of {row['id']}: {checked.stderr or checked.stdout}")
    saw("ssh-keygen accepts the seal of every session")
    bundles = [str(world.scratch / "bundles" / str(row["id"])) for row in rows]
    world.interlock("verify", *bundles, "--trust", str(trust))
    saw("interlock verify: every released command has its decision, every approval its reviewer, nothing is missing")
    tampered = world.scratch / "bundles" / str(rows[0]["id"]) / "events.jsonl"
    whole = tampered.read_bytes()
    tampered.write_bytes(whole.replace(b"claude", b"claudf", 1))
    done = subprocess.run([INTERLOCK, "verify", bundles[0], "--trust", trust], capture_output=True, text=True, check=False)
    must(done.returncode == 8, "one changed byte, and verification fails (exit 8)")
    tampered.write_bytes(whole)
    last = next(str(row["id"]) for row in rows if row.get("target") == "web-1")
    step("Replay of an SSH session")
    told("replay", world.interlock("sessions", "replay", last).stdout)


def principal_of(trust: Path) -> str:
    """The identity in the trust file's one line: what ssh-keygen asks for with -I."""
    return (trust / "allowed_signers").read_text().split()[0].replace("*", "demo")


def run(world: World) -> None:
    step("1. Two targets, the proxy, and four parties: alice owns the agent claude, bob reviews")
    saw(f"PostgreSQL {world.start_postgres()} on loopback")
    world.fill_database()
    world.fill_site()
    saw(f"SSH target: {world.start_ssh_target()}")
    world.start_proxy()
    world.enrol_people()
    saw(f"console: {world.console} (log in as bob, passphrase {world.reviewer_passphrase})")
    site = world.site

    def exists(path: Path) -> bool:
        return world.at_target(f"test -e {path}").returncode == 0

    def count(sql: str) -> object:
        return world.at_database(sql)

    untouched("2. The agent reads over ssh", AgentRun(world.agent_ssh(f"ls {site}/releases")), "2026-01")
    held(
        world, "3. The agent removes an old release over ssh: rm -rf",
        lambda: AgentRun(world.agent_ssh(f"rm -rf {site}/releases/2026-01")),
        "approve", lambda: exists(site / "releases/2026-01"), "the directory is gone at the target",
    )  # fmt: skip
    held(
        world, "4. The agent wants to remove the data as well", lambda: AgentRun(world.agent_ssh(f"rm -rf {site}/data")),
        "deny", lambda: exists(site / "data/ledger.csv"), "the data is still there",
    )  # fmt: skip
    untouched("5. The agent reads from Postgres", AgentRun(world.agent_sql("SELECT item FROM orders WHERE id = 7")), "item 7")
    answer = held(
        world, "6. The agent deletes rows", lambda: AgentRun(world.agent_sql("DELETE FROM orders WHERE status = 'stale'")),
        "approve", lambda: count("SELECT count(*) FROM orders") == 100, "the rows are gone at the target",
    )  # fmt: skip
    if answer == "approve":
        must(count("SELECT count(*) FROM orders") == 90, "exactly the ten approved rows were deleted")
    held(
        world, "7. 2:13 a.m.: the agent starts a production export", lambda: AgentRun(world.agent_sql("SELECT * FROM customers")),
        "deny", lambda: not in_log(world, "SELECT * FROM customers"), "the export never reached the database (its own log)",
    )  # fmt: skip
    step("8. The agent leaves; every session is sealed")
    prove(world)


def in_log(world: World, text: str) -> bool:
    return text in (world.scratch / "postgres.log").read_text()


def main() -> int:
    started = time.monotonic()
    with World() as world:
        try:
            run(world)
        except DemoError as failure:
            print(f"\n{RED}demo failed:{OFF} {failure}", file=sys.stderr)
            for name in ("interlock.log", "sshd.log", "postgres.log"):
                log = world.scratch / name
                if log.exists():
                    told(name, "\n".join(log.read_text(errors="replace").splitlines()[-15:]))
            return 1
    print(f"\n{GREEN}{BOLD}Every step was observed at the target.{OFF} ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
