"""ShellPool: the two shell grammars in bounded, pre-started children.

`shfmt --tojson` gives the tree, `bash --pretty-print` bash's own reading; neither executes anything. Each child is used
once, was started before it was needed, has an empty environment, limits on CPU time and memory, and a deadline. A
crash, a limit or a timeout is a `Parsed.failure`, never an exception, and the next text meets fresh children. Spec:
commands.md, "Shell" item 8.
"""

from __future__ import annotations

import asyncio
import os
import resource
import selectors
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from interlock.commands.shell.grammars import Parse, Parsed
from interlock.errors import ConfigError

WALL_S = 0.5
CPU_S = 1
MEMORY = 384 << 20
"""Bytes of writable memory of a child (RLIMIT_DATA: Go reserves far more address space than it uses)."""
MAX_OUTPUT = 8 << 20
"""Bytes read from a child: 36 KB of nested `if` would be 760 MB of tree."""

BUSY_CPU_S = 0.2
"""Children that ran out of time with less CPU than this were waiting: the machine was busy, and the text gets one more try."""

_ANSWERS = {"shfmt": (0, 1), "bash": (0, 1, 2)}
"""Exit statuses that are answers; others are crashes (2 is Go's own)."""

_log = structlog.get_logger()
T = TypeVar("T")


class _LimitError(Exception):
    """A child crashed, printed too much or took too long."""


class _Child:
    """One process that waits for its input. Used once."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}, cwd="/", bufsize=0
        )
        # The child still waits for its input, so there is nothing it could have done without these limits.
        pid = self.process.pid
        resource.prlimit(pid, resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resource.prlimit(pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))

    def cpu(self) -> float:
        """Return the seconds of CPU used so far; 0.0 when it is gone (proc(5), stat fields 14 and 15)."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def _converse(children: Sequence[_Child], text: bytes, deadline: float) -> list[tuple[int, bytes, bytes]]:
    """Write `text` to each child and read what they print. Return (status, stdout, stderr) each. Raise _LimitError."""
    outputs: dict[int, bytearray] = {}
    with selectors.DefaultSelector() as selector:
        pending: dict[int, memoryview] = {}
        for child in children:
            stdin, stdout, stderr = child.process.stdin, child.process.stdout, child.process.stderr
            assert stdin is not None and stdout is not None and stderr is not None
            pending[stdin.fileno()] = memoryview(text)
            os.set_blocking(stdin.fileno(), False)
            selector.register(stdin, selectors.EVENT_WRITE)
            for pipe in (stdout, stderr):
                outputs[pipe.fileno()] = bytearray()
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise _LimitError("time")
            for key, _ in selector.select(left):
                if key.fd in pending:
                    _feed(selector, key.fileobj, key.fd, pending)
                    continue
                chunk = os.read(key.fd, 1 << 18)
                outputs[key.fd] += chunk
                if len(outputs[key.fd]) > MAX_OUTPUT:
                    raise _LimitError("output")
                if not chunk:
                    selector.unregister(key.fileobj)
    results: list[tuple[int, bytes, bytes]] = []
    for child in children:
        try:
            status = child.process.wait(max(0.0, deadline - time.monotonic()) + 0.01)
        except subprocess.TimeoutExpired:
            raise _LimitError("time") from None
        if status not in _ANSWERS[child.name]:
            raise _LimitError(f"{child.name} ended with status {status}")
        stdout, stderr = child.process.stdout, child.process.stderr
        assert stdout is not None and stderr is not None
        results.append((status, bytes(outputs[stdout.fileno()]), bytes(outputs[stderr.fileno()])))
    return results


def _feed(selector: selectors.BaseSelector, pipe: Any, fd: int, pending: dict[int, memoryview]) -> None:
    try:
        written = os.write(fd, pending[fd][: 1 << 16])
    except BrokenPipeError:
        written = len(pending[fd])  # it gave up reading: its status tells why
    pending[fd] = pending[fd][written:]
    if not pending[fd]:
        selector.unregister(pipe)
        pipe.close()


