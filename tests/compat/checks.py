"""All checks by name, in the order they run: everyday clients first, then the suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from compat import clients, go_suites, python_suites, regression
from compat.results import Outcomes
from compat.ways import Way


@dataclass(frozen=True, slots=True)
class Check:
    """`version` says what is run (and obtains it), `outcomes` runs it one way; both may raise NotObtainableError.

    One that `logs_in_wrongly` on purpose has a node of its own: after twenty such logins an address has to wait, so that
    those of two suites are too many.
    """

    version: Callable[[Path], str]
    outcomes: Callable[[Way, Path], Outcomes]
    logs_in_wrongly: bool = False


def _sqlalchemy(driver: str, tests: Sequence[str]) -> Check:
    return Check(python_suites.sqlalchemy_version, partial(python_suites.sqlalchemy, driver, tests))


ALL: Mapping[str, Check] = {
    "psql": Check(clients.program_version, clients.psql),
    "pgbench": Check(clients.program_version, clients.pgbench),
    "pg_dump": Check(clients.program_version, clients.dump_and_restore),
    "pgcli": Check(partial(clients.python_version, "pgcli"), clients.pgcli),
    "psycopg": Check(partial(clients.python_version, "psycopg"), clients.script("psycopg_sync")),
    "psycopg-async": Check(partial(clients.python_version, "psycopg"), clients.script("psycopg_async")),
    "asyncpg-client": Check(partial(clients.python_version, "asyncpg"), clients.script("asyncpg_client")),
    "sqlalchemy": Check(partial(clients.python_version, "sqlalchemy"), clients.script("sqlalchemy_client")),
    "django": Check(partial(clients.python_version, "django"), clients.script("django_client")),
    "node-postgres": Check(clients.node_version, partial(clients.work, clients.node_script, ("",))),
    "pgjdbc": Check(clients.jdbc_version, partial(clients.work, clients.jdbc_program, clients.JDBC_MODES)),
    "pgx-client": Check(clients.pgx_version, partial(clients.work, clients.pgx_program, clients.PGX_MODES)),
    "psycopg2": Check(python_suites.psycopg2_version, python_suites.psycopg2),
    "asyncpg": Check(python_suites.asyncpg_version, python_suites.asyncpg),
    "sqlalchemy-dialect": _sqlalchemy("psycopg", python_suites.SQLALCHEMY_DIALECT),
    "sqlalchemy-dialect-asyncpg": _sqlalchemy("asyncpg", python_suites.SQLALCHEMY_DIALECT),
    "sqlalchemy-types": _sqlalchemy("psycopg", python_suites.SQLALCHEMY_TYPES),
    "sqlalchemy-suite": _sqlalchemy("psycopg", python_suites.SQLALCHEMY_SUITE),
    "pgx": Check(go_suites.pgx_version, go_suites.pgx, logs_in_wrongly=True),
    "pq": Check(go_suites.pq_version, go_suites.pq, logs_in_wrongly=True),
    "regression": Check(regression.version, regression.outcomes),
}
