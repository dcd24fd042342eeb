"""docs/policy.md says nothing that was not run, and its tables are those of the code.

`UPDATE_DOCS=1` writes the generated parts anew.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interlock.cli.main import build
from interlock.cli.policy import run_cases
from interlock.policy.assembly import assemble
from interlock.policy.document import Document
from interlock.policy.loader import load
from interlock.policy.reference import facts_table, schema_text

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "policy.md"
SCHEMA = DOCS / "reference" / "policy.schema.json"
EXAMPLE = re.compile(r"<!-- example: (.+?) -->\n```yaml\n(.*?)```", re.DOTALL)
FACTS = re.compile(
    r"(?<=<!-- facts: generated from interlock/policy/facts\.py by tests/policy/test_documentation\.py -->\n).*?(?=<!-- end)",
    re.DOTALL,
)
EXAMPLES = EXAMPLE.findall(PAGE.read_text())


def test_there_are_ten_worked_examples() -> None:
    assert [name for name, _ in EXAMPLES if name.isdigit()] == [str(i) for i in range(1, 11)]


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_every_example_loads_and_its_cases_pass(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(text)
    policy = load([path])
    own = [outcome for outcome in run_cases(policy) if outcome.case.place.startswith(str(path))]
    assert own
    assert [outcome.say() for outcome in own if not outcome.passed] == []
    if name.isdigit():
        assert [w for w in policy.warnings if " has no " in w] == []


def test_the_facts_table_is_that_of_the_code() -> None:
    page = PAGE.read_text()
    wanted = f"\n{facts_table()}\n\n"
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(FACTS.sub(lambda _: wanted, page))
    assert FACTS.search(PAGE.read_text())
    assert wanted in PAGE.read_text()


def test_the_schema_is_that_of_the_code() -> None:
    if os.environ.get("UPDATE_DOCS"):
        SCHEMA.write_text(schema_text())
    assert SCHEMA.read_text() == schema_text()
    schema = json.loads(SCHEMA.read_text())
    assert set(schema["properties"]) == {
        "version", "pack", "title", "floor", "mode", "packs", "access", "default", "rules", "cases"
    }  # fmt: skip


def test_the_error_that_the_page_shows_is_the_real_one() -> None:
    from interlock.errors import PolicyError

    head = "version: 1\npack: p\nrules:\n  - id: night\n    title: N\n    decide: deny\n"
    rule = head + '    when: effects.exists(e, e.vreb == "delete")\n'
    with pytest.raises(PolicyError) as caught:
        assemble([Document("policy/site.yaml", rule.encode())])
    shown = re.search(r"    policy/site\.yaml:7:.*?\^\n", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    assert [line.strip() for line in shown[0].strip().splitlines()] == [line.strip() for line in str(caught.value).splitlines()]


def test_the_explanation_that_the_page_shows_is_the_real_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("interlock.cli.explain.DEFAULT_CONFIG", tmp_path / "nope.yaml")
    monkeypatch.delenv("INTERLOCK_CONFIG", raising=False)
    found = re.search(r"<!-- explain: (.+?) -->\n((?:    .*\n|\n)+)", PAGE.read_text())
    assert found is not None
    shown = [line.strip() for line in found[2].splitlines() if line.strip()]
    words = ["explain", "--shell", found[1]]
    said = [line.strip() for line in CliRunner().invoke(build(words), words).stdout.splitlines() if line.strip()]
    assert shown == said[: len(shown)]
    assert len(shown) >= 5
