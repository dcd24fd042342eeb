"""One pool of grammars for the whole folder, and a way to analyse a text without asyncio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.analyses import answer
from interlock.commands.model import Analysis, HeldInput, ShellContext
from interlock.commands.pool import ShellPool
from interlock.commands.programs.loader import programs, sensitive_paths
from interlock.commands.programs.rules import Rules
from interlock.commands.shell.analysis import Asked, analyze_shell
from interlock.commands.shell.grammars import Parse, Parsed, Query

Analyse = Callable[..., Analysis]


class Grammars:
    """The real grammars, asked in the test's own thread, with time to spare on a busy machine."""

    def __init__(self) -> None:
        self.pool = ShellPool(1, wall=10)
        self.rules = Rules(programs(), sensitive_paths())

    def parse(self, request: Parse | Query) -> Parsed | Analysis:
        return answer(self.pool, request)

    def analyse(
        self,
        text: str | bytes,
        *,
        shell: str = "bash",
        utf8: bool = True,
        stdin: bytes | None = None,
        cwd: str = "",
        pty: bool = False,
    ) -> Analysis:
        raw = text if isinstance(text, bytes) else text.encode()
        held = None if stdin is None else HeldInput(stdin)
        asking = analyze_shell(Asked(raw, ShellContext(shell, utf8), held, cwd, pty), self.rules)
        try:
            request = next(asking)
            while True:
                request = asking.send(self.parse(request))
        except StopIteration as done:
            analysis: Analysis = done.value
            return analysis

    def analyse_all(self, texts: list[str]) -> list[Analysis]:
        with ThreadPoolExecutor(3) as threads:
            return list(threads.map(self.analyse, texts))


@pytest.fixture(scope="session")
def grammars() -> Iterator[Grammars]:
    yield Grammars()


@pytest.fixture(scope="session")
def analyse(grammars: Grammars) -> Analyse:
    return grammars.analyse
