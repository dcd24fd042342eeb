"""An everyday session of each client under the packs that ship: what passes, what waits, what is refused, and what is shown.

Nothing to compare here: a server alone holds nothing. Each client connects, looks, reads, deletes (once approved, once
denied by a reviewer) and tries what policy never allows; what it showed is printed as a table for docs/compatibility.md.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from compat import clients
from compat.results import Outcomes
from compat.sources import NotObtainableError
from compat.ways import SHIPPED, Way, run, through

APPROVED = "DELETE FROM orders WHERE id = 1"
NEVER = "COPY orders TO PROGRAM 'cat'"

Steps = Sequence[tuple[str, str]]
"""What a step is called, and its statement."""


def steps(kept: int) -> Steps:
    """Return the six steps. `kept` is a row of this client alone: a reviewer who denies its deletion denies it for a while."""
    return (
        ("looked", "SELECT relname FROM pg_catalog.pg_class WHERE relname = 'orders'"),
        ("read", "SELECT id, note FROM orders WHERE id = 2"),
        ("approved", APPROVED),
        ("refused by a reviewer", f"DELETE FROM orders WHERE id = {kept}"),
        ("denied by policy", NEVER),
        ("goes on", "SELECT count(*) FROM orders WHERE id < 5"),
    )


@dataclass(frozen=True, slots=True)
class Client:
    """`argv` runs the steps, if they are not `typed`; `read` makes outcomes of what was printed."""

    name: str
    argv: Callable[[Way, Path, Steps], list[str]]
    read: Callable[[str], Outcomes] = clients.seen
    typed: Callable[[Steps], str] = lambda _steps: ""


def _script(prepared: clients.Prepared, mode: str, _way: Way, scratch: Path, steps: Steps) -> list[str]:
    return [*prepared(scratch), "everyday", json.dumps(steps), *([mode] if mode else [])]


def _jdbc(_way: Way, scratch: Path, steps: Steps) -> list[str]:
    words = "\x1e".join(f"{step}\x1f{sql}" for step, sql in steps)
    return [*clients.jdbc_program(scratch), "everyday", words, "extended"]


def _psql(_way: Way, _scratch: Path, steps: Steps) -> list[str]:
    words = ["psql", "-X", "-c", r"\d orders"]
    for _, sql in steps:
        words += ["-c", sql]
    return words


def _typed(steps: Steps) -> str:
    return "\\d orders\n" + "".join(f"{sql};\n" for _, sql in steps) + "\\q\n"


CLIENTS: Sequence[Client] = (
    Client("psql", _psql, lambda said: {"shown": said}),
    Client(
        "pgcli", lambda way, scratch, _steps: clients.on_a_terminal(way, scratch, "shop"),
        lambda said: {"shown": clients.typed(said)}, _typed,
    ),
    *(
        Client(name, partial(_script, partial(clients.python_script, script), ""))
        for name, script in (
            ("psycopg 3", "psycopg_sync"), ("psycopg 3, async", "psycopg_async"), ("asyncpg", "asyncpg_client"),
            ("SQLAlchemy", "sqlalchemy_client"), ("Django", "django_client"),
        )
    ),
    Client("node-postgres", partial(_script, clients.node_script, "")),
    Client("pgjdbc", _jdbc),
    Client("pgx", partial(_script, clients.pgx_program, "cache_statement")),
)  # fmt: skip


def sessions(scratch: Path, node: Path) -> int:
    """Run every client's everyday session; return how many did not go as they must."""
    wrong = 0
    with through(node, SHIPPED) as way:
        for kept, client in enumerate(CLIENTS, 20):
            way.create_database("shop")
            way.server.run(
                "CREATE TABLE orders (id int PRIMARY KEY, note text); "
                f"INSERT INTO orders SELECT i, 'n' FROM generate_series(1, 4) i; INSERT INTO orders VALUES ({kept}, 'n')",
                user="postgres", database="shop",
            )  # fmt: skip
            try:
                found = _session(client, way, scratch, steps(kept))
            except NotObtainableError as error:
                print(f"{client.name}: skipped, {error}", flush=True)
                continue
            left = way.server.run("SELECT string_agg(id::text, ' ' ORDER BY id) FROM orders", user="postgres", database="shop")
            right = left == f"2 3 4 {kept}"
            wrong += not right
            print(f"{client.name}: rows left {left}: {'as it must be' if right else 'WRONG'}", flush=True)
            for step, outcome in found.items():
                print(f"    {step}: {outcome}", flush=True)
    return wrong


def _session(client: Client, way: Way, scratch: Path, steps: Steps) -> Outcomes:
    """Run one client while Bob approves the first delete and denies the second."""
    done = threading.Event()
    bob = threading.Thread(target=_answer, args=(way, done), name="bob")
    bob.start()
    try:
        argv, env = client.argv(way, scratch, steps), clients.plain_terminal(way, scratch, "shop")
        return client.read(run(*argv, env=env, stdin=client.typed(steps), timeout=180))
    finally:
        done.set()
        bob.join()


def _answer(way: Way, done: threading.Event) -> None:
    assert way.through is not None
    answered: set[str] = set()
    while not done.wait(0.2):
        for row in way.through.pending():
            if row["id"] not in answered:
                answered.add(row["id"])
                approve = "id = 1" in json.dumps(row)
                with suppress(AssertionError):  # the client left first: the run says so by its outcome
                    way.through.vote("approve" if approve else "deny", row["id"], reason="" if approve else "keep this order")
