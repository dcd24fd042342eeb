"""PostgreSQL's regression suite, file by file, each way with psql as pg_regress calls it.

The files come with libpg_query inside the source archive of postgast, which the analysis uses anyway. Their expected
outputs do not, and are not needed: what counts is that both ways print the same. The data files do not come either, so
the two tables that most tests read are filled here by the rule that made PostgreSQL's own.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from compat.results import Outcomes
from compat.sources import source_archive
from compat.ways import Way, run

DATABASE = "regression"

ROWS = """
INSERT INTO {table} SELECT u, n, u % 2, u % 4, u % 10, u % 20, u % 100, u % 1000, u % 2000, u % 5000, u, (u % 100) * 2,
  (u % 100) * 2 + 1, letters(u), letters(n), (ARRAY['AAAAxx', 'HHHHxx', 'OOOOxx', 'VVVVxx'])[n % 4 + 1]
  FROM (SELECT n, (n * 7919 + 13) % {rows} AS u FROM generate_series(0, {rows} - 1) n) s;
"""
LETTERS = """
CREATE FUNCTION pg_temp.letters(n int) RETURNS name LANGUAGE sql IMMUTABLE AS
  $$ SELECT (chr(65 + n % 26) || chr(65 + n / 26 % 26) || chr(65 + n / 676 % 26) || 'Axx')::name $$;
"""
FIRST = ("test_setup", "copy", "copyselect", "copydml", "insert", "create_index", "create_view", "create_table")
"""What makes the objects that others use; the rest runs by name."""
NOT_REPEATABLE = {
    "stats": "prints counters that the server updates at intervals",
    "stats_import": "compares statistics with a time stamp",
    "maintain_every": "prints process ids",
    "psql_pipeline": "waits for ever with a psql older than 18, directly too",
}
_VOLATILE = (
    (re.compile(r"\b(pid|PID|process) \d+"), r"\1 PID"),
    (re.compile(r"\b(pg_temp|pg_toast_temp)_\d+"), r"\1_N"),
    (re.compile(r"\b\d{5,}(?=\b)(?=.*\b(oid|OID)\b)"), "OID"),
    (re.compile(r"\b(transaction|xid|operator) \d+"), r"\1 N"),
    (re.compile(r"(pg_toast|toast)_\d+"), r"\1_N"),
    (re.compile(r"(Time|Execution Time|Planning Time|actual time)[:=] ?[\d.]+(\.\.[\d.]+)?"), r"\1: N"),
)


def version(scratch: Path) -> str:
    source_archive("postgast", scratch)
    return "18 (files), 15 (server)"


def outcomes(way: Way, scratch: Path) -> Outcomes:
    """Run every file; return what psql printed for each, with what changes from run to run made plain."""
    folder = source_archive("postgast", scratch) / "vendor/libpg_query/test/sql/postgres_regress"
    way.create_database(DATABASE)
    way.server.run(
        f"ALTER DATABASE {DATABASE} SET lc_messages TO 'C'; ALTER DATABASE {DATABASE} SET lc_monetary TO 'C'; "
        f"ALTER DATABASE {DATABASE} SET bytea_output TO 'hex'; ALTER DATABASE {DATABASE} SET timezone_abbreviations TO 'Default'",
        user="postgres", database="postgres",
    )  # fmt: skip
    files = {path.stem: path for path in folder.glob("*.sql")}
    order = [*FIRST, *sorted(set(files) - set(FIRST) - set(NOT_REPEATABLE))]
    found: dict[str, str] = {}
    for name in order:
        said = _psql(way, files[name].read_text(errors="surrogateescape"), way.folder(scratch))
        found[name] = said = plain(said, way, way.folder(scratch))
        (way.folder(scratch) / f"{name}.out").write_text(said)
        if name == "test_setup":
            fill = LETTERS + "".join(ROWS.format(table=t, rows=n).replace("letters", "pg_temp.letters") for t, n in TABLES)
            for sql in (fill, "VACUUM ANALYZE"):
                way.server.run(sql, user="postgres", database=DATABASE)
    return found


TIMEOUT = 120
TABLES = (("onek", 1000), ("tenk1", 10_000))


def _psql(way: Way, text: str, folder: Path) -> str:
    env = {
        **way.env(DATABASE), "PGTZ": "PST8PDT", "PGDATESTYLE": "Postgres, MDY", "PGOPTIONS": "-c intervalstyle=postgres_verbose",
        "PG_ABS_SRCDIR": str(folder), "PG_LIBDIR": str(folder), "PG_DLSUFFIX": ".so", "PG_ABS_BUILDDIR": str(folder),
        "LC_MESSAGES": "C", "PGAPPNAME": "pg_regress",
    }  # fmt: skip
    psql = ("psql", "-X", "-a", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on")
    try:
        return run(*psql, env=env, stdin=text, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        return f"{(error.stdout or b'').decode(errors='replace')}(did not end in {TIMEOUT} s)"


def plain(text: str, way: Way, folder: Path) -> str:
    """Take out what no two runs share: process ids, numbers of temporary schemas, the address."""
    for pattern, put in _VOLATILE:
        text = pattern.sub(put, text)
    for mine, ours in (
        (str(way.port), "PORT"), (str(way.server.folder), "DATA"), (str(folder), "FOLDER"), (str(way.server.port), "PORT"),
    ):  # fmt: skip
        text = re.sub(rf"(?<!\d){re.escape(mine)}(?!\d)", ours, text)
    return text
