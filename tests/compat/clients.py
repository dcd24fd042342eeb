"""Everyday clients: each does its usual work both ways, by a script in drivers/ or by the program itself."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from compat.go_suites import PGX, VERSIONS, go_env
from compat.results import Outcomes
from compat.sources import NotObtainableError, call, python
from compat.ways import HERE, Way, run
from harness.postgres_server import binaries

DRIVERS = HERE / "drivers"
JDBC_MODES = ("simple", "extended", "extendedForPrepared", "extendedCacheEverything")
PGX_MODES = ("cache_statement", "cache_describe", "describe_exec", "exec", "simple")
NODE = ("pg", "pg-cursor", "pg-query-stream")

Prepared = Callable[[Path], list[str]]
"""Given the scratch folder, the words of the command that runs a driver's script."""


def seen(said: str) -> Outcomes:
    """Read the one JSON object that a script prints; each step's outcome is its JSON."""
    line = next((line for line in said.splitlines() if line.startswith("{")), None)
    if line is None:
        raise AssertionError(f"the client said:\n{said[-2000:]}")
    return {step: json.dumps(value, sort_keys=True, ensure_ascii=False) for step, value in json.loads(line).items()}


# -- drivers, by a script each -----------------------------------------------------------------------------------------


def python_script(name: str, scratch: Path) -> list[str]:
    return [str(python(scratch)), str(DRIVERS / f"{name}.py")]


def node_script(scratch: Path) -> list[str]:
    folder = scratch / "node"
    if not (folder / "node_modules/pg").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        call("npm", "install", "--silent", "--no-audit", "--no-fund", *NODE, cwd=folder)
    shutil.copy(DRIVERS / "node_postgres.js", folder / "node_postgres.js")
    return ["node", str(folder / "node_postgres.js")]


def jdbc_program(scratch: Path) -> list[str]:
    folder = scratch / "jdbc"
    jar = folder / "usr/share/java/postgresql.jar"
    folder.mkdir(parents=True, exist_ok=True)
    if not jar.exists():
        call("apt-get", "download", "libpostgresql-jdbc-java", cwd=folder)
        call("dpkg-deb", "-x", next(folder.glob("libpostgresql-jdbc-java_*.deb")), folder)
    call("javac", "-encoding", "UTF-8", "-cp", jar, "-d", folder, DRIVERS / "Jdbc.java")
    return ["java", "-Dfile.encoding=UTF-8", "-cp", f"{jar}:{folder}", "Jdbc"]


def pgx_program(scratch: Path) -> list[str]:
    folder = scratch / "pgx"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(DRIVERS / "pgx_client.go", folder / "main.go")
    if not (folder / "go.mod").exists():
        call("go", "mod", "init", "compat", cwd=folder, env=go_env(scratch))
        call("go", "get", f"{PGX}@{VERSIONS[PGX]}", cwd=folder, env=go_env(scratch))
    call("go", "build", "-o", folder / "client", ".", cwd=folder, env=go_env(scratch))
    return [str(folder / "client")]


def work(prepared: Prepared, modes: Sequence[str], way: Way, scratch: Path) -> Outcomes:
    """Run a driver's script once for each of its modes, all in one new database."""
    way.create_database("work")
    command = prepared(scratch)
    found: dict[str, str] = {}
    for mode in modes:
        arguments = [*command, "work", "", *([mode] if mode else [])]
        for step, outcome in seen(run(*arguments, env=way.env("work"), timeout=180)).items():
            found[f"{mode} {step}".strip()] = outcome
    return found


def python_version(package: str, scratch: Path) -> str:
    pip = python(scratch).parent / "pip"
    return next(line.split()[1] for line in call(pip, "show", package).splitlines() if line.startswith("Version:"))


def node_version(scratch: Path) -> str:
    node_script(scratch)
    return str(json.loads((scratch / "node/node_modules/pg/package.json").read_text())["version"])


def jdbc_version(scratch: Path) -> str:
    jdbc_program(scratch)
    return next((scratch / "jdbc").glob("*.deb")).name.split("_")[1]


def pgx_version(scratch: Path) -> str:
    pgx_program(scratch)
    return VERSIONS[PGX]


# -- PostgreSQL's own programs, and pgcli ------------------------------------------------------------------------------

