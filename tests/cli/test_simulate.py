"""`policy simulate` over transcripts that the real path wrote: gate, classifier, shipped packs, desk and seal.

The master property: under the policy that decided them, recorded commands are decided as they were, all of them. What a
changed policy would change is then exactly what `simulate` lists.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.desk import Desk, open_desk
from interlock.approvals.wording import Notice
from interlock.cli import sessions
from interlock.cli.main import build
from interlock.commands.analyzer import Analyzer
from interlock.commands.model import Analysis, Command, Effect, HeldInput, Kind, Opaque, ShellContext, SqlContext, Wire
from interlock.commands.pool import ShellPool
from interlock.evidence.archive import Archive
from interlock.gate import Gate, Pending
from interlock.policy import packs
from interlock.policy.history import REASONS, Past, Unknown, read
from interlock.policy.loader import load
from interlock.policy.model import SessionFacts, Target, Verdict
from interlock.policy.simulation import Simulation
from interlock.policy.source import LivePolicy

SITE = """\
version: 1
pack: site
access:
  - {who: {groups: [agents]}, targets: "*", accounts: ["*"], roles: ["*"]}
default: {review: {groups: [sre]}}
rules:
  - id: root
    title: Nobody is root
    match: {target: {tier: gold}, who: {groups: [agents]}}
    when: target.account == "root" || command.stdin == "code" || principal.assurance.acr == "gold"
    decide: deny
"""
WEB = Target("web-1", "ssh", {"env": "prod", "tier": "gold"}, account="deploy")
ORDERS = Target("orders", "postgres", {"env": "prod"}, role="app", database="orders")
SHELL = [
    "uptime", "ls -la /srv/app", "rm /srv/app/x", "rm -rf /", "cat $(new-thing)", "kubectl get pods", "kubectl delete pod web-1",
    "sudo systemctl restart nginx", "curl -s https://example.com/x", "echo héllo > /srv/x", "uptime",
    "awk '{print $1}' /var/log/syslog", "find /srv -name '*.log' -exec tail -n 1 '{}' ';'", "ls &&", "git push --force",
]  # fmt: skip
SQL = [
    (Kind.QUERY, "SELECT id FROM t WHERE id = 7"), (Kind.QUERY, "SELECT * FROM t"), (Kind.QUERY, "DROP TABLE t"),
    (Kind.PARSE, "DELETE FROM t WHERE id = $1"), (Kind.BIND, "DELETE FROM t WHERE id = $1"),
    (Kind.QUERY, "ALTER SYSTEM SET a = b"), (Kind.QUERY, "UPDATE t SET a = 1"),
]  # fmt: skip


@dataclass
class NobodyWaits:
    """A client that leaves as soon as a person would be asked."""

    asked: asyncio.Event
    max_hold: float | None = None
    said: str = ""

    async def read_input(self) -> HeldInput:
        return HeldInput(b"uptime\n")

    async def facts(self, command: Command, analysis: Analysis) -> tuple[str, ...]:
        return ()

    async def ready_to_wait(self) -> None:
        return None

    def notify(self, notice: Notice) -> None:
        self.asked.set()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


async def ask(desk: Desk, gate: Gate, target: Target, commands: list[Command], session: str) -> None:
    opened = await gate.open(desk.agent(), target, SessionFacts(session, "192.0.2.7", desk.clock.now()))
    assert not hasattr(opened, "reason"), opened
    for command in commands:
        seen = asyncio.Event()
        answer = opened.submit(command, NobodyWaits(seen))
        if not isinstance(answer, Pending):
            continue
        outcome = asyncio.ensure_future(answer.outcome())
        waiting = asyncio.ensure_future(seen.wait())
        await asyncio.wait({outcome, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (outcome, waiting):
            task.cancel()
        await asyncio.gather(outcome, waiting, return_exceptions=True)
    await opened.close("client-left")


def shell(text: str) -> Command:
    return Command(Wire.SSH, Kind.EXEC, text.encode(), context=ShellContext("bash"))


def sql(kind: Kind, text: str) -> Command:
    return Command(Wire.POSTGRES, kind, text.encode(), context=SqlContext(assume_tables=True))


async def record(folder: Path, site: Path) -> None:
    async with open_desk(folder) as desk:
        pool = ShellPool(workers=1)
        await pool.start()
        policies = LivePolicy([packs.shipped(), site])
        gate = Gate(
            policies=policies, classifier=Analyzer(pool), approvals=desk.inbox, transcripts=desk.transcripts, clock=desk.clock
        )
        try:
            await ask(desk, gate, WEB, [shell(text) for text in SHELL], "01JTESTSESSION0000000000AA")
            await ask(desk, gate, replace(WEB, account="root"), [shell("uptime")], "01JTESTSESSION0000000000BB")
            await ask(desk, gate, ORDERS, [sql(kind, text) for kind, text in SQL], "01JTESTSESSION0000000000CC")
        finally:
            await pool.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site") / "site.yaml"
    path.write_text(SITE)
    return path


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    asyncio.run(record(folder, site))
    return folder / "data"


class DaemonOf:
    """Answers as the daemon's routes do (web/api.py), from an archive."""

    def __init__(self, data_dir: Path) -> None:
        self.archive = Archive(data_dir)

    def get(self, path: str) -> Any:
        match path.removeprefix("/v1/").split("/"):
            case ["sessions"]:
                return {"sessions": self.archive.list()}
            case ["sessions", name, "events"]:
                return {"events": self.archive.events(name)}
        raise AssertionError(path)


