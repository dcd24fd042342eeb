"""psycopg 3, sync and pipeline. Prints one JSON object: step → what was seen."""

import json
import sys
import threading

import psycopg

notices: list[str] = []
seen: dict[str, object] = {}


def error_of(error: psycopg.Error) -> list[object]:
    d = error.diag
    return [d.sqlstate, d.message_primary, d.message_detail, d.message_hint, d.severity, d.table_name, d.constraint_name]


def attempt(connection: psycopg.Connection, sql: str, *values: object) -> object:
    try:
        with connection.transaction():
            cursor = connection.execute(sql, values or None)
            return [list(map(str, row)) for row in cursor.fetchall()] if cursor.description else cursor.statusmessage
    except psycopg.Error as error:
        return error_of(error)


def work(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE d (id int PRIMARY KEY, note text, at timestamptz, raw bytea, data jsonb, tags text[])")
    seen["insert"] = (
        connection.execute(
            "INSERT INTO d VALUES (%s, %s, %s, %s, %s, %s) RETURNING id, note, at, raw, data, tags",
            (1, "ä'\\ €", "2026-01-02 03:04:05+00", b"\x00\xff", '{"a": [1, null]}', ["x", None, "y,z"]),
            binary=True,
        )
        .fetchone()
        .__repr__()
    )
    for step, sql in {
        "unique": "INSERT INTO d (id) VALUES (1)",
        "syntax": "SELEC 1",
        "missing": "SELECT * FROM nothing_there",
        "division": "SELECT 1/0",
        "null": "SELECT NULL::int",
        "many": "SELECT 1; SELECT 2",
    }.items():
        seen[step] = attempt(connection, sql)
    with connection.cursor() as cursor:
        cursor.execute("SELECT i, repeat('x', 100) FROM generate_series(1, 50000) i")
        seen["large"] = sum(len(row[1]) + row[0] for row in cursor)
    with connection.transaction(), connection.cursor("c") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT i FROM generate_series(1, 1000) i")
        seen["cursor"] = sum(row[0] for row in cursor)
    with connection.cursor().copy("COPY d (id, note) FROM STDIN") as copy:
        for index in range(100, 200):
            copy.write_row((index, f"row {index}\n"))
    with connection.cursor().copy("COPY (SELECT id FROM d ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
        seen["copy"] = sum(len(block) for block in copy)
    with connection.pipeline(), connection.cursor() as cursor:
        cursor.executemany("INSERT INTO d (id) VALUES (%s) RETURNING id", [(i,) for i in range(1000, 1200)], returning=True)
        total = 0
        while True:
            total += cursor.fetchone()[0]
            if not cursor.nextset():
                break
        seen["pipeline"] = total
    try:
        with connection.pipeline():
            connection.execute("SELECT 1")
            connection.execute("SELECT * FROM nothing_there")
            connection.execute("SELECT 2")
    except psycopg.Error as error:
        seen["pipeline-error"] = error_of(error)
    seen["after"] = attempt(connection, "SELECT count(*) FROM d")
    for index in range(12):
        connection.execute("SELECT %s::int + 1", (index,), prepare=True)
    seen["prepared"] = connection.execute("SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql").fetchone()[0]
    connection.execute("DO $$ BEGIN RAISE NOTICE 'told %', 1; END $$")
    connection.execute("LISTEN heard")
    connection.execute("NOTIFY heard, 'you'")
    seen["notify"] = [(n.channel, n.payload) for n in connection.notifies(timeout=30, stop_after=1)]
    timer = threading.Timer(0.3, connection.cancel_safe)
    timer.start()
    seen["cancel"] = attempt(connection, "SELECT pg_sleep(60)")
    timer.join()
    with connection.transaction():
        connection.execute("INSERT INTO d (id) VALUES (5000)")
        try:
            with connection.transaction():
                connection.execute("INSERT INTO d (id) VALUES (5000)")
        except psycopg.Error as error:
            seen["savepoint"] = error.sqlstate
    seen["kept"] = attempt(connection, "SELECT count(*) FROM d WHERE id = 5000")
    seen["status"] = [connection.info.transaction_status.name, connection.info.encoding, connection.info.server_version]


def everyday(connection: psycopg.Connection) -> None:
    for step, sql in json.loads(sys.argv[2]):
        seen[step] = attempt(connection, sql)


with psycopg.connect("", autocommit=True) as connection:
    connection.add_notice_handler(lambda d: notices.append(f"{d.severity}: {d.message_primary}"))
    work(connection) if sys.argv[1] == "work" else everyday(connection)
seen["notices"] = notices
print(json.dumps(seen, default=str))