PSQL = r"""
\set VERBOSITY verbose
\set SHOW_CONTEXT always
CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL CHECK (v <> ''), d date DEFAULT '2026-01-01');
CREATE INDEX ON t (v); CREATE VIEW w AS SELECT id FROM t; COMMENT ON TABLE t IS 'a table';
INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i;
\d
\d+ t
\dv
\df pg_catalog.now
\du postgres
\l work
\x auto
SELECT count(*), sum(id) FROM t \gx
SELECT 1 AS one \gset
\echo :one
INSERT INTO t VALUES (1, 'x');
INSERT INTO t VALUES (-1, '');
SELECT 1/0; SELEC 1; SELECT * FROM gone;
SELECT 'one' AS a\; SELECT 'two' AS b;
\copy (SELECT id FROM t WHERE id < 4 ORDER BY id) TO STDOUT
\copy t (id, v) FROM STDIN
5001	a
5002	b
\.
COPY t (id, v) FROM STDIN;
bad	row
\.
BEGIN; SELECT 1/0; SELECT 1; ROLLBACK;
\set ON_ERROR_ROLLBACK on
BEGIN; SELECT 1/0; SELECT 'still here'; COMMIT;
\set FETCH_COUNT 100
SELECT id FROM t WHERE id <= 300 ORDER BY id;
\unset FETCH_COUNT
DO $$ BEGIN RAISE NOTICE 'told' USING DETAIL = 'more', HINT = 'look'; END $$;
LISTEN heard; NOTIFY heard, 'you'; SELECT 1;
PREPARE p (int) AS SELECT $1 + 1; EXECUTE p (41); DEALLOCATE p;
SELECT $1::int + $2::int \bind 1 2 \g
SELECT 'SELECT ' || i FROM generate_series(1, 3) i \gexec
\crosstabview
\errverbose
\encoding
\conninfo
SELECT n_live_tup >= 0 FROM pg_stat_user_tables WHERE relname = 't';
SET statement_timeout = '100ms'; SELECT pg_sleep(60);
"""


def psql(way: Way, scratch: Path) -> Outcomes:
    """One script line by line; each command's echo begins its step."""
    way.create_database("work")
    said = run("psql", "-X", "-e", "-d", way.dsn("work"), env=way.env("work"), stdin=PSQL)
    plain = re.sub(r"process(?: with)? PID \d+|PID \d+", "PID", said)
    plain = plain.replace(f'"{way.port}"', '"PORT"')
    parts = re.split(r"(?m)^(?=[A-Z]{3,} ?.*;$)", plain)
    return {f"{number:02} {part.splitlines()[0][:60] if part else ''}": part for number, part in enumerate(parts)}


def pgbench(way: Way, scratch: Path) -> Outcomes:
    """Initialise, and run TPC-B in each query mode, with a pipeline too; the sums of the tables must agree."""
    way.create_database("work")
    folder = way.folder(scratch)
    pipeline = folder / "pipeline.sql"
    pipeline.write_text("\\startpipeline\n" + "SELECT abalance FROM pgbench_accounts WHERE aid = 1;\n" * 20 + "\\endpipeline\n")
    env, program = way.env("work"), str(binaries() / "pgbench")
    found = {"initialise": run(program, "-i", "-q", "-s", "1", env=env, timeout=300)[-9:]}
    for mode in ("simple", "extended", "prepared"):
        found[mode] = _counts(run(program, "-n", "-M", mode, "-c", "4", "-t", "100", env=env, timeout=300))
    for mode in ("extended", "prepared"):
        said = run(program, "-n", "-M", mode, "-f", str(pipeline), "-c", "2", "-t", "50", env=env, timeout=300)
        found[f"{mode} pipeline"] = _counts(said)
    found["sums agree"] = run(
        "psql", "-XAt", "-c",
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), "
        "(SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches), "
        "count(*) FROM pgbench_history", env=env,
    )  # fmt: skip
    return found


def _counts(said: str) -> str:
    kept = [
        line
        for line in said.splitlines()
        if line.startswith(("number of transactions", "number of failed", "(exit", "query mode"))
    ]
    return "\n".join(kept)


SCHEMA = """
CREATE SCHEMA s; CREATE TYPE s.mood AS ENUM ('ok', 'bad'); CREATE DOMAIN s.small AS int CHECK (VALUE < 100);
CREATE TABLE s.p (id bigserial PRIMARY KEY, m s.mood, k s.small, raw bytea, j jsonb, t tsvector, r int4range, n numeric)
  PARTITION BY RANGE (id);
CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES FROM (0) TO (500); CREATE TABLE s.p2 PARTITION OF s.p DEFAULT;
INSERT INTO s.p (m, k, raw, j, t, r, n) SELECT 'ok', i % 100, decode(md5(i::text), 'hex'), jsonb_build_object('i', i),
  to_tsvector('word ' || i), int4range(i, i + 5), i / 7.0 FROM generate_series(1, 2000) i;
CREATE VIEW s.v AS SELECT m, count(*) FROM s.p GROUP BY m; CREATE MATERIALIZED VIEW s.mv AS SELECT * FROM s.v;
CREATE FUNCTION s.f(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'; CREATE INDEX ON s.p USING gin (t);
CREATE FUNCTION s.tr() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER tr BEFORE INSERT ON s.p1 FOR EACH ROW EXECUTE FUNCTION s.tr(); COMMENT ON TABLE s.p IS 'Ünïcode';
CREATE TABLE s.q (id int REFERENCES s.p1 (id), "odd ""name" text); ALTER TABLE s.q ENABLE ROW LEVEL SECURITY;
CREATE POLICY pol ON s.q USING (id > 0); GRANT SELECT ON s.q TO PUBLIC;
"""