@pytest.fixture(params=["data_dir", "daemon"])
def where(request: pytest.FixtureRequest, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("INTERLOCK_CONFIG", raising=False)
    if request.param == "data_dir":
        return ["--data-dir", str(data_dir)]
    monkeypatch.setattr(sessions, "Client", lambda server: DaemonOf(data_dir))
    return []


def simulate(*arguments: str, exit_code: int = 0) -> str:
    words = ["policy", "simulate", *arguments]
    result = CliRunner().invoke(build(words), words)
    assert result.exit_code == exit_code, result.output
    return result.stdout


def as_json(*arguments: str) -> dict[str, Any]:
    return json.loads(simulate(*arguments, "--output", "json"))


SHIPPED = str(packs.shipped())


def test_the_policy_of_then_changes_nothing(where: list[str], site: Path) -> None:
    found = as_json(SHIPPED, str(site), *where)
    assert found["changes"] == []
    assert found["unknown"] == {}
    assert (found["sessions"], found["commands"], found["same"]) == (3, len(SHELL) + 1 + len(SQL), len(SHELL) + 1 + len(SQL))
    assert found["other_rule"] == 0


def test_what_another_policy_changes_is_listed(where: list[str], site: Path, tmp_path: Path) -> None:
    stricter = tmp_path / "stricter.yaml"
    stricter.write_text(
        "version: 1\npack: more\nrules:\n"
        "  - {id: a, title: A, match: {protocol: ssh}, when: 'effects.exists(e, e.program == \"uptime\")', decide: deny}\n"
        "  - {id: b, title: B, match: {verbs: [drop]}, decide: review, review: {groups: [dba], quorum: 2}}\n"
        '  - {id: c, title: C, match: {protocol: ssh, verbs: [delete]}, decide: deny, when: \'"prod" == target.labels["env"]\'}\n'
    )
    found = as_json(SHIPPED, str(site), str(stricter), *where)
    changes = [
        (c["text"], c["was"]["verdict"], c["would"]["verdict"], c["would"]["rule"], c["direction"]) for c in found["changes"]
    ]
    assert changes == [
        ("DROP TABLE t", "review", "review", "postgres/schema-change", "asks others"),
        ("uptime", "allow", "deny", "more/a", "stricter"),
        ("rm /srv/app/x", "review", "deny", "more/c", "stricter"),
        ("kubectl delete pod web-1", "review", "deny", "more/c", "stricter"),
        ("uptime", "allow", "deny", "more/a", "stricter"),
    ]  # fmt: skip
    drop = found["changes"][0]
    assert (drop["was"]["needs"], drop["would"]["needs"]) == (
        [{"groups": ["sre"], "quorum": 1}],
        [{"groups": ["sre"], "quorum": 1}, {"groups": ["dba"], "quorum": 2}],
    )
    said = simulate(SHIPPED, str(site), str(stricter), *where)
    rows = [line.split() for line in said.splitlines()]
    assert rows[0] == ["TIMES", "WAS", "WOULD", "BE", "RULE", "WHO", "TARGET", "COMMAND"]
    assert rows[1] == ["2", "allow", "deny", "more/a", "claude", "web-1", "uptime"]
    assert (
        said.splitlines()[-1]
        == "23 commands of 3 sessions: 18 would be answered as they were, 5 otherwise (1 asks others, 4 stricter)"
    )


def test_a_looser_policy_is_named_so(where: list[str], tmp_path: Path) -> None:
    looser = tmp_path / "looser.yaml"
    looser.write_text("version: 1\npack: all\nrules: [{id: a, title: A, decide: allow, opaque: true}]\n")
    found = as_json(str(looser), *where)
    assert {c["direction"] for c in found["changes"]} == {"looser"}
    assert found["unknown"] == {}
    denied = {c["text"] for c in found["changes"] if c["was"]["verdict"] == "deny"}
    assert denied == {"rm -rf /", "ALTER SYSTEM SET a = b", "uptime"}, "what the text itself forbids (`ls &&`) stays refused"


def test_a_configuration_names_its_daemon(data_dir: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def client(server: object) -> DaemonOf:
        asked.append(server)
        return DaemonOf(data_dir)

    monkeypatch.setattr(sessions, "Client", client)
    config = tmp_path / "interlock.yaml"
    config.write_text(f"version: 1\nnode: {{name: t, data_dir: data}}\npolicies: ['{SHIPPED}', '{site}']\n")
    assert as_json("--config", str(config))["changes"] == []
    assert asked == [str(tmp_path / "data" / "interlock.sock")]


def test_only_the_time_that_is_meant(data_dir: Path, site: Path) -> None:
    words = ["policy", "simulate", "--since", "soon"]
    assert CliRunner().invoke(build(words), words).exit_code == 2
    policy = load([packs.shipped(), site])
    later = Simulation(policy, datetime.now(UTC) + timedelta(hours=1))  # noqa: TID251 - the transcripts are of this hour
    for row in Archive(data_dir).list():
        later.feed((r.event, r.disclosed) for r in Archive(data_dir).bundle(row["id"]).events())
    assert (later.commands, later.changes) == (0, [])


# -- what can't be decided again is counted, never guessed -----------------------------------------------------------------


def recorded(data_dir: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    bundle = Archive(data_dir).bundle("01JTESTSESSION0000000000AA")
    return [(dict(r.event), dict(r.disclosed)) for r in bundle.events()]


def fed(policy_files: list[Path], events: list[tuple[dict[str, Any], dict[str, Any]]]) -> Simulation:
    simulation = Simulation(load(policy_files), datetime(2026, 1, 1, tzinfo=UTC))
    simulation.feed(events)
    return simulation


KERNEL = {"verb": "kernel", "object": "", "via": []}
SPOIL: dict[str, Callable[[dict[str, Any], dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]]] = {
    "no text": lambda event, disclosed: (event, without(disclosed, "text")),
    "no effects": lambda event, disclosed: (event, without(disclosed, "effects")),
    "nothing": lambda event, _: (event, {}),
    "other effects": lambda event, disclosed: (event, {**disclosed, "effects": [KERNEL]}),
    "a fact of tomorrow": lambda event, disclosed: (event, changed(disclosed, colour="red")),
    "a wrong type": lambda event, disclosed: (event, changed(disclosed, recursive="yes")),
    "no stdin": lambda event, disclosed: (without(event, "stdin"), disclosed),
}


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k != name}


def changed(disclosed: dict[str, Any], **fact: str) -> dict[str, Any]:
    return {**disclosed, "effects": [{**effect, **fact} for effect in disclosed["effects"]]}


def spoiled(events: list[tuple[dict[str, Any], dict[str, Any]]], how: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for event, disclosed in events:
        if event["type"] == "command" and how in SPOIL:
            yield SPOIL[how](event, disclosed)
        elif event["type"] == "session.open" and how == "an unknown kind":
            yield {**event, "kind": "robot"}, disclosed
        elif event["type"] == "session.open":
            yield without(event, how.removeprefix("no ")), disclosed
        else:
            yield event, disclosed


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("no text", "text-not-readable"), ("no effects", "text-not-readable"), ("nothing", "text-not-readable"),
        ("other effects", "not-understood"), ("a fact of tomorrow", "not-understood"), ("a wrong type", "not-understood"),
        ("an unknown kind", "not-understood"), ("no groups", "groups-not-recorded"), ("no labels", "labels-not-recorded"),
        ("no assurance", "assurance-not-recorded"), ("no stdin", "stdin-not-recorded"),
    ],
)  # fmt: skip
def test_what_the_record_does_not_say_is_counted(data_dir: Path, site: Path, how: str, reason: str) -> None:
    events = list(spoiled(recorded(data_dir), how))
    found = fed([packs.shipped(), site], events)
    assert reason in REASONS
    assert set(found.unknown) == {reason}
    assert found.unknown[reason] >= len(SHELL) - 2, "`ls &&` is refused whatever is recorded; a command may have no effects"
    assert found.changes == []
    assert found.commands == len(SHELL)
    assert found.same + sum(found.unknown.values()) == found.commands


@pytest.mark.parametrize("how", ["no groups", "no labels", "no assurance", "no stdin"])
def test_a_fact_that_no_rule_reads_is_not_missed(data_dir: Path, tmp_path: Path, how: str) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text("version: 1\npack: p\nrules: [{id: a, title: A, match: {verbs: [read]}, decide: allow}]\n")
    found = fed([plain], list(spoiled(recorded(data_dir), how)))
    assert found.unknown == {}


def test_a_session_that_can_not_be_read_is_counted(data_dir: Path, site: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "data"
    shutil.copytree(data_dir, copy)
    events = copy / "sessions" / "01JTESTSESSION0000000000BB" / "events.jsonl"
    events.chmod(0o600)
    lines = events.read_bytes().splitlines(keepends=True)
    events.write_bytes(lines[0] + b"not an event\n" + b"".join(lines[1:]))
    found = as_json(SHIPPED, str(site), "--data-dir", str(copy))
    assert found["unknown"] == {"session-not-readable": 1}
    assert (found["sessions"], found["changes"]) == (3, [])
    assert "1 sessions can't be decided again: the transcript can't be read" in simulate(
        SHIPPED, str(site), "--data-dir", str(copy)
    )


def test_what_a_rule_reads_of_an_effect_survives_the_record() -> None:
    """Whatever an effect says, the record says it back: no fact is lost on the way to another policy."""
    odd: Mapping[type, Any] = {str: "x ü\n", bool: True, tuple: ("a", "b"), int: 3}
    base = Effect("read")
    for field in fields(Effect):
        value = getattr(base, field.name)
        other = not value if isinstance(value, bool) else odd[type(value)]
        effect = replace(base, **{field.name: "write" if field.name == "verb" else other})
        assert past_of(effect, Opaque("eval", "$x", 1, 2)) == ((effect,), (Opaque("eval", "$x", 1, 2),))


def past_of(effect: Effect, opaque: Opaque) -> tuple[object, object]:
    from harness.people import agent
    from interlock import record
    from interlock.policy.model import Decision

    draft = record.described(shell("x"), Analysis((effect,), (opaque,)))
    decided = record.decided(Decision(Verdict.ALLOW, "p/a", "", "sha256:0"), 1)
    envelope = {"session": "s", "ts": "2026-01-05T14:00:00.000000Z"}
    opened = {**record.who(agent()), **record.where(WEB), "client": "192.0.2.7"}
    written = json.loads(json.dumps({"secret": draft.secret, "fields": draft.fields}))
    events = [
        ({"type": "session.open", "seq": 0, **envelope, **opened}, {}),
        ({"type": draft.type, "seq": 1, **envelope, **written["fields"]}, written["secret"]),
        ({"type": "decision", "seq": 2, **envelope, **decided.fields}, {}),
    ]
    (found,) = read(events)
    assert not isinstance(found, Unknown)
    assert isinstance(found, Past)
    assert found.facts.principal.groups == agent().groups
    assert found.facts.target == WEB
    return found.facts.analysis.effects, found.facts.analysis.opaque
