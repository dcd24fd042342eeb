"""SQL that is too large or too deep to be parsed in this process: a child does it, and may die of it.

Deep trees can crash the C library. A crash, a limit or a timeout is an opaque analysis; the next text meets a fresh
child. Requests are pickles (from us to our child); answers are JSON read into `Analysis`, because a child that a hostile
text has broken may write anything. Spec: commands.md, "SQL".
"""

from __future__ import annotations

import asyncio
import copyreg
import io
import pickle
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType

import msgspec
import structlog

from interlock.child import Child, serve
from interlock.commands.model import Analysis, Kind, Opaque, SqlContext, Stdin
from interlock.commands.sql.secrets import hints

WALL_S = 5.0
MEMORY = 1 << 30
MAX_ANSWER = 16 << 20
_log = structlog.get_logger()


class SqlChild:
    """One child, one text at a time. Started by the first text."""

    def __init__(self, *, wall: float = WALL_S) -> None:
        self._wall = wall
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sql-grammar")
        self._child = Child("interlock.commands.sql_child", memory=MEMORY, most=MAX_ANSWER)
        self._version: str | None = None  # of the catalog that the child holds

    async def analyze(self, text: bytes, context: SqlContext, kind: Kind) -> Analysis:
        """Analyse in the child. Whatever goes wrong there is an opaque analysis."""
        return await asyncio.wrap_future(self._asked(text, context, kind))

    def analyze_here(self, text: bytes, context: SqlContext, kind: Kind) -> Analysis:
        """The same for a caller in a thread of its own, which waits."""
        return self._asked(text, context, kind).result()

    def _asked(self, text: bytes, context: SqlContext, kind: Kind) -> Future[Analysis]:
        try:
            return self._thread.submit(self._analyze, text, context, kind)
        except RuntimeError:  # closed: no new work is taken
            closed: Future[Analysis] = Future()
            closed.set_result(_unknown("pool-closed", text))
            return closed

    async def close(self) -> None:
        """End the child. Idempotent."""
        await asyncio.to_thread(self._thread.shutdown, wait=True)
        self._child.end()

    def _analyze(self, text: bytes, context: SqlContext, kind: Kind) -> Analysis:
        try:
            answer = self._exchange(text, context, kind, time.monotonic() + self._wall)
            return msgspec.json.decode(answer, type=Analysis)
        except TimeoutError:
            reason = "parser-limit"
        except (OSError, EOFError, msgspec.MsgspecError, pickle.PicklingError, TypeError) as error:
            _log.warning("sql child failed", error=type(error).__name__)
            reason = "parser-crash"
        self._child.end()
        return _unknown(reason, text)

    def _exchange(self, text: bytes, context: SqlContext, kind: Kind, deadline: float) -> bytes:
        if not self._child.begin():
            self._version = None
        catalog = context.catalog
        version = None if catalog is None else catalog.version
        # A catalog is large and rarely changes: the child keeps the one it was sent last.
        sent = None if version == self._version else catalog
        self._version = version if catalog is not None else self._version
        return self._child.ask(_pickled((text, replace(context, catalog=None), kind, version, sent)), deadline)


def _pickled(request: object) -> bytes:
    """Pickle, with the read-only mappings of a catalog, which the standard pickler does not know."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = copyreg.dispatch_table | {MappingProxyType: lambda m: (MappingProxyType, (dict(m),))}
    pickler.dump(request)
    return out.getvalue()


def _unknown(reason: str, text: bytes) -> Analysis:
    concealed = ((0, len(text)),) if hints(text) else ()
    return Analysis(opaque=(Opaque(reason, "", 0, len(text)),), stdin=Stdin.NONE, parser="libpg_query", concealed=concealed)


class _Answers:
    """Answers requests, in the child. Remembers the catalog that it was sent last."""

    def __init__(self) -> None:
        self._catalog: object = None

    def __call__(self, request: bytes) -> bytes:
        from interlock.commands.sql.analysis import analyze_sql

        text, context, kind, version, sent = pickle.loads(request)  # noqa: S301  written by our parent alone
        self._catalog = sent if sent is not None else self._catalog
        if version is not None:
            context = replace(context, catalog=self._catalog)
        return msgspec.json.encode(analyze_sql(text, context, kind))


if __name__ == "__main__":
    serve(_Answers())