def dump_and_restore(way: Way, scratch: Path) -> Outcomes:
    """Dump in each format, restore into an empty database, and dump that: the texts must be the same everywhere."""
    way.create_database("work")
    way.server.run(SCHEMA, user="postgres", database="work")
    folder, env = way.folder(scratch), way.env("work")
    found: dict[str, str] = {}
    plain = run(binaries() / "pg_dump", env=env)
    found["plain"] = _dump(plain)
    found["inserts"] = _dump(run(binaries() / "pg_dump", "--inserts", "--rows-per-insert=50", env=env))
    found["schema only"] = _dump(run(binaries() / "pg_dump", "-s", env=env))
    formats = {"custom": ["-Fc"], "directory": ["-Fd", "-j", "2"], "tar": ["-Ft"]}
    for name, options in formats.items():
        kept = folder / f"dump.{name}"
        shutil.rmtree(kept, ignore_errors=True)
        found[f"{name} dumped"] = run(binaries() / "pg_dump", *options, "-f", kept, env=env)
        way.create_database("restored")
        jobs = ["-j", "2"] if name != "tar" else []
        # The connection string names where to, as `-d` of pg_restore takes the place of PGDATABASE.
        found[f"{name} restored"] = run(binaries() / "pg_restore", *jobs, "-d", way.dsn("restored"), kept, env=env)
        found[f"{name} again"] = _dump(run(binaries() / "pg_dump", env=way.env("restored")))
    way.create_database("restored")
    (folder / "dump.sql").write_text(plain.rpartition("(exit")[0])
    found["plain restored"] = run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", folder / "dump.sql", env=way.env("restored"))
    found["plain again"] = _dump(run(binaries() / "pg_dump", env=way.env("restored")))
    found["all roles"] = _dump(run(binaries() / "pg_dumpall", "-r", "--no-role-passwords", "-l", "work", env=env))
    return found


def _dump(text: str) -> str:
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", text)  # a random word of newer versions


PGCLI = "SELECT 1 AS one;\n\\dt\n\\d t\nSELECT count(*) FROM t;\nSELECT * FROM gone;\nINSERT INTO t VALUES (2) RETURNING id;\n"


def on_a_terminal(way: Way, scratch: Path, database: str) -> list[str]:
    """Return the words that run pgcli on a terminal of its own; it takes no commands from a pipe."""
    if shutil.which("script") is None:
        raise NotObtainableError("script(1) is not installed")
    rc = way.folder(scratch) / "pgclirc"
    rc.write_text("[main]\nless_chatty = True\nenable_pager = False\nmulti_line = False\nkeyring = False\ntable_format = csv\n")
    program = python(scratch).parent / "pgcli"
    url = way.url(database, scheme="postgres")
    return ["script", "-qec", f"timeout 120 {program} --pgclirc {rc} --warn off '{url}'", "/dev/null"]


def plain_terminal(way: Way, scratch: Path, database: str) -> dict[str, str]:
    return {**way.env(database), "TERM": "dumb", "PAGER": "cat", "HOME": str(way.folder(scratch))}


def typed(said: str) -> str:
    """Return what a terminal showed without its own moves, the prompts and the times."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", said)
    return "\n".join(
        line for line in text.splitlines() if line and "> " not in line and not line.startswith(("Time:", "Goodbye", "WARNING"))
    )


def pgcli(way: Way, scratch: Path) -> Outcomes:
    """Commands typed into pgcli, with its completer at work, a session for each."""
    way.create_database("work")
    way.server.run("CREATE TABLE t (id int); INSERT INTO t VALUES (1)", user="postgres", database="work")
    command, env = on_a_terminal(way, scratch, "work"), plain_terminal(way, scratch, "work")
    return {
        f"{number} {line}": typed(run(*command, env=env, stdin=f"{line}\n\\q\n", timeout=150))
        for number, line in enumerate(PGCLI.splitlines())
    }


def program_version(scratch: Path) -> str:
    return call("psql", "--version").split()[2]


def script(name: str) -> Callable[[Way, Path], Outcomes]:
    return functools.partial(work, functools.partial(python_script, name), ("",))
