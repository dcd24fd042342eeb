"""The two shell grammars for thousands of texts: the same programs that `commands.pool` asks, with less waiting.

A child reads many texts at once, with a mark between them, and what it says is cut at the marks: when every mark stands at
the top where it was put, what is between is what the child says of that text alone. A text that swallows its mark, or that
does not parse, is taken out. A test compares with the answers of the pool.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from interlock.commands.model import Analysis, Kind, ShellContext
from interlock.commands.pool import ShellPool
from interlock.commands.programs.loader import programs, sensitive_paths
from interlock.commands.programs.rules import Rules
from interlock.commands.shell import queries
from interlock.commands.shell.analysis import Asked, analyze_shell
from interlock.commands.shell.grammars import Asking, Parse, Parsed, Query
from interlock.commands.sql.analysis import analyze_sql

TOGETHER = 48
"""Texts that one shfmt reads."""

KEPT = 50_000
_MARK = b"end-of-text-%d\n"
_PUT, _PRINTED = b": \tmark-%d\n", b": mark-%d\n"
"""A mark for bash: as a command it is printed with one blank, within quotes or a here-document it stays as it is."""

Tree = dict[str, Any]


class BatchGrammars:
    """Answers many `Parse`s. One a process."""

    def __init__(self) -> None:
        pool = ShellPool(1)  # never started: it knows where the programs are and how they are called
        self._shfmt, self._bash = pool._argv["shfmt"], pool._argv["bash"]
        self._rules = Rules(programs(), sensitive_paths())
        self._trees: dict[bytes, Tree | None] = {}
        self._printed: dict[bytes, bytes | None] = {}

    def analyse(self, texts: Sequence[str], shell: str = "bash") -> list[Analysis]:
        """Return the analysis of each text."""
        answers: list[Analysis | None] = [None] * len(texts)
        asking: dict[int, Asking[Analysis]] = {
            i: analyze_shell(Asked(text.encode(), ShellContext(shell)), self._rules) for i, text in enumerate(texts)
        }
        parsed: dict[int, Parsed | None] = dict.fromkeys(asking)
        while asking:
            requests: dict[int, Parse] = {}
            for i, answer in parsed.items():
                try:
                    request = next(asking[i]) if answer is None else asking[i].send(answer)
                    while isinstance(request, Query):
                        request = asking[i].send(analyze_sql(request.text, queries.CONTEXT, Kind.QUERY))
                    requests[i] = request
                except StopIteration as done:
                    answers[i] = done.value
                    del asking[i]
            parsed = dict(zip(requests, self.parse([r.text for r in requests.values()]), strict=True))
        return [answer for answer in answers if answer is not None]

    def parse(self, texts: Sequence[bytes]) -> list[Parsed]:
        """Answer as `ShellPool.parse_here` would; of a text that bash refuses only that it is refused."""
        sources = [text + b"\n" for text in texts]
        printed = [self._printed[source] for source in self._pretty(sources)]
        wanted = [s for s, p in zip(sources, printed, strict=True) if p is not None]
        wanted += [p for s, p in zip(sources, printed, strict=True) if p is not None and p.strip() != s.strip()]
        self._read(wanted)
        answers: list[Parsed] = []
        for source, again in zip(sources, printed, strict=True):
            tree = self._trees[source] if again is not None else None
            if again is None or tree is None:
                answers.append(Parsed(error="1:1: refused"))
            else:
                same = again.strip() == source.strip()
                answers.append(Parsed(tree=tree, printed=again, printed_tree=tree if same else self._trees[again]))
        return answers

    def _pretty(self, sources: Sequence[bytes]) -> Sequence[bytes]:
        """Have bash read what is not known yet."""
        if len(self._printed) > KEPT:
            self._printed.clear()
        new = list(dict.fromkeys(s for s in sources if s not in self._printed))
        while new:
            together = new[:TOGETHER]
            text = b"".join(source + _PUT % i for i, source in enumerate(together))
            status, out, _ = _run(self._bash, text)
            done = 0
            for done, source in enumerate(together, 1):
                mine, mark, out = (b"\n" + out).partition(b"\n" + _PRINTED % (done - 1))
                if not mark:
                    # Refused; or a here-document without an end, which bash takes when nothing follows.
                    alone = _run(self._bash, source) if status == 0 or b"<<" in source else (1, b"", b"")
                    self._printed[source] = alone[1] if alone[0] == 0 else None
                    break
                self._printed[source] = mine.removeprefix(b"\n") + b"\n"
            new = new[done:]
        return sources

    def _read(self, sources: Sequence[bytes]) -> None:
        """Have shfmt read what is not known yet."""
        if len(self._trees) > KEPT:
            self._trees.clear()
        new = list(dict.fromkeys(s for s in sources if s not in self._trees))
        for first in range(0, len(new), TOGETHER):
            self._together(new[first : first + TOGETHER])

    def _together(self, sources: Sequence[bytes]) -> None:
        if not sources:
            return
        if len(sources) == 1:
            status, out, _ = _run(self._shfmt, sources[0])
            self._trees[sources[0]] = msgspec.json.decode(out) if status == 0 else None
            return
        text = bytearray()
        places: list[tuple[int, int]] = []
        for i, source in enumerate(sources):
            start = len(text)
            text += source if source.endswith(b"\n") else source + b"\n"
            places.append((start, len(text)))
            text += _MARK % i
        status, out, error = _run(self._shfmt, bytes(text))
        trees = _cut(msgspec.json.decode(out), places) if status == 0 else None
        if trees is not None:
            self._trees.update(zip(sources, trees, strict=True))
            return
        line = error.partition(b":")[0]
        culprit = _holder(text, places, int(line)) if status != 0 and line.isdigit() else None
        half = len(sources) // 2 if culprit is None else culprit
        for part in (
            (sources[:half], sources[half:]) if culprit is None else ([sources[half]], [*sources[:half], *sources[half + 1 :]])
        ):
            self._together(part)


def _cut(tree: Tree, places: Sequence[tuple[int, int]]) -> list[Tree] | None:
    """Return the trees of the texts, or None when a mark does not stand where it was put."""
    found: list[Tree] = []
    statements = iter(tree.get("Stmts") or ())
    for i, (start, end) in enumerate(places):
        mine: list[Tree] = []
        mark = (_MARK % i).strip().decode()
        for statement in statements:
            if _begins(statement) >= end:
                break
            mine.append(statement)
        else:
            return None
        if _begins(statement) != end or _only_word(statement) != mark:
            return None
        for one in mine:
            _shift(one, start)
        found.append({**tree, "Stmts": mine})
    return found


def _holder(text: bytearray, places: Sequence[tuple[int, int]], line: int) -> int | None:
    """Return the index of the text that the line is in."""
    offset = sum(len(one) + 1 for one in bytes(text).split(b"\n")[: line - 1])
    return next((i for i, (start, end) in enumerate(places) if start <= offset < end), None)


def _begins(node: Tree) -> int:
    return int((node.get("Pos") or {}).get("Offset", 0))


def _only_word(statement: Tree) -> str | None:
    call = statement.get("Cmd") or {}
    if (
        call.get("Type") != "CallExpr"
        or call.get("Assigns")
        or any(statement.get(k) for k in ("Redirs", "Negated", "Background"))
    ):
        return None
    words = call.get("Args") or ()
    parts = words[0]["Parts"] if len(words) == 1 else ()
    return parts[0].get("Value") if len(parts) == 1 and parts[0].get("Type") == "Lit" else None


def _shift(node: Any, by: int) -> None:
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            if "Line" in item:  # a position; an expansion has an Offset too
                item["Offset"] = item.get("Offset", 0) - by
            else:
                stack.extend(item.values())


def _run(argv: Sequence[str], text: bytes) -> tuple[int, bytes, bytes]:
    """Give a child a text; return its status, what it printed, and its complaint. The text is smaller than a pipe."""
    inward, outward, errors = os.pipe(), os.pipe(), os.memfd_create("errors", os.MFD_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, inward[0], 0), (os.POSIX_SPAWN_DUP2, outward[1], 1), (os.POSIX_SPAWN_DUP2, errors, 2)]
    pid = os.posix_spawn(argv[0], argv, {}, file_actions=actions)
    for fd in (inward[0], outward[1]):
        os.close(fd)
    try:
        os.write(inward[1], text)
    except BrokenPipeError:
        pass  # it gave up reading: its status tells why
    os.close(inward[1])
    out = bytearray()
    while chunk := os.read(outward[0], 1 << 18):
        out += chunk
    os.close(outward[0])
    complaint = os.pread(errors, 400, 0)
    os.close(errors)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), bytes(out), complaint
