"""psycopg 3 on asyncio. Prints one JSON object: step → what was seen."""

import asyncio
import json
import sys

import psycopg

seen: dict[str, object] = {}
notices: list[str] = []


def error_of(error: psycopg.Error) -> list[object]:
    d = error.diag
    return [d.sqlstate, d.message_primary, d.message_detail, d.message_hint, d.severity]


async def attempt(connection: psycopg.AsyncConnection, sql: str) -> object:
    try:
        cursor = await connection.execute(sql)
        return [list(map(str, row)) for row in await cursor.fetchall()] if cursor.description else cursor.statusmessage
    except psycopg.Error as error:
        return error_of(error)


async def work(connection: psycopg.AsyncConnection) -> None:
    await connection.execute("CREATE TABLE da (id int PRIMARY KEY, note text)")
    async with connection.pipeline(), connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO da VALUES (%s, %s)", [(i, "x" * 3000) for i in range(1000)])
    seen["megabytes"] = await attempt(connection, "SELECT count(*), sum(length(note)) FROM da")
    try:
        async with connection.pipeline():
            await connection.execute("INSERT INTO da VALUES (-1, '')")
            await connection.execute("INSERT INTO da VALUES (1, '')")
            await connection.execute("INSERT INTO da VALUES (-2, '')")
    except psycopg.Error as error:
        seen["pipeline-error"] = error_of(error)
    seen["rolled back"] = await attempt(connection, "SELECT count(*) FROM da WHERE id < 0")
    task = asyncio.create_task(attempt(connection, "SELECT pg_sleep(60)"))
    await asyncio.sleep(0.3)
    await connection.cancel_safe()
    seen["cancel"] = await task
    async with connection.cursor() as cursor:
        seen["stream"] = 0
        async for row in cursor.stream("SELECT i FROM generate_series(1, 5000) i"):
            seen["stream"] += row[0]
    seen["alive"] = await attempt(connection, "SELECT 1")


async def main() -> None:
    async with await psycopg.AsyncConnection.connect("", autocommit=True) as connection:
        connection.add_notice_handler(lambda d: notices.append(f"{d.severity}: {d.message_primary}"))
        if sys.argv[1] == "work":
            await work(connection)
        else:
            for step, sql in json.loads(sys.argv[2]):
                seen[step] = await attempt(connection, sql)
    seen["notices"] = notices
    print(json.dumps(seen, default=str))


asyncio.run(main())
