"""asyncpg. Prints one JSON object: step → what was seen."""

import asyncio
import datetime
import decimal
import json
import sys

import asyncpg

seen: dict[str, object] = {}
notices: list[str] = []


def error_of(error: asyncpg.PostgresError) -> list[object]:
    return [error.sqlstate, str(error.args[0]), error.detail, error.hint, error.severity]


async def attempt(connection: asyncpg.Connection, sql: str, *values: object) -> object:
    try:
        rows = await connection.fetch(sql, *values)
        return [list(map(str, row)) for row in rows]
    except asyncpg.PostgresError as error:
        return error_of(error)


async def work(connection: asyncpg.Connection) -> None:
    await connection.execute("CREATE TABLE a (id int PRIMARY KEY, n numeric, at timestamptz, raw bytea, tags text[], note text)")
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    seen["types"] = await attempt(
        connection,
        "INSERT INTO a VALUES ($1, $2, $3, $4, $5, $6) RETURNING *",
        1,
        decimal.Decimal("1.50"),
        at,
        b"\x00\xff",
        ["a", None],
        "ä",
    )
    await connection.executemany("INSERT INTO a (id, note) VALUES ($1, $2)", [(i, "y" * 900) for i in range(10, 10_010)])
    seen["nine megabytes"] = await attempt(connection, "SELECT count(*), sum(length(note)) FROM a")
    for step, sql in {"unique": "INSERT INTO a (id) VALUES (1)", "syntax": "SELEC", "missing": "SELECT * FROM gone"}.items():
        seen[step] = await attempt(connection, sql)
    seen["copied"] = await connection.copy_records_to_table(
        "a", records=[(i, None) for i in range(-50, 0)], columns=["id", "note"]
    )
    async with connection.transaction():
        seen["cursor"] = sum([r[0] async for r in connection.cursor("SELECT id FROM a ORDER BY id", prefetch=77)])
    heard: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
    await connection.add_listener("news", lambda _c, _pid, channel, payload: heard.put_nowait((channel, payload)))
    await connection.execute("NOTIFY news, 'now'")
    seen["notify"] = await asyncio.wait_for(heard.get(), 30)
    try:
        await asyncio.wait_for(connection.fetch("SELECT pg_sleep(60)"), 0.3)
    except TimeoutError:
        seen["cancel"] = await attempt(connection, "SELECT 'alive'")
    statement = await connection.prepare("SELECT $1::int + $2::bigint AS sum")
    seen["prepared"] = [await statement.fetchval(1, 2), [p.name for p in statement.get_parameters()]]
    await connection.execute("DO $$ BEGIN RAISE WARNING 'careful'; END $$")


async def main() -> None:
    connection = await asyncpg.connect(ssl=False)
    connection.add_log_listener(lambda _c, message: notices.append(f"{message.severity}: {message.message}"))
    if sys.argv[1] == "work":
        await work(connection)
    else:
        for step, sql in json.loads(sys.argv[2]):
            seen[step] = await attempt(connection, sql)
    await connection.close()
    seen["notices"] = notices
    print(json.dumps(seen, default=str))


asyncio.run(main())
