"""Random pipelines with random denials: through the proxy, and on a bare server that refuses the same statements itself.

Answers, transaction status and tables must be equal after each pipeline. `FUZZ=1 pytest -s` runs 10,000 with a fresh seed
and prints what they were made of; without it a small fixed number runs.
"""

from __future__ import annotations

import asyncio
import os
import random  # noqa: TID251  seeded
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from harness.gate import Proxy, configuration, running_proxy
from harness.postgres_server import PostgresServer
from harness.random_pipelines import CONTENTS, SCHEMA, Generator, Pipeline
from harness.wire_client import WireClient
from interlock.approvals.fatigue import Limits
from interlock.approvals.model import ApprovalRequest, Presence, Proof, State, VoteVerdict
from interlock.commands.model import Kind
from interlock.policy.model import Access, Decision, Facts, ReviewTerms, Verdict

pytestmark = pytest.mark.interop

FUZZ = bool(os.environ.get("FUZZ"))
PIPELINES = int(os.environ.get("FUZZ_PIPELINES", "10000")) if FUZZ else 150
SEED = int(os.environ.get("FUZZ_SEED", "0")) or (random.SystemRandom().randrange(1 << 32) if FUZZ else 34)
A_SESSION = 6
"""Pipelines of one session, at most."""
WRONG_ANYWAY = ("25P02", "08P01", "26000")
"""What a server says of a refused Bind that it would not take either: the transaction has failed, a value is missing, or the
unnamed statement went with a Query or a Parse that failed."""
NOT_OFFERED = ("0A000", "42883")
"""A FunctionCall: our answer, and the server's to one of a function that does not exist."""
STATES = {"I": "idle", "T": "idle in transaction", "E": "idle in transaction (aborted)"}


class TablePolicy:
    """Decides by the table that a statement writes or reads; whatever can't be read is allowed, as at a bare server."""

    digest = "sha256:tables"

    @property
    def current(self) -> Any:
        return self

    def may_open(self, _principal: object, _target: object) -> Access:
        return Access(True, "test/0", "everybody")

    def may_see(self, _principal: object, _target: object) -> bool:
        return True

    def decide(self, facts: Facts) -> Decision:
        tables = {effect.object.rpartition(".")[2] for effect in facts.analysis.effects}
        late = "late" in tables and facts.command.kind is not Kind.PARSE
        if "denied" in tables or late:
            return Decision(Verdict.DENY, "test/denied", "never", self.digest)
        if tables & {"asked_yes", "asked_no"}:
            return Decision(
                Verdict.REVIEW, "test/asked", "somebody should look", self.digest, review=ReviewTerms(groups=("sre",))
            )
        return Decision(Verdict.ALLOW, "test/allowed", "harmless", self.digest)


class Reviewer:
    """Answers each request in the proxy's own loop, as soon as somebody waits for it: yes or no by its table."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._votes: set[asyncio.Task[Any]] = set()
        self.answered = 0
        proxy.desk.inbox.subscribe(self._changed)

    def _changed(self, request: ApprovalRequest) -> None:
        if request.state is State.PENDING and request.presence is Presence.HELD and not request.votes:
            task = asyncio.get_running_loop().create_task(self._vote(request))
            self._votes.add(task)
            task.add_done_callback(self._votes.discard)

    async def _vote(self, request: ApprovalRequest) -> None:
        asked = {effect.object for effect in request.draft.analysis.effects}
        verdict = VoteVerdict.APPROVE if not any("asked_no" in name for name in asked) else VoteVerdict.DENY
        await self._proxy.desk.inbox.vote(
            request.id, voter=self._proxy.desk.entry("bob").identity, channel="cli", channel_actor="bob", verdict=verdict,
            digest=request.digest, reason="by its table", proof=Proof.CHANNEL,
        )  # fmt: skip
        self.answered += 1


@pytest.fixture(scope="module")
def twins(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy in front of the database `asked`; `model` beside it is the same one, bare."""
    for name in ("asked", "model"):
        server.run(f"CREATE DATABASE {name} OWNER app", user="postgres", database="postgres")
        server.run(SCHEMA, user="postgres", database=name)
    folder = tmp_path_factory.mktemp("twins")
    limits = Limits(pending=1000, denials=10**9)
    patient = {"startup_deadline": 300.0}  # a machine that is busy for minutes is no finding
    with running_proxy(configuration(server, folder), folder, TablePolicy(), desk={"limits": limits}, **patient) as running:
        issued = running.run(running.desk.directory.issue_password("claude", timedelta(hours=8)))  # a busy machine takes its time
        running.password = issued.secret.reveal()
        yield running


class Twin:
    """One end of the comparison: a session, and what it was answered in a form that may be compared."""

    def __init__(self, client: WireClient) -> None:
        self.client = client
        self.status = "I"

    def run(self, data: bytes, rng: random.Random) -> list[tuple[str, Any]]:
        """Send in random pieces and read up to the answer of the empty Query that ends each pipeline."""
        at = 0
        while at < len(data):
            size = rng.choice([1, 7, 60, 4096])
            self.client.send(data[at : at + size])
            at += size
        seen: list[tuple[str, Any]] = []
        while [kind for kind, _ in seen[-3:]] != ["Z", "I", "Z"]:
            try:
                kind, body = self.client.read()
            except (EOFError, OSError) as error:
                return [*seen, ("nothing more", repr(error))]
            answer = comparable(kind, body)
            if answer is not None:
                seen.append(answer)
        self.status = str(seen[-1][1])
        return in_order(seen)


