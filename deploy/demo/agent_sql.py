"""The agent's own program: one statement through a stock Postgres driver. It knows nothing of Interlock."""

import asyncio
import sys

import asyncpg


async def main() -> int:
    link = await asyncpg.connect(ssl=False)
    link.add_log_listener(lambda _, message: print(f"NOTICE: {message.args[0]}", file=sys.stderr, flush=True))
    try:
        rows = await link.fetch(sys.argv[1])
    except asyncpg.PostgresError as error:
        print(f"ERROR {error.sqlstate}: {error}", file=sys.stderr)  # with its DETAIL and HINT
        return 1
    finally:
        await link.close()
    for row in rows:
        print(*row.values(), sep=" | ")
    return 0


sys.exit(asyncio.run(main()))
