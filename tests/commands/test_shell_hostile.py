"""Texts made to hurt the parser, and children that misbehave: a quick opaque answer, and the pool lives on."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.commands.analyzer import Analyzer
from interlock.commands.model import Command, HeldInput, Kind, ShellContext, SqlContext, Stdin, Wire
from interlock.commands.pool import ShellPool
from interlock.commands.shell import characters
from interlock.commands.shell.analysis import Asked, analyze_shell
from interlock.commands.shell.grammars import Parse, Parsed
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.catalog import Catalog
from interlock.commands.sql_child import SqlChild
from interlock.errors import ConfigError

HOSTILE = {
    "nested if, 15 KB": b"if a; then " * 1000 + b"b; " + b"fi; " * 1000,
    "nested if, 36 KB": b"if a; then " * 2400 + b"b; " + b"fi; " * 2400,
    "500 nested substitutions": b"echo " + b"$(" * 500 + b"x" + b")" * 500,
    "500 nested subshells": b"(" * 500 + b" ls " + b")" * 500,
    "many words": b"echo " + b"x " * 9000,
    "many commands": b"ls;" * 5000,
    "one-megabyte line": b"echo " + b"A" * (1 << 20),
    "deep parameter": b"echo " + b"${x:-" * 800 + b"}" * 800,
    "deep backquotes": b"echo " + b"`" * 1001,
    "arithmetic tower": b"echo $((" + b"1+(" * 1500 + b"1" + b")" * 1500 + b"))",
}


def command(text: bytes, **more: object) -> Command:
    return Command(Wire.SSH, Kind.EXEC, text, context=ShellContext("bash"), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_text_is_answered_within_bounds_and_the_pool_lives(name: str) -> None:
    pool = ShellPool(1)
    analyzer = Analyzer(pool)
    await analyzer.start()
    conversations: list[int] = []
    original = pool.parse_here

    def counted(request: Parse) -> Parsed:
        conversations.append(len(request.text))
        return original(request)

    pool.parse_here = counted  # type: ignore[method-assign]
    try:
        analysis = await analyzer.classify(command(HOSTILE[name]))
        assert analysis.unreadable is not None or analysis.opaque
        assert analysis.sent is None
        # Each conversation ends by itself within the pool's limits (time, CPU, memory, output); there is one and one retry,
        # and none at all about a text that is too large to classify.
        assert len(conversations) <= (2 if len(HOSTILE[name]) <= characters.MAX_CLASSIFIED else 0)
        after = await pool.parse(Parse(b"ls -la"))
        assert after.failure in ("", "parser-limit")
        assert (await _static(analyzer, b"uptime")).sent == "'uptime'"
    finally:
        await analyzer.close()


async def _static(analyzer: Analyzer, text: bytes):
    """Ask until the machine had time for it: a limit is an answer too, and never cached."""
    for _ in range(20):
        analysis = await analyzer.classify(command(text))
        if not any(o.reason.startswith("parser-") for o in analysis.opaque):
            return analysis
    raise AssertionError("the pool never came back")


async def test_a_long_text_is_analysed_beside_the_event_loop(monkeypatch) -> None:
    analyzer = Analyzer(ShellPool(1, wall=10))
    await analyzer.start()
    where: set[str] = set()
    evaluate = analyzer._rules.evaluate
    try:
        monkeypatch.setattr(
            analyzer._rules, "evaluate", lambda argv, place: where.add(threading.current_thread().name) or evaluate(argv, place)
        )
        assert (await analyzer.classify(command(b"cat a"))).static
        assert where == {threading.current_thread().name}
        where.clear()
        assert (await analyzer.classify(command(b"cat" + b" a" * 300))).static
        assert where
        assert threading.current_thread().name not in where
        monkeypatch.setattr(analyzer._rules, "evaluate", lambda argv, place: 1 / 0)
        assert [o.reason for o in (await analyzer.classify(command(b"cat" + b" b" * 300))).opaque] == ["parser-crash"]
    finally:
        await analyzer.close()
    assert [o.reason for o in (await analyzer.classify(command(b"cat" + b" c" * 300))).opaque] == ["pool-closed"]


async def test_output_beyond_the_bound_is_a_limit_not_memory() -> None:
    pool = ShellPool(1, wall=60)
    await pool.start()
    try:
        answer = await pool.parse(Parse(HOSTILE["nested if, 15 KB"]))
        assert answer.failure == "parser-limit"
        assert answer.detail in (
            "output",
            "shfmt ended with status -9",
            "shfmt ended with status 2",
            "shfmt ended with status -24",
        )
    finally:
        await pool.close()


async def test_killed_children_are_replaced() -> None:
    pool = ShellPool(2, wall=10)
    await pool.start()
    try:
        for ready in pool._ready.values():
            for child in ready:
                child.process.kill()
        answers = await asyncio.gather(*(pool.parse(Parse(b"ls")) for _ in range(6)))
        assert all(not a.failure or a.failure.startswith("parser-") for a in answers)
        assert (await pool.parse(Parse(b"ls"))).failure == ""
    finally:
        await pool.close()


async def test_a_child_that_never_answers_is_a_limit() -> None:
    pool = ShellPool(1, wall=0.2)
    await pool.start()
    try:
        pool._argv["shfmt"] = ["/bin/sleep", "60"]
        while pool._ready["shfmt"]:
            pool._ready["shfmt"].pop().kill()
        answer = await pool.parse(Parse(b"ls"))
        assert answer == Parsed(failure="parser-limit")
        assert answer.detail == "time"
    finally:
        await pool.close()


async def test_a_machine_without_the_grammars_refuses_to_start() -> None:
    pool = ShellPool(1)
    pool._argv["shfmt"] = ["/bin/false"]
    with pytest.raises(ConfigError):
        await pool.start()
    assert (await pool.parse(Parse(b"ls"))).failure == "pool-closed"


async def test_answers_are_cached_by_everything_that_changes_them() -> None:
    analyzer = Analyzer(ShellPool(1, wall=10))
    await analyzer.start()
    try:
        plain = command(b"cat notes")
        assert analyzer.classify_now(plain) is None
        first = await analyzer.classify(plain)
        assert analyzer.classify_now(plain) is first
        fish = Command(Wire.SSH, Kind.EXEC, b"cat notes", context=ShellContext("fish"))
        assert analyzer.classify_now(fish) is None
        assert [o.reason for o in (await analyzer.classify(fish)).opaque] == ["foreign-shell"]
        for shell in ("posix", "unknown", "dash"):
            assert (await analyzer.classify(Command(Wire.SSH, Kind.EXEC, b"cat notes", context=ShellContext(shell)))).static
        elsewhere = command(b"cat notes", cwd="/etc")
        assert {e.object for e in (await analyzer.classify(elsewhere)).effects} == {"/etc/notes"}
        with_env = command(b"cat notes", env=(("LD_PRELOAD", "/tmp/x.so"),))
        assert [o.reason for o in (await analyzer.classify(with_env)).opaque] == ["environment"]
        quiet = command(b"cat notes", env=(("LANG", "en_US.UTF-8"), ("TERM", "xterm")))
        assert (await analyzer.classify(quiet)).static
        for number in range(5000):
            analyzer._keep(number, plain, first)
        assert len(analyzer._cache) <= 4096
    finally:
        await analyzer.close()


async def test_sql_is_answered_at_once_when_small_and_by_a_child_when_large() -> None:
    analyzer = Analyzer(ShellPool(1, wall=10))
    await analyzer.start()
    try:
        small = Command(Wire.POSTGRES, Kind.QUERY, b"select 1", context=SqlContext())
        found = analyzer.classify_now(small)
        assert found is not None
        assert analyzer.classify_now(small) is found
        rows = b",".join(b"(1,'x')" for _ in range(3000))
        large = Command(Wire.POSTGRES, Kind.QUERY, b"insert into t values " + rows, context=SqlContext(assume_tables=True))
        assert analyzer.classify_now(large) is None
        assert [e.verb for e in (await analyzer.classify(large)).effects] == ["insert"]
    finally:
        await analyzer.close()


async def test_sql_that_kills_its_parser_is_opaque_and_the_next_one_is_answered() -> None:
    analyzer = Analyzer(ShellPool(1, wall=10))
    analyzer._sql._wall = 60  # a busy machine is no limit
    await analyzer.start()
    try:
        deep = Command(Wire.POSTGRES, Kind.QUERY, b"select " + b"1+" * 60_000 + b"1", context=SqlContext())
        answer = await analyzer.classify(deep)
        assert answer.opaque or answer.unreadable
        rows = b",".join(b"(1,'x')" for _ in range(3000))
        large = Command(Wire.POSTGRES, Kind.QUERY, b"insert into t values " + rows, context=SqlContext(assume_tables=True))
        child = analyzer._sql
        assert (await analyzer.classify(large)).opaque == ()
        assert child._child.begin(), "it lives"
        child._child.kill()
        again = Command(Wire.POSTGRES, Kind.QUERY, large.text + b" ", context=SqlContext(assume_tables=True))
        assert [o.reason for o in (await analyzer.classify(again)).opaque] in ([], ["parser-crash"])
        assert (await analyzer.classify(again)).opaque == ()
    finally:
        await analyzer.close()


async def test_held_input_of_a_shell_is_part_of_the_analysis() -> None:
    analyzer = Analyzer(ShellPool(1, wall=10))
    await analyzer.start()
    try:
        asked = command(b"bash -s")
        first = await analyzer.classify(asked)
        assert first.stdin is Stdin.CODE
        assert not first.static
        held = await analyzer.classify(asked.with_stdin(HeldInput(b"rm -rf /srv\n")))
        assert held.static
        assert [(e.verb, e.object, e.origin) for e in held.effects if e.verb == "delete"] == [("delete", "/srv", "stdin")]
        other = await analyzer.classify(asked.with_stdin(HeldInput(b"uptime\n")))
        assert {e.verb for e in other.effects} == {"execute", "read"}
        broken = await analyzer.classify(asked.with_stdin(HeldInput(b"\xff\xfe")))
        assert broken.opaque
        assert broken.unreadable is None
    finally:
        await analyzer.close()


async def test_a_closed_analyzer_answers_with_a_refusal_to_know() -> None:
    analyzer = Analyzer(ShellPool(1))
    await analyzer.start()
    await analyzer.close()
    await analyzer.close()
    answer = await analyzer.classify(command(b"ls"))
    assert [o.reason for o in answer.opaque] == ["pool-closed"]


async def test_a_busy_machine_gets_a_second_try_and_a_hostile_text_does_not() -> None:
    pool = ShellPool(1, wall=0.3)
    await pool.start()
    asked: list[bytes] = []
    original = pool.parse_here

    def counted(request: Parse) -> Parsed:
        asked.append(request.text)
        return Parsed(failure="parser-limit", detail="time") if len(asked) == 1 else original(request)

    try:
        pool.parse_here = counted  # type: ignore[method-assign]
        await pool.parse(Parse(b"ls"))
        assert asked == [b"ls", b"ls"]
        pool.parse_here = original  # type: ignore[method-assign]
        pool._wall = 8
        answer = await pool.parse(Parse(HOSTILE["nested if, 36 KB"]))
        assert answer.failure == "parser-limit"
        assert answer.detail != "time"
    finally:
        await pool.close()


async def test_a_defect_of_the_analysis_is_opaque(monkeypatch) -> None:
    analyzer = Analyzer(ShellPool(1, wall=10))
    await analyzer.start()
    try:
        monkeypatch.setattr(analyzer._rules, "evaluate", lambda argv, place: 1 / 0)
        answer = await analyzer.classify(command(b"uptime"))
        assert [o.reason for o in answer.opaque] == ["parser-crash"]
        assert answer.sent is None
    finally:
        await analyzer.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 50) | st.sampled_from(["", "a", "Lit", "&&", "rm", "<<", "$x"]),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                """Type Cmd Stmts Args Parts Value Redirs Op Word Hdoc X Y Cond Then Else Loop Items Patterns Assigns Name
                N Pos Offset""".split()
            ),
            below,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(tree=st.dictionaries(st.sampled_from(["Type", "Stmts", "Last"]), JSON, max_size=3), same=st.booleans())
def test_any_tree_a_broken_child_could_print_gives_an_answer(grammars, tree, same: bool) -> None:
    asking = analyze_shell(Asked(b"rm x; ls"), grammars.rules)
    next(asking)
    for _ in range(20):
        try:
            asking.send(Parsed(tree=tree, printed=b"rm x; ls", printed_tree=tree if same else None))
        except StopIteration as done:
            assert done.value.unreadable is not None or done.value.opaque or done.value.effects
            return


@given(st.binary(max_size=200))
def test_the_character_gate_answers_any_bytes(text: bytes) -> None:
    answer = characters.check(text)
    if isinstance(answer, str):
        assert answer.encode() == text
        assert all(c in "\n\t" or c.isprintable() for c in answer)
    else:
        assert answer.position is None or 0 <= answer.position <= len(text)


async def test_large_sql_is_analysed_against_the_catalog_that_the_child_keeps() -> None:
    rows = json.loads((Path(__file__).parents[1] / "data" / "sql" / "catalog_rows.json").read_text("utf-8"))
    catalog = Catalog.from_rows(rows)
    child = SqlChild(wall=60)
    try:
        text = b"select now() /* " + b"x" * 9000 + b" */"
        with_catalog, without = SqlContext(catalog=catalog), SqlContext()
        for context in (with_catalog, without, with_catalog):
            answer = await child.analyze(text, context, Kind.QUERY)
            assert answer == analyze_sql(text, context, Kind.QUERY)
    finally:
        await child.close()
    assert [o.reason for o in (await child.analyze(b"select 1", SqlContext(), Kind.QUERY)).opaque] == ["pool-closed"]
