"""Analyzer: the gate's classifier. SQL, shell, file operations and pushes, cached by everything that changes the answer.

Answers at once what is cached, and what is small enough to read here; everything else goes to a child. Knows which
grammar a command needs; knows no policy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from functools import partial

import structlog

from interlock.commands.model import Analysis, Command, Kind, Opaque, ShellContext, SqlContext
from interlock.commands.pool import ShellPool
from interlock.commands.programs.loader import programs, sensitive_paths
from interlock.commands.programs.rules import Rules
from interlock.commands.pushes import analyze_push
from interlock.commands.sftp import analyze_sftp
from interlock.commands.shell import queries
from interlock.commands.shell.analysis import Asked, analyze_shell, unknown
from interlock.commands.shell.effective import inert
from interlock.commands.shell.grammars import Asking, Parse, Query
from interlock.commands.sql.alike import Alike, Families
from interlock.commands.sql.analysis import analyze_sql, context_key, depends_on_names, in_process
from interlock.commands.sql_child import SqlChild

_log = structlog.get_logger()

MAX_CACHED_TEXT = 8 * 1024
"""Bytes; larger texts hardly repeat and would fill the cache."""

SHORT_TEXT = 512
"""Bytes. What is longer is analysed in a thread of the pool, and the event loop takes its turns in between."""

_TRANSIENT = frozenset({"parser-limit", "parser-crash", "pool-closed"})


class Analyzer:
    """One a process. `start` and `close` may be called here or on the pool."""

    def __init__(self, pool: ShellPool, cache_size: int = 4096) -> None:
        self._pool = pool
        self._rules = Rules(programs(), sensitive_paths())
        self._sql = SqlChild()
        pool.close_with(self._sql.close)
        self._size = cache_size
        self._cache: OrderedDict[Hashable, Analysis] = OrderedDict()
        self._families = Families()

    async def start(self) -> None:
        """Start the grammars. Raise ConfigError when they do not work on this machine."""
        await self._pool.start()

    async def close(self) -> None:
        """End the children. Idempotent."""
        await self._pool.close()

    def classify_now(self, command: Command) -> Analysis | None:
        """Return a cached analysis, or that of what is small enough to read here; None when a child is needed."""
        key = _key(command)
        found = self._cache.get(key)
        if found is not None:
            self._cache.move_to_end(key)
            return found
        context = command.context
        if command.kind is Kind.FILE:
            return self._keep(key, command, analyze_sftp(command.text, self._rules))
        if command.kind is Kind.PUSH:
            return self._keep(key, command, analyze_push(command.text, self._rules))
        if not isinstance(context, SqlContext) or not in_process(command.text):
            return None
        kind, surroundings = command.kind, _surroundings(command.kind, context)
        alike = self._families.find(command.text, surroundings)
        if alike is not None:
            return alike.of(command.text)  # not kept: texts of which each is new would push out those that recur
        analysis = analyze_sql(command.text, context, kind)
        self._families.learn(command.text, surroundings, analysis, lambda text: analyze_sql(text, context, kind))
        return self._keep(key, command, analysis)

    def alike(self, text: bytes, kind: Kind, context: SqlContext) -> Alike | None:
        """Return what is known of a text's like: texts that differ in idle values alone get the same object."""
        return self._families.find(text, _surroundings(kind, context))

    async def classify(self, command: Command) -> Analysis:
        """Analyse, in a child where needed. A crash or a limit is an opaque analysis, never an exception."""
        found = self.classify_now(command)
        if found is not None:
            return found
        context = command.context
        if isinstance(context, SqlContext):
            analysis = await self._sql.analyze(command.text, context, command.kind)
        else:
            analysis = await self._shell(command, context)
        return self._keep(_key(command), command, analysis)

    async def _shell(self, command: Command, context: ShellContext) -> Analysis:
        if command.kind is not Kind.EXEC:
            return unknown("unknown-construct", command.text)
        asking = analyze_shell(Asked(command.text, context, command.stdin, command.cwd, command.pty), self._rules)
        try:
            if len(command.text) > SHORT_TEXT:
                found = await self._pool.beside(partial(self._to_the_end, asking))
                analysis = found if found is not None else unknown("pool-closed", command.text)
            else:
                analysis = await self._step_by_step(asking)
        except Exception:
            # A defect of ours is no reason to let anything pass, or to take the session down.
            _log.exception("shell analysis failed")
            return unknown("parser-crash", command.text)
        return _surrounded(analysis, command)

    async def _step_by_step(self, asking: Asking[Analysis]) -> Analysis:
        """Analyse here while the grammars read elsewhere."""
        try:
            request = next(asking)
            while True:
                answer = await (self._pool.parse(request) if isinstance(request, Parse) else self._query(request))
                request = asking.send(answer)
        except StopIteration as done:
            analysis: Analysis = done.value
            return analysis

    def _to_the_end(self, asking: Asking[Analysis]) -> Analysis:
        """Analyse in the calling thread: the trees of a long text would hold the event loop."""
        try:
            request = next(asking)
            while True:
                if isinstance(request, Parse):
                    request = asking.send(self._pool.parse_again(request))
                else:
                    request = asking.send(self._sql.analyze_here(request.text, queries.CONTEXT, Kind.QUERY))
        except StopIteration as done:
            analysis: Analysis = done.value
            return analysis

    async def _query(self, request: Query) -> Analysis:
        return await self._sql.analyze(request.text, queries.CONTEXT, Kind.QUERY)

    def _keep(self, key: Hashable, command: Command, analysis: Analysis) -> Analysis:
        fleeting = any(o.reason in _TRANSIENT for o in analysis.opaque)
        if isinstance(command.context, SqlContext):
            fleeting = fleeting or depends_on_names(analysis)
        if len(command.text) <= MAX_CACHED_TEXT and not fleeting:
            self._cache[key] = analysis
            while len(self._cache) > self._size:
                self._cache.popitem(last=False)
        return analysis


def _surrounded(analysis: Analysis, command: Command) -> Analysis:
    """Environment variables that came beside the text count like assignments in it."""
    if analysis.unreadable is not None:
        return analysis
    strange = [name for name, value in command.env if name != "TERM" and not inert(name, value)]
    if not strange:
        return analysis
    opaque = (*analysis.opaque, *(Opaque("environment", name, 0, len(command.text)) for name in strange))
    return replace(analysis, opaque=opaque, sent=None)


def _surroundings(kind: Kind, context: SqlContext) -> tuple[Hashable, ...]:
    """What an analysis depends on beside its text and the names of the session."""
    return kind is Kind.QUERY, context_key(context)


def _key(command: Command) -> Hashable:
    context = command.context
    if isinstance(context, SqlContext):
        return command.text, *_surroundings(command.kind, context)
    stdin = None if command.stdin is None else command.stdin.sha256
    return command.text, command.kind, context, stdin, command.cwd, command.env, command.pty
