"""Coverage-guided fuzzing of the SQL front: `python -m fuzz.coverage_sql --seconds 300` (needs atheris, which is no dependency).

libFuzzer mutates the labelled corpus, what clients send on connect and texts of the grammar, and keeps what reaches new lines
of `interlock.commands.sql`. Each text is analysed against the recorded catalog; what must hold of every answer is `check`.
Nothing is executed. A finding is an exception with the text, which libFuzzer also leaves in a folder that it names.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from fuzz.sql_texts import texts

DATA = Path(__file__).parents[1] / "data"
FIRST_WORDS = {
    b"DELETE": "delete",
    b"INSERT": "insert",
    b"UPDATE": "update",
    b"TRUNCATE": "truncate",
    b"DROP": "drop",
    b"GRANT": "grant",
    b"CALL": "call",
    b"DO": "do",
    b"COPY": "copy_",
}


def check(text: bytes) -> None:
    """Analyse a text, dressed and undressed, and raise AssertionError where the answers can't both be right."""
    from interlock.commands.model import SQL_VERBS, Analysis, Kind, SqlContext
    from interlock.commands.sql.analysis import analyze_sql
    from interlock.commands.sql.bounds import AUTOMATIC_BYTES, is_flat_insert
    from interlock.commands.sql.shape import shape

    def analysed(raw: bytes) -> Analysis:
        return analyze_sql(raw, SqlContext(catalog=_catalog()), Kind.QUERY)

    found = analysed(text)
    shape(text)
    assert found.unreadable is None or (not found.effects and found.sent is None)
    assert found.unreadable is not None or found.effects or found.opaque, "an empty list of effects means nothing"
    assert found.static == (found.sent is not None)
    assert found.sent is None or found.sent.encode() == text, "what is sent is what was classified"
    assert all(effect.verb in SQL_VERBS for effect in found.effects)
    assert all(0 <= part.start <= part.end <= len(text) for part in found.opaque), "offsets are bytes of the text"
    if found.unreadable is not None or len(text) > AUTOMATIC_BYTES - 64 or is_flat_insert(text.decode()):
        return
    for word, verb in FIRST_WORDS.items():
        if text.upper().startswith(word + b" ") and found.static:
            assert any(effect.verb.startswith(verb) for effect in found.effects), (word, found.effects)
    dressed = analysed(b"/* a /* b */ ; */ -- c\n" + text)
    assert dressed.effects == found.effects, "a comment changes what is done"
    if found.static:
        company = analysed(b"SELECT 1; " + text)
        assert company.statements == found.statements + 1
        told = {(effect.verb, effect.object) for effect in company.effects}
        assert {(e.verb, e.object) for e in found.effects if e.verb != "nothing"} <= told, "company hides an effect"


_kept: list[object] = []


def _catalog() -> object:
    from interlock.commands.sql.catalog import Catalog

    if not _kept:
        _kept.append(Catalog.from_rows(json.loads((DATA / "sql" / "catalog_rows.json").read_text())))
    return _kept[0]


def seeds(folder: Path) -> int:
    """Write the texts that libFuzzer starts from; return how many."""
    corpus = [
        json.loads(line)["text"]
        for name in ("corpora/sql_statements.jsonl", "sql/introspection.jsonl")
        for line in (DATA / name).read_text().splitlines()
    ]
    every = [*corpus, *texts(1, corpus, 500)]
    for number, text in enumerate(every):
        (folder / f"{number:04}").write_bytes(text.encode("utf-8", "surrogatepass")[:4096])
    return len(every)


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz.coverage_sql", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="0 takes a fresh one, which libFuzzer prints")
    chosen = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["interlock.commands.sql"]):
        import interlock.commands.sql.analysis  # noqa: F401 - imported here so that it is instrumented
    _catalog()
    folder = Path(tempfile.mkdtemp(prefix="coverage-sql-"))
    print(f"{seeds(folder)} texts to start from", flush=True)
    limits = ["-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={chosen.seconds}",
            f"-seed={chosen.seed}",
            *limits,
            f"-artifact_prefix={folder}/",
            str(folder),
        ],
        check,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