class ShellPool:
    """`workers` texts are read at a time. `parse` may be awaited from any task."""

    def __init__(self, workers: int = 2, *, wall: float = WALL_S) -> None:
        self._workers = workers
        self._wall = wall
        self._argv = {"shfmt": [_shfmt(), "-ln=bash", "--tojson"], "bash": [_bash(), "--norc", "--noprofile", "--pretty-print"]}
        self._ready: dict[str, deque[_Child]] = {"shfmt": deque(), "bash": deque()}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._companions: list[Callable[[], Awaitable[None]]] = []

    def close_with(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have `close` awaited when the pool closes: for children of another grammar that live as long."""
        self._companions.append(close)

    async def start(self) -> None:
        """Start the children and make sure that both grammars work. Raise ConfigError. Idempotent."""
        if self._threads is not None:
            return
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="shell-grammar")
        probe = await self.parse(Parse(b"echo 'a' | cat"))
        if probe.failure or probe.tree is None or probe.printed is None:
            await self.close()
            raise ConfigError("the shell grammars (shfmt, bash --pretty-print of bash 5) do not work on this machine")
        await asyncio.gather(*(asyncio.wrap_future(self._threads.submit(self._refill)) for _ in range(self._workers)))

    async def close(self) -> None:
        """End every child. Idempotent."""
        for close in self._companions:
            await close()
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown, wait=True)
        with self._lock:
            children = [c for ready in self._ready.values() for c in ready]
            for ready in self._ready.values():
                ready.clear()
        for child in children:
            child.kill()

    async def parse(self, request: Parse) -> Parsed:
        """Read one text with both grammars. Whatever fails is a `failure` in the answer."""
        answer = await self.beside(partial(self.parse_again, request))
        return Parsed(failure="pool-closed") if answer is None else answer

    async def beside(self, work: Callable[[], T]) -> T | None:
        """Do `work`, which may call `parse_again`, in one of the pool's threads. None: the pool is closed."""
        threads = self._threads
        if threads is None:
            return None
        try:
            answer = await asyncio.wrap_future(threads.submit(work))
        except RuntimeError:  # closed meanwhile: no new work is taken
            return None
        if self._threads is threads:
            threads.submit(self._refill)
        return answer

    def parse_again(self, request: Parse) -> Parsed:
        """Read one text in the calling thread, and once more when the machine had no time for it."""
        answer = self.parse_here(request)
        return self.parse_here(request) if answer.detail == "time" else answer

    def parse_here(self, request: Parse) -> Parsed:
        """The same in the calling thread: at most two conversations within the deadline."""
        deadline = time.monotonic() + self._wall
        taken: list[_Child] = []
        try:
            text = request.text + b"\n"
            first = [self._take("shfmt", taken), self._take("bash", taken)]
            (status, out, err), (bash_status, printed, _) = _converse(first, text, deadline)
            if status != 0:
                return Parsed(error=err.decode("utf-8", "replace").strip()[:400])
            tree = _decode(out)
            if bash_status != 0:
                return Parsed(tree=tree)
            if printed.strip() == text.strip():
                return Parsed(tree=tree, printed=printed, printed_tree=tree)  # the same text again
            ((status, out, _),) = _converse([self._take("shfmt", taken)], printed, deadline)
            return Parsed(tree=tree, printed=printed, printed_tree=_decode(out) if status == 0 else None)
        except _LimitError as error:
            detail = str(error)
            if detail == "time" and sum(child.cpu() for child in taken) >= BUSY_CPU_S:
                detail = "work"
            return Parsed(failure="parser-limit", detail=detail)
        except (msgspec.DecodeError, RecursionError, MemoryError, OSError) as error:
            _log.warning("shell grammar failed", error=type(error).__name__)
            return Parsed(failure="parser-crash", detail=type(error).__name__)
        finally:
            for child in taken:
                child.kill()

    def _take(self, name: str, taken: list[_Child]) -> _Child:
        with self._lock:
            child = self._ready[name].popleft() if self._ready[name] else None
        if child is None or child.process.poll() is not None:
            if child is not None:
                child.kill()
            child = _Child(name, self._argv[name])
        taken.append(child)
        return child

    def _refill(self) -> None:
        """Keep children waiting, so that the next text does not pay for their start."""
        for name, wanted in (("shfmt", 2 * self._workers), ("bash", self._workers)):
            while True:
                with self._lock:
                    if self._threads is None or len(self._ready[name]) >= wanted:
                        break
                try:
                    child = _Child(name, self._argv[name])
                except OSError as error:
                    _log.warning("shell grammar not pre-started", error=type(error).__name__)
                    return
                with self._lock:
                    self._ready[name].append(child)


def _decode(out: bytes) -> Mapping[str, Any]:
    tree = msgspec.json.decode(out)
    if not isinstance(tree, dict):
        raise msgspec.DecodeError("not an object")
    return tree


def _shfmt() -> str:
    """Prefer the shfmt installed beside this Python: its version is locked."""
    beside = Path(sys.executable).parent / "shfmt"
    found = str(beside) if beside.is_file() else shutil.which("shfmt")
    if found is None:
        raise ConfigError("shfmt is not installed; it comes with this package (shfmt-py)")
    return found


def _bash() -> str:
    found = shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin") or shutil.which("bash")
    if found is None:
        raise ConfigError("bash is not installed; version 5 or later is needed to check its grammar")
    return found
