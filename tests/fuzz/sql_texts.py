"""SQL texts for the differential fuzz: a grammar over the names of tests/data/sql/world.sql, and mutations of what it makes.

The grammar aims at where effects hide: DML in WITH, COPY and EXPLAIN ANALYZE, functions without parentheses, views that call,
triggers, cascades, operators and names through the search_path, conditions that leave nothing out. Everything follows from one
seed. Numbers stay small, so that no text is expensive. Knows nothing of what the analysis makes of a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random  # noqa: TID251 - seeded, so that a failure comes again


def sections(text: str) -> dict[str, tuple[str, ...]]:
    """Read the word lists: lines under headings in brackets."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if re.fullmatch(r"\[[a-z]+\]", line):
            name = line
        elif line and name:
            found.setdefault(name, []).append(line)
    return {heading: tuple(lines) for heading, lines in found.items()}


PLAIN = ("mix", "diary")
TABLES = (
    "mix diary mix diary t s leaf orders parted part1 parent child triggered defaulting checked indexed made ruled policed typed "
    "trail shadow.t public.t public.mix"
).split()
VIEWS = "v nested_view wide_view mv t_view triggered_view calling_view calling_view_below".split()
SYSTEM = "pg_class pg_catalog.pg_proc information_schema.tables pg_settings pg_authid pg_user pg_stats pg_locks".split()
COLUMNS = "id id id name name total ok token".split()
WORDS = sections((Path(__file__).parents[1] / "data" / "sql" / "fuzz_words.txt").read_text())
SAFE, LOUD, TRUTHS, FILTERS, SETTINGS, DEFINITIONS, OTHERS = WORDS.values()
AGGREGATES = (
    "count(*)",
    "max({})",
    "min({})",
    "json_agg({})",
    "array_agg({})",
    "string_agg({}::text, ',')",
    "count(DISTINCT {})",
)

_TOKEN = re.compile(
    r"\s+|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$|[A-Za-z_][A-Za-z_0-9$]*|[0-9]+|::|[<>=!|&+*/~@-]+|.", re.DOTALL
)


