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
DENIED = "DELETE FROM orders WHERE id = 2"
NEVER = "COPY orders TO PROGRAM 'cat'"
STEPS = (
    ("looked", "SELECT relname FROM pg_catalog.pg_class WHERE relname = 'orders'"),
    ("read", "SELECT id, note FROM orders WHERE id = 2"),
    ("approved", APPROVED),
    ("refused by a reviewer", DENIED),
    ("denied by policy", NEVER),
    ("goes on", "SELECT count(*) FROM orders WHERE id < 5"),
)


@dataclass(frozen=True, slots=True)
class Client:
    """`argv` runs the six steps; `read` makes outcomes of what was printed."""

    name: str
    argv: Callable[[Way, Path], list[str]]
    read: Callable[[str], Outcomes] = clients.seen
    typed: str = ""


def _script(prepared: clients.Prepared, mode: str, _way: Way, scratch: Path) -> list[str]:
    return [*prepared(scratch), "everyday", json.dumps(STEPS), *([mode] if mode else [])]


def _jdbc(_way: Way, scratch: Path) -> list[str]:
    steps = "\x1e".join(f"{step}\x1f{sql}" for step, sql in STEPS)
    return [*clients.jdbc_program(scratch), "everyday", steps, "extended"]


def _psql(_way: Way, _scratch: Path) -> list[str]:
    words = ["psql", "-X", "-c", r"\d orders"]
    for _, sql in STEPS:
        words += ["-c", sql]
    return words


CLIENTS: Sequence[Client] = (
    Client("psql", _psql, lambda said: {"shown": said}),
    Client(
        "pgcli", lambda way, scratch: clients.on_a_terminal(way, scratch, "shop"), lambda said: {"shown": clients.typed(said)},
        "\\d orders\n" + "".join(f"{sql};\n" for _, sql in STEPS) + "\\q\n",
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
        for client in CLIENTS:
            way.create_database("shop")
            way.server.run(
                "CREATE TABLE orders (id int PRIMARY KEY, note text); "
                "INSERT INTO orders SELECT i, 'n' FROM generate_series(1, 9) i",
                user="postgres", database="shop",
            )  # fmt: skip
            try:
                found = _session(client, way, scratch)
            except NotObtainableError as error:
                print(f"{client.name}: skipped, {error}", flush=True)
                continue
            left = way.server.run("SELECT string_agg(id::text, ' ' ORDER BY id) FROM orders", user="postgres", database="shop")
            right = left == "2 3 4 5 6 7 8 9"
            wrong += not right
            print(f"{client.name}: rows left {left}: {'as it must be' if right else 'WRONG'}", flush=True)
            for step, outcome in found.items():
                print(f"    {step}: {outcome}", flush=True)
    return wrong


def _session(client: Client, way: Way, scratch: Path) -> Outcomes:
    """Run one client while Bob approves the first delete and denies the second."""
    done = threading.Event()
    bob = threading.Thread(target=_answer, args=(way, done), name="bob")
    bob.start()
    try:
        return client.read(
            run(*client.argv(way, scratch), env=clients.plain_terminal(way, scratch, "shop"), stdin=client.typed, timeout=180)
        )
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
                    way.through.vote("approve" if approve else "deny", row["id"], reason="" if approve else "keep order 2")