def in_order(seen: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Put each notification just before the next ReadyForQuery.

    A COMMIT that is run without a Sync makes a server send them as soon as it waits for more bytes, wherever that is.
    """
    kept: list[tuple[str, Any]] = []
    heard: list[tuple[str, Any]] = []
    for answer in seen:
        if answer[0] == "A":
            heard.append(answer)
            continue
        if answer[0] == "Z":
            kept += heard
            heard.clear()
        kept.append(answer)
    return kept + heard


def comparable(kind: str, body: bytes) -> tuple[str, Any] | None:
    """Drop what must differ: our own notices, the OIDs of tables, who notified."""
    match kind:
        case "T":
            columns, at = [], 2
            while at < len(body):
                end = body.index(0, at)
                columns.append((body[at:end], body[end + 7 : end + 19]))
                at = end + 19
            return kind, columns
        case "E" | "N":
            fields = {chr(part[0]): part[1:].decode() for part in body.split(b"\0") if part}
            if kind == "N" and fields["M"].startswith("interlock:"):
                return None
            return kind, {key: fields.get(key, "") for key in "SCM"}
        case "Z":
            return kind, body.decode()
        case "A":
            return kind, body[4:]
        case _:
            return kind, body


def alike(asked: tuple[str, Any], model: tuple[str, Any]) -> bool:
    """Whether two answers say the same. An error of ours has our words, and what is wrong in two ways is refused first."""
    if asked[0] == model[0] == "E" and asked[1]["M"].startswith("interlock:"):
        codes = asked[1]["C"], model[1]["C"]
        return codes[0] == codes[1] or codes == NOT_OFFERED or (codes[0] in ("42501", "25P02") and codes[1] in WRONG_ANYWAY)
    return asked == model


def session(proxy: Proxy, server: PostgresServer, seed: int, watching: psycopg.Cursor[Any], counts: Counter[str]) -> int:
    """Run the pipelines of one session in both worlds and compare after each; return how many there were."""
    rng = random.Random(seed)
    generator = Generator(rng)
    pipelines = [generator.pipeline() for _ in range(rng.randint(1, A_SESSION))]
    with (
        WireClient.connect(proxy.port, "claude", "orders/asked", proxy.password) as one,
        WireClient.connect(server.port, "app", "model", server.password, search_path='"public", "pg_temp"') as other,
        psycopg.connect(server.dsn("postgres", "asked"), autocommit=True) as asked_tables,
        psycopg.connect(server.dsn("postgres", "model"), autocommit=True) as model_tables,
    ):
        asked, model = Twin(one), Twin(other)
        for at, pipeline in enumerate(pipelines):
            trace = f"FUZZ=1 FUZZ_SEED={seed} FUZZ_PIPELINES=1, pipeline {at}:\n" + story(pipelines[: at + 1])
            expected, answers = model.run(pipeline.model, rng), asked.run(pipeline.asked, rng)
            differing = next((i for i, pair in enumerate(zip(answers, expected, strict=False)) if not alike(*pair)), None)
            assert differing is None, f"{trace}\nproxy:  {answers[: differing + 1]}\nserver: {expected[: differing + 1]}"
            assert len(answers) == len(expected), trace
            states = [state(watching, pid) for pid in (one.process, other.process)]
            assert states == [STATES[asked.status]] * 2, trace
            tables = asked_tables.execute(CONTENTS).fetchone()
            assert tables == model_tables.execute(CONTENTS).fetchone(), trace
            counts.update(f"{kind}{body['C'] if kind == 'E' else body if kind == 'Z' else ''}" for kind, body in expected)
    return len(pipelines)


def state(watching: psycopg.Cursor[Any], pid: int) -> str:
    """Return what the server itself says of a session. Its view of all sessions may lack one that changes just now."""
    while (row := watching.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()) is None:
        pass
    return str(row[0])


def story(pipelines: list[Pipeline]) -> str:
    return "\n--\n".join("\n".join(pipeline.words) for pipeline in pipelines)


@pytest.mark.timeout(3600 if FUZZ else 120)
def test_random_pipelines_are_answered_as_by_a_server_that_refuses_the_same(
    twins: Proxy, server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    reviewer = Reviewer(twins)
    done, sessions, counts = 0, 0, Counter[str]()
    with psycopg.connect(server.dsn("postgres", "postgres"), autocommit=True) as connection:
        watching = connection.cursor()
        while done < PIPELINES:
            done += session(twins, server, SEED + sessions, watching, counts)
            sessions += 1
    if PIPELINES >= 100:  # one that is run again may lack any of these
        assert counts["E42501"] > PIPELINES // 10
        assert counts["E42883"]
        assert counts["A"] > PIPELINES // 20
        assert reviewer.answered
    if FUZZ:
        with capsys.disabled():
            shown = ", ".join(f"{kind} {number}" for kind, number in counts.most_common())
            print(f"\n{done} pipelines in {sessions} sessions from seed {SEED}, {reviewer.answered} reviewed: {shown}")
