"""Random pipelines in two wordings: what an agent sends through the proxy, and the same for a bare server.

In the second wording every statement that the proxy refuses is one that the server itself refuses with 42501: at Parse
(a table in a schema that nobody may use) or at Bind (a function that raises it while planning). Everything else is the
same bytes, so the answers must be the same, and so must the tables be.

Left out are strings of several statements that change names: after a failure nobody can know which of them happened.
"""

from __future__ import annotations

import random  # noqa: TID251  the caller seeds it
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.wire_client import WireClient, message

SCHEMA = """
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE denied (id int); CREATE TABLE late (id int); CREATE TABLE asked_yes (id int); CREATE TABLE asked_no (id int);
INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 12) i;
CREATE SCHEMA forbidden; CREATE TABLE forbidden.x (id int); REVOKE ALL ON SCHEMA forbidden FROM PUBLIC;
CREATE FUNCTION refuse() RETURNS int IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'refused'; END $$;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
"""
TABLES = ("t", "denied", "late", "asked_yes", "asked_no")
CONTENTS = "SELECT " + ", ".join(
    f"(SELECT coalesce(string_agg({name}::text, ' ' ORDER BY id), '') FROM {name})" for name in TABLES
)
"""One row that is everything in the tables."""
_AT_PARSE = "SELECT id FROM forbidden.x"
_NO_SQL = ("SELEKT 1", "SELECT id,, v FROM t")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as it is `asked` and as the `model` has it. `values` is how many parameters it takes."""

    asked: str
    model: str
    values: int = 0
    names: bool = False  # changes or uses names, so it stands alone in its string
    simple: bool = False  # EXECUTE of what may be refused: decided at Bind, where a server fails only at Execute
    copies: bool = False  # a COPY FROM STDIN: its data must follow
    query_only: bool = False  # refused when it is read, where a server in the extended protocol would only when it runs


@dataclass(slots=True)
class Pipeline:
    """Bytes for both, and the same in words for whoever reads a failure."""

    asked: bytearray = field(default_factory=bytearray)
    model: bytearray = field(default_factory=bytearray)
    words: list[str] = field(default_factory=list)
    flushing: bool = False  # a driver that waits for each answer and sends Flush, and hardly any Sync

    def add(self, words: str, asked: bytes, model: bytes | None = None) -> None:
        if self.flushing and words != "end":
            asked, model = asked + WireClient.FLUSH, None if model is None else model + WireClient.FLUSH
        self.asked += asked
        self.model += asked if model is None else model
        self.words.append(words)


class Generator:
    """Makes pipelines of one session. Names that it gave out earlier are used again, rightly and wrongly."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def pipeline(self) -> Pipeline:
        made = Pipeline(flushing=self._rng.random() < 0.15)
        steps: list[tuple[Callable[[Pipeline], None], int]] = [
            (self._query, 6), (self._unnamed, 8), (self._parse, 3), (self._bind, 4), (self._execute, 4), (self._describe, 1),
            (self._close, 1), (self._sync, 1 if made.flushing else 5), (self._flush, 1), (self._stray, 1), (self._call, 1),
            (self._formats, 2), (self._nothing, 1), (self._wrong, 1), (self._event, 3),
        ]  # fmt: skip
        for _ in range(self._rng.randint(1, 14)):
            [step] = self._rng.choices([s for s, _ in steps], [w for _, w in steps])
            step(made)
        made.add("end", WireClient.SYNC + WireClient.query(""))
        return made

    # -- messages ------------------------------------------------------------------------------------------------------

    def _query(self, made: Pipeline) -> None:
        statements = [self._statement()]
        if not statements[0].names and not statements[0].copies:
            while self._rng.random() < 0.25:
                more = self._statement(values=False)
                if not (more.names or more.copies or more.values):
                    statements.append(more)
        while any(s.values for s in statements):
            statements = [self._statement(values=False)]
        asked = "; ".join(s.asked for s in statements)
        # Refused is the whole string, before any of it: one failing statement stands for it. One that does not parse is an
        # error of both.
        refused = next((s.model for s in statements if s.model != s.asked), "")
        model = refused if refused and not any(s.asked in _NO_SQL for s in statements) else asked
        made.add(f"Q {asked}", WireClient.query(asked), WireClient.query(model))
        if any(s.copies for s in statements):
            self._copy_data(made)

    def _unnamed(self, made: Pipeline) -> None:
        statement = self._statement()
        if statement.simple or statement.query_only:
            return
        values = [b"%d" % self._rng.randint(0, 14)] * statement.values
        tail = WireClient.bind("", "", values)
        words = f"run {statement.asked} {values}"
        if self._rng.random() < 0.3:
            tail += WireClient.describe("P", "")
            words += " with Describe"
        for _ in range(1 if statement.copies else self._rng.choice([1, 1, 1, 2])):
            limit = 0 if statement.copies else self._rng.choice([0, 0, 0, 1, 3])
            tail += WireClient.execute("", limit)
            words += f" limit {limit}"
        if statement.copies:  # under a name of its own: nothing else must run it, for a COPY without its data ends the session
            tail = WireClient.parse("copy", statement.asked) + WireClient.bind("", "copy") + WireClient.execute("")
            made.add("run COPY", WireClient.close("S", "copy") + tail)
            self._copy_data(made)
            return
        made.add(words, WireClient.parse("", statement.asked) + tail, WireClient.parse("", statement.model) + tail)

    def _parse(self, made: Pipeline) -> None:
        name, statement = self._rng.choice(["s1", "s2", "s3", ""]), self._statement()
        if statement.copies or statement.query_only:
            return
        made.add(f"P {name} {statement.asked}", WireClient.parse(name, statement.asked), WireClient.parse(name, statement.model))

    def _bind(self, made: Pipeline) -> None:
        portal, name = self._rng.choice(["q1", "q2", ""]), self._rng.choice(["s1", "s2", "s3", "p1", ""])
        values = [b"%d" % self._rng.randint(0, 14)] * self._rng.choice([0, 1, 1])
        made.add(f"B {portal} {name} {values}", WireClient.bind(portal, name, values))
        if self._rng.random() < 0.6:
            made.add(f"E {portal}", WireClient.execute(portal, self._rng.choice([0, 0, 2])))

    def _execute(self, made: Pipeline) -> None:
        portal, limit = self._rng.choice(["q1", "q2", "c1"]), self._rng.choice([0, 1, 3])
        made.add(f"E {portal} {limit}", WireClient.execute(portal, limit))

    def _formats(self, made: Pipeline) -> None:
        """Values and answers in binary form, rightly and wrongly."""
        codes, values = self._rng.choice(
            [((1,), [struct.pack("!i", 5)]), ((1,), [b"5"]), ((), [None]), ((0,), [b"5"]), ((1,), []), ((0, 1), [b"5"])]
        )
        answers = self._rng.choice([(), (1,), (0,), (1, 1), (1, 1, 1), (2,)])
        text = self._rng.choice(
            ["SELECT id, v FROM t WHERE id = $1", "SELECT $1::int + 1 AS sum", "SELECT id FROM t ORDER BY id"]
        )
        bind = b"\0\0" + struct.pack(f"!H{len(codes)}hH", len(codes), *codes, len(values))
        bind += b"".join(struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v for v in values)
        bind += struct.pack(f"!H{len(answers)}h", len(answers), *answers)
        tail = message(b"B", bind) + WireClient.describe("P", "") + WireClient.execute("", self._rng.choice([0, 2]))
        made.add(f"run {text} with codes {codes} for {values}, answers in {answers}", WireClient.parse("", text) + tail)

    def _wrong(self, made: Pipeline) -> None:
        """Whole messages that ask for what there is not: errors, and no statement has run."""
        words, wrong = self._rng.choice([
            ("D of neither", WireClient.describe("X", "s1")), ("C of neither", WireClient.close("Q", "")),
            ("D of a name that is not UTF-8", message(b"D", b"S\xff\0")),
            ("E of a name that is not UTF-8", message(b"E", b"\xe2\x28\xa1\0" + bytes(4))),
        ])  # fmt: skip
        made.add(words, wrong)

    def _event(self, made: Pipeline) -> None:
        """Listen and notify, in one transaction or in two, before a Sync that may deliver."""
        channel, payload = self._rng.choice(["here", "there"]), self._rng.choice(["", ", 'one'", ", 'two'"])
        texts = [f"LISTEN {channel}", *[f"NOTIFY {channel}{payload}"] * self._rng.randint(1, 2)]
        if self._rng.random() < 0.3:
            texts.reverse()
        if self._rng.random() < 0.5:
            text = "; ".join(texts)
            made.add(f"Q {text}", WireClient.query(text))
        else:
            made.add(f"run {texts}, S", b"".join(WireClient.extended(text) for text in texts) + WireClient.SYNC)

    def _nothing(self, made: Pipeline) -> None:
        """A text without a statement, which has an answer of its own."""
        text = self._rng.choice(["", ";", "-- nothing", " /* at all */ "])
        made.add(f"run {text!r}", WireClient.parse("", text) + WireClient.bind("", "") + WireClient.execute(""))

    def _describe(self, made: Pipeline) -> None:
        of, name = self._rng.choice([("S", "s1"), ("S", "s2"), ("S", ""), ("P", "q1"), ("P", ""), ("S", "p1")])
        made.add(f"D {of} {name}", WireClient.describe(of, name))

    def _close(self, made: Pipeline) -> None:
        of, name = self._rng.choice([("S", "s1"), ("S", "s2"), ("S", "p1"), ("S", ""), ("P", "q1"), ("P", "c1"), ("S", "nobody")])
        made.add(f"C {of} {name}", WireClient.close(of, name))

    def _sync(self, made: Pipeline) -> None:
        made.add("S", WireClient.SYNC)

    def _flush(self, made: Pipeline) -> None:
        made.add("H", WireClient.FLUSH)

    def _stray(self, made: Pipeline) -> None:
        """CopyData when nothing copies: a server drops it."""
        made.add("stray copy", message(b"d", b"1\tstray\n") + message(b"c"))

    def _call(self, made: Pipeline) -> None:
        """A FunctionCall: never offered here. A server refuses one of a function that there is not."""
        lo_creat = message(b"F", struct.pack("!IHHiiH", 957, 0, 1, 4, 0x20000, 0))
        made.add("call lo_creat", lo_creat, message(b"F", bytes(10)))

    def _copy_data(self, made: Pipeline) -> None:
        lines = b"".join(b"%d\tcopied\n" % self._rng.randint(1, 40) for _ in range(self._rng.randint(0, 3)))
        end = self._rng.choice([message(b"c"), message(b"c"), message(b"f", b"changed my mind\0")])
        if self._rng.random() < 0.1:
            lines += b"no number\tx\n"
        made.add(f"copy data {lines!r} {end[:1]!r}", message(b"d", lines) + end)

    # -- statements ----------------------------------------------------------------------------------------------------

    def _statement(self, *, values: bool = True) -> Statement:
        kinds: list[tuple[Callable[[], Statement], int]] = [
            (self._read, 6), (self._write, 8), (self._transaction, 8), (self._error, 3), (self._refused, 9),
            (self._approved, 1), (self._sql_names, 4), (self._cursor, 4), (self._copy, 2), (self._setting, 1), (self._notify, 3),
        ]  # fmt: skip
        while True:
            [kind] = self._rng.choices([k for k, _ in kinds], [w for _, w in kinds])
            made = kind()
            if values or not made.values:
                return made

    def _same(self, text: str, values: int = 0, *, names: bool = False, simple: bool = False, copies: bool = False) -> Statement:
        return Statement(text, text, values, names, simple, copies)

    def _read(self) -> Statement:
        return self._same(*self._rng.choice([
            ("SELECT id, v FROM t ORDER BY id", 0), ("SELECT count(*) FROM t", 0), ("SELECT id FROM t WHERE id = $1", 1),
            ("SELECT $1::int + 1 AS sum", 1), ("SELECT id FROM t WHERE id > 3 ORDER BY id LIMIT 4", 0), ("SHOW search_path", 0),
        ]))  # fmt: skip

    def _write(self) -> Statement:
        key = self._rng.randint(1, 30)
        return self._same(*self._rng.choice([
            (f"INSERT INTO t VALUES ({key}, 'new')", 0), ("INSERT INTO t VALUES ($1, 'bound')", 1),
            (f"UPDATE t SET v = 'changed' WHERE id = {key}", 0), (f"DELETE FROM t WHERE id = {key} RETURNING v", 0),
            ("UPDATE t SET v = v || '+' WHERE id > $1", 1), (f"INSERT INTO t VALUES ({key}, 'up') ON CONFLICT DO NOTHING", 0),
        ]))  # fmt: skip

    def _transaction(self) -> Statement:
        point = self._rng.choice(["a", "b"])
        return self._same(self._rng.choice([
            "BEGIN", "BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "ROLLBACK", f"SAVEPOINT {point}", f"SAVEPOINT {point}",
            f"ROLLBACK TO {point}", f"ROLLBACK TO {point}", f"RELEASE {point}", "COMMIT AND CHAIN", "START TRANSACTION READ ONLY",
        ]))  # fmt: skip

    def _error(self) -> Statement:
        return self._same(
            self._rng.choice(["SELECT 1/0", "SELECT 1/(id - id) FROM t", "SELECT id FROM nowhere", "SELECT 'x'::int", *_NO_SQL])
        )

    def _refused(self) -> Statement:
        key = self._rng.randint(1, 30)
        into = f"INSERT INTO {self._rng.choice(['late', 'late', 'late', 'asked_no'])}"
        return self._rng.choice([
            Statement(f"INSERT INTO denied VALUES ({key})", _AT_PARSE),
            Statement("SELECT id FROM denied", _AT_PARSE),
            Statement(f"{into} SELECT 1 WHERE {key} > 0", f"{into} SELECT refuse() WHERE {key} > 0"),
            Statement(f"{into} SELECT 1 WHERE $1::int >= 0", f"{into} SELECT refuse() WHERE $1::int >= 0", 1),
            Statement("COPY denied TO STDOUT", "COPY forbidden.x TO STDOUT", query_only=True),
            Statement("COPY denied FROM STDIN", "COPY forbidden.x FROM STDIN", copies=True, query_only=True),
            Statement("PREPARE p1 AS SELECT id FROM denied", f"PREPARE p1 AS {_AT_PARSE}", names=True, query_only=True),
            Statement(
                "DECLARE c1 CURSOR WITH HOLD FOR SELECT id FROM denied", f"DECLARE c1 CURSOR WITH HOLD FOR {_AT_PARSE}",
                names=True, query_only=True,
            ),
        ])  # fmt: skip

    def _approved(self) -> Statement:
        return self._same(f"INSERT INTO asked_yes VALUES ({self._rng.randint(1, 30)})")

    def _sql_names(self) -> Statement:
        name = self._rng.choice(["p1", "p2", "s1"])
        return self._same(self._rng.choice([
            f"PREPARE {name} (int) AS SELECT $1 + 1 AS sum", f"PREPARE {name} (int) AS INSERT INTO t VALUES ($1, 'prepared')",
            f"EXECUTE {name} (7)", f"EXECUTE {name} (31)", f"EXECUTE {name} (7)", f"DEALLOCATE {name}", "DEALLOCATE ALL",
            "DISCARD ALL",
        ]), names=True, simple=name == "s1")  # fmt: skip

    def _cursor(self) -> Statement:
        name = self._rng.choice(["c1", "c1", "c2", "q1"])
        hold = self._rng.choice(["", "", " WITH HOLD"])
        return self._same(self._rng.choice([
            f"DECLARE {name} CURSOR{hold} FOR SELECT id FROM t ORDER BY id",
            f"DECLARE {name} CURSOR{hold} FOR SELECT id FROM t ORDER BY id",
            f"FETCH 2 FROM {name}", f"FETCH 2 FROM {name}", f"MOVE 1 FROM {name}", f"CLOSE {name}", "CLOSE ALL",
        ]), names=True)  # fmt: skip

    def _copy(self) -> Statement:
        if self._rng.random() < 0.4:
            return self._same("COPY (SELECT id FROM t ORDER BY id) TO STDOUT")
        return self._same("COPY t FROM STDIN", copies=True)

    def _notify(self) -> Statement:
        return self._same(*self._rng.choice([
            ("LISTEN here", 0), ("LISTEN there", 0), ("NOTIFY here, 'something'", 0), ("NOTIFY there", 0),
            ("SELECT pg_notify('here', 'value ' || $1)", 1), ("SELECT pg_notify('here', id::text) FROM t WHERE id < 3", 0),
            (self._rng.choice(["UNLISTEN *", "UNLISTEN here"]), 0),
        ]))  # fmt: skip

    def _setting(self) -> Statement:
        return self._same(
            self._rng.choice(["SET statement_timeout = '70s'", "SET LOCAL work_mem = '5MB'", "RESET ALL", "SHOW work_mem"])
        )