class Grammar:
    """Statements about the world, from one stream of random numbers."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._names = 0

    def statement(self) -> str:
        makers: Sequence[tuple[int, Callable[[], str]]] = (
            (30, lambda: self.select(2)),
            (8, lambda: self.insert(1)),
            (9, lambda: self.update(1)),
            (8, lambda: self.delete(1)),
            (3, lambda: self.merge(1)),
            (14, lambda: self.filled(self.random.choice(DEFINITIONS))),
            (4, lambda: self.random.choice(SETTINGS)),
            (3, lambda: self.random.choice(OTHERS)),
            (12, self.wrapped),
        )
        text = self.random.choices([m for _, m in makers], [w for w, _ in makers])[0]()
        return text if self.random.random() < 0.9 else f"{text}; {self.statement()}"

    def wrapped(self) -> str:
        inner = self.random.choice((self.select, self.insert, self.update, self.delete))(1)
        return self.random.choice(
            (
                f"EXPLAIN {inner}",
                f"EXPLAIN ANALYZE {inner}",
                f"EXPLAIN (ANALYZE, COSTS off) {inner}",
                f"EXPLAIN (ANALYZE false) {inner}",
                f"PREPARE p AS {inner}",
                f"PREPARE p AS {inner}; EXECUTE p",
                f"DECLARE c CURSOR FOR {self.select(1)}; FETCH ALL FROM c",
                f"DECLARE c SCROLL CURSOR WITH HOLD FOR {self.select(1)}",
                f"COPY ({self.returning(inner)}) TO STDOUT",
                f"COPY {self.relation()} TO STDOUT",
                f"COPY {self.random.choice(TABLES)} FROM STDIN",
                f"BEGIN; {inner}; COMMIT",
                f"WITH w AS ({self.returning(inner)}) SELECT count(*) FROM w",
                f"CREATE TEMP TABLE n AS {self.select(1)}; SELECT * FROM n",
                f"EXPLAIN ANALYZE CREATE TABLE n AS {self.select(1)}",
                f"PREPARE p AS {inner}; EXPLAIN ANALYZE EXECUTE p",
                f"SET search_path = shadow, public; {inner}",
                f"SAVEPOINT a; {inner}; ROLLBACK TO a",
                "CREATE TABLE n AS EXECUTE p",
                "DECLARE c CURSOR FOR SELECT * FROM mix FOR UPDATE; FETCH c; DELETE FROM mix WHERE CURRENT OF c",
                "MOVE ALL IN c",
            )
        )

    def returning(self, text: str) -> str:
        return text if text.startswith(("SELECT", "WITH", "VALUES", "TABLE")) or "RETURNING" in text else f"{text} RETURNING *"

    def filled(self, template: str) -> str:
        self._names += 1
        text = template.replace("{k}", str(self._names))
        if "{select}" in text:
            text = text.replace("{select}", self.select(1))
        return text.replace("{where}", self.where()) if "{where}" in text else text

    def relation(self) -> str:
        return self.random.choice(self.random.choices((TABLES, VIEWS, SYSTEM, PLAIN), (4, 2, 1, 5))[0])

    def select(self, depth: int) -> str:
        roll = self.random.random()
        if depth > 0 and roll < 0.14:
            inner = self.random.choice((self.select, self.insert, self.update, self.delete))(depth - 1)
            name = self.random.choice(("w", "mix", "x"))
            return f"WITH {name} AS ({self.returning(inner)}) {self.select(depth - 1)}"
        if depth > 0 and roll < 0.20:
            operation = self.random.choice(("UNION ALL", "UNION", "EXCEPT", "INTERSECT"))
            return f"{self.plain(depth - 1)} {operation} {self.plain(depth - 1)}"
        if roll < 0.23:
            return f"TABLE {self.relation()}"
        return self.plain(depth)

    def plain(self, depth: int) -> str:
        chance = self.random.random
        words = ["SELECT"]
        if chance() < 0.06:
            words.append("DISTINCT")
        words.append(
            self.random.choice(
                ("*", "*", self.expression(depth), f"{self.expression(depth)} AS y", self.aggregate(), "token", "mix.*", "1")
            )
        )
        if chance() < 0.03:
            words.append(f"INTO {self.random.choice(('', 'TEMP '))}made_{self.random.randrange(9)}")
        if chance() < 0.93:
            words.append("FROM " + self.source(depth))
        if chance() < 0.55:
            words.append("WHERE " + self.condition(depth))
        if chance() < 0.05:
            words.append(f"GROUP BY {self.random.choice(COLUMNS)}")
        if chance() < 0.10:
            words.append(f"ORDER BY {self.random.choice(('1', self.expression(0), 'id DESC'))}")
        if chance() < 0.20:
            words.append(
                self.random.choice(
                    (
                        "LIMIT 3",
                        "LIMIT 100",
                        "LIMIT ALL",
                        "LIMIT 1 + 1",
                        "OFFSET 1",
                        "FETCH FIRST 2 ROWS ONLY",
                        "LIMIT 3 OFFSET 1",
                    )
                )
            )
        if chance() < 0.06:
            words.append(self.random.choice(("FOR UPDATE", "FOR SHARE", "FOR NO KEY UPDATE SKIP LOCKED", "FOR KEY SHARE")))
        return " ".join(words)

    def source(self, depth: int) -> str:
        chance = self.random.random()
        relation = self.relation()
        if depth > 0 and chance < 0.10:
            return f"({self.select(depth - 1)}) q"
        if chance < 0.24:
            join = self.random.choice(
                (
                    "JOIN {} o ON {}",
                    "LEFT JOIN {} o USING (id)",
                    ", {} o",
                    "CROSS JOIN {} o",
                    "NATURAL JOIN {}",
                    "FULL JOIN {} o ON true",
                )
            )
            return f"{relation} m " + join.format(
                self.relation(), self.random.choice(("o.id = m.id", "true", "m.id = 1", "o.id > m.id"))
            )
        if chance < 0.30:
            return self.random.choice(
                (
                    "generate_series(1, 5) id",
                    "unnest(ARRAY[1, 2]) id",
                    f"{relation}, LATERAL (SELECT {self.expression(0)}) l",
                    "writes() id",
                    "ROWS FROM (writes(), pg_sleep(0)) r",
                    f"{relation} TABLESAMPLE system (100)",
                    "json_to_recordset('[]') AS x(id int)",
                )
            )
        return relation if chance < 0.7 else f"{relation} {self.random.choice(('m', 'AS m', 'AS mix'))}"

    def where(self) -> str:
        return self.random.choice(self.random.choices((TRUTHS, FILTERS), (2, 3))[0])

    def condition(self, depth: int) -> str:
        roll = self.random.random()
        if depth > 0 and roll < 0.08:
            return f"{self.random.choice(COLUMNS)} IN ({self.select(depth - 1)})"
        if depth > 0 and roll < 0.13:
            return f"{self.random.choice(('', 'NOT '))}EXISTS ({self.select(depth - 1)})"
        if roll < 0.20:
            return (
                f"{self.expression(depth)} {self.random.choice(('=', '<>', '>', 'IS DISTINCT FROM', '~~'))} {self.expression(0)}"
            )
        if roll < 0.34:
            return f"{self.where()} {self.random.choice(('AND', 'OR'))} {self.where()}"
        if roll < 0.38:
            return f"NOT ({self.where()})"
        return self.where()

    def expression(self, depth: int) -> str:
        roll = self.random.random()
        if roll < 0.35:
            return self.random.choice(COLUMNS)
        if roll < 0.45:
            return self.random.choice(
                ("1", "'a'", "NULL", "true", "'{}'::jsonb", "-2", "$$x$$", "E'a\\tb'", "DEFAULT" if depth < 0 else "0")
            )
        if roll < 0.60:
            return self._hole(self.random.choice(SAFE))
        if roll < 0.74:
            return self._hole(self.random.choice(LOUD))
        if depth > 0 and roll < 0.82:
            return f"({self.select(depth - 1)})"
        return self.random.choice(
            (
                "m.name",
                "m.extra",
                "mix.extra",
                "(mix).extra",
                "(mix).name",
                "m.writes",
                "(m).id",
                "id + 1",
                "id = 1",
                "name || 'x'",
                "id::text",
                "name::mood",
                "CASE id WHEN 1 THEN 2 END",
                f"CASE WHEN {self.where()} THEN {self._hole(self.random.choice(LOUD))} ELSE 0 END",
                "ARRAY(SELECT token FROM mix)",
                "mix",
                "ROW(id, name)",
                "row_to_json(mix)",
                "mix::text",
                "id IS NULL",
                "sum(total) OVER (PARTITION BY name)",
                "array_length(ARRAY[1], 1)",
                "(SELECT string_agg(token, ',') FROM diary)",
                "(SELECT max(token) FROM diary)",
            )
        )

    def _hole(self, template: str) -> str:
        while "{}" in template:
            template = template.replace("{}", self.random.choice((*COLUMNS, "1", "'a'")), 1)
        return template

    def aggregate(self) -> str:
        return self._hole(self.random.choice(AGGREGATES))

    def _tail(self) -> str:
        return self.random.choice(("", "", "", " RETURNING *", " RETURNING token", f" RETURNING {self.expression(0)}"))

    def target(self) -> str:
        return self.random.choice(self.random.choices((TABLES, VIEWS, PLAIN), (5, 2, 4))[0])

    def insert(self, depth: int) -> str:
        target = self.target()
        columns = self.random.choice(("", " (id)", " (id, name)", " (name)"))
        number = {" (id)": 1, " (name)": 1, " (id, name)": 2}.get(columns, self.random.randrange(1, 4))
        row = ", ".join([str(self.random.randrange(200, 300)), *(self.expression(0) for _ in range(3))][:number])
        source = self.random.choice(
            (
                f"VALUES ({row})",
                f"VALUES ({row})",
                "DEFAULT VALUES" if not columns else f"VALUES ({row})",
                self.select(depth - 1) if depth > 0 else f"SELECT {row}",
            )
        )
        conflict = self.random.choice(("", "", "", " ON CONFLICT DO NOTHING", " ON CONFLICT (id) DO UPDATE SET name = 'c'"))
        return f"INSERT INTO {target}{columns} {source}{conflict}{self._tail()}"

    def update(self, depth: int) -> str:
        target = self.target()
        value = self.random.choice(
            (
                f"name = {self.expression(depth)}",
                "total = 3",
                "id = id + 1",
                "(id, name) = (SELECT 1, 'a')",
                "id = 1",
                "name = upper(name)",
                "total = DEFAULT",
                "id = DEFAULT",
            )
        )
        source = self.random.choice(("", "", "", f" FROM {self.relation()} o", f" FROM {self.relation()} o JOIN mix ON true"))
        where = f" WHERE {self.condition(depth)}" if self.random.random() < 0.75 else ""
        return f"UPDATE {target} SET {value}{source}{where}{self._tail()}"

    def delete(self, depth: int) -> str:
        source = self.random.choice(("", "", "", f" USING {self.relation()} o"))
        where = f" WHERE {self.condition(depth)}" if self.random.random() < 0.75 else ""
        return f"DELETE FROM {self.random.choice(('', '', 'ONLY '))}{self.target()}{source}{where}{self._tail()}"

    def merge(self, depth: int) -> str:
        action = self.random.choice(
            (
                "WHEN MATCHED THEN DELETE",
                "WHEN MATCHED THEN UPDATE SET name = 'm'",
                "WHEN NOT MATCHED THEN INSERT VALUES (o.id)",
                "WHEN MATCHED AND o.id = 1 THEN DELETE WHEN NOT MATCHED THEN DO NOTHING",
                "WHEN MATCHED THEN UPDATE SET id = writes()",
            )
        )
        condition = self.random.choice(("m.id = o.id", "true", "m.id = 1", self.where()))
        return f"MERGE INTO {self.target()} m USING {self.relation()} o ON {condition} {action}"


class Mutator:
    """Small damages to texts, token by token; most no longer parse, the rest nobody would have written."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def mutate(self, text: str, other: str) -> str:
        tokens = _TOKEN.findall(text)
        donor = [token for token in _TOKEN.findall(other) if not token.isspace()] or ["1"]
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            if not tokens:
                break
            at = self.random.randrange(len(tokens))
            match self.random.randrange(8):
                case 0:
                    del tokens[at]
                case 1:
                    tokens.insert(at, tokens[self.random.randrange(len(tokens))])
                case 2:
                    tokens[at] = self.random.choice(donor)
                case 3:
                    tokens[at] = self._renamed(tokens[at])
                case 4:
                    tokens.insert(at, self.random.choice((" /* x */ ", "\n-- y\n", "\t", " /*a/*b*/c*/ ", "\r\n")))
                case 5:
                    tokens[at] = "".join(self.random.choice((c.lower(), c.upper())) for c in tokens[at])
                case 6:
                    tokens[at] = f"({tokens[at]})"
                case _:
                    run = self.random.randrange(1, 6)
                    start = self.random.randrange(len(donor))
                    tokens[at:at] = [" ", " ".join(donor[start : start + run]), " "]
        return "".join(tokens)

    def _renamed(self, token: str) -> str:
        if token.isdigit():
            return str(self.random.randrange(12))
        if token.replace("_", "").isalnum():
            return self.random.choice((*TABLES, *VIEWS, *COLUMNS, "writes", "public", "shadow", f'"{token}"'))
        return token


def texts(seed: int, corpus: Sequence[str], count: int) -> Iterator[str]:
    """Yield `count` texts: about two thirds from the grammar, the rest mutations of those and of the corpus."""
    random = Random(seed)
    grammar, mutator = Grammar(random), Mutator(random)
    for _ in range(count):
        text = grammar.statement()
        roll = random.random()
        if roll < 0.24:
            text = mutator.mutate(text, grammar.statement())
        elif roll < 0.34:
            text = mutator.mutate(random.choice(corpus), text)
        elif roll < 0.36:
            text = random.choice(corpus)
        yield text
