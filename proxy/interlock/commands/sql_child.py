"""SQL that is too large or too deep to be parsed in this process: a child does it, and may die of it.

Deep trees can crash the C library. A crash, a limit or a timeout is an opaque analysis; the next text meets a fresh
child. Requests are pickles (from us to our child); answers are JSON read into `Analysis`, because a child that a hostile
text has broken may write anything. Spec: commands.md, "SQL".
"""

from __future__ import annotations

import asyncio
import copyreg
import io
import os
import pickle
import resource
import select
import struct
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec
import structlog

from interlock.commands.model import Analysis, Kind, Opaque, SqlContext, Stdin
from interlock.commands.sql.secrets import hints

WALL_S = 5.0
MEMORY = 1 << 30
MAX_ANSWER = 16 << 20
_LENGTH = struct.Struct("!I")
_log = structlog.get_logger()


class SqlChild:
    """One child, one text at a time. Started by the first text."""

    def __init__(self, *, wall: float = WALL_S) -> None:
        self._wall = wall
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sql-grammar")
        self._process: subprocess.Popen[bytes] | None = None
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
        self._end()

    def _analyze(self, text: bytes, context: SqlContext, kind: Kind) -> Analysis:
        try:
            answer = self._exchange(text, context, kind, time.monotonic() + self._wall)
            return msgspec.json.decode(answer, type=Analysis)
        except TimeoutError:
            reason = "parser-limit"
        except (OSError, EOFError, msgspec.MsgspecError, pickle.PicklingError, TypeError) as error:
            _log.warning("sql child failed", error=type(error).__name__)
            reason = "parser-crash"
        self._end()
        return _unknown(reason, text)

    def _exchange(self, text: bytes, context: SqlContext, kind: Kind, deadline: float) -> bytes:
        process = self._process
        if process is None or process.poll() is not None:
            self._end()
            process = self._process = _start()
        assert process.stdin is not None and process.stdout is not None
        catalog = context.catalog
        version = None if catalog is None else catalog.version
        # A catalog is large and rarely changes: the child keeps the one it was sent last.
        sent = None if version == self._version else catalog
        self._version = version if catalog is not None else self._version
        request = _pickled((text, replace(context, catalog=None), kind, version, sent))
        _write(process.stdin.fileno(), _LENGTH.pack(len(request)) + request, deadline)
        (length,) = _LENGTH.unpack(_read(process.stdout.fileno(), _LENGTH.size, deadline))
        if length > MAX_ANSWER:
            raise EOFError("answer too large")
        return _read(process.stdout.fileno(), length, deadline)

    def _end(self) -> None:
        process, self._process = self._process, None
        self._version = None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        pass  # it died with our request unread


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


def _start() -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "interlock.commands.sql_child"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": str(root)}, cwd="/", bufsize=0,
    )  # fmt: skip
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
    return process


def _write(fd: int, data: bytes, deadline: float) -> None:
    os.set_blocking(fd, False)
    view = memoryview(data)
    while view:
        if not select.select([], [fd], [], max(0.0, deadline - time.monotonic()))[1]:
            raise TimeoutError
        view = view[os.write(fd, view[: 1 << 16]) :]


def _read(fd: int, length: int, deadline: float) -> bytes:
    got = bytearray()
    while len(got) < length:
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        chunk = os.read(fd, min(1 << 18, length - len(got)))
        if not chunk:
            raise EOFError
        got += chunk
    return bytes(got)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Run in the child: answer requests until standard input ends."""
    from interlock.commands.sql.analysis import analyze_sql

    catalog: object = None
    while len(head := requests.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        text, context, kind, version, sent = pickle.loads(requests.read(length))  # noqa: S301  written by our parent alone
        catalog = sent if sent is not None else catalog
        if version is not None:
            context = replace(context, catalog=catalog)
        answer = msgspec.json.encode(analyze_sql(text, context, kind))
        answers.write(_LENGTH.pack(len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
