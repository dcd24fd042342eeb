"""What the pages say exists: reference pages are as the code is, commands, targets and links are real, decisions numbered."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from interlock.cli.main import VERBS, build

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    + [page for page in (ROOT / "tests").rglob("README.md") if "node_modules" not in page.parts]
)
ADRS = ROOT / "docs/adr"

LINK = re.compile(r"\]\(([^)\s]+)\)")
VERB = re.compile(r"(?:^|[\s`$(|;&])(?:\.venv/bin/)?interlock ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)")
TARGET = re.compile(r"(?:^|[\s`$(])make ([a-z][a-z-]*)")


def named(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yield (page, match) in what is written as code: fenced blocks and `spans`. Prose may use the words freely."""
    for page in PAGES:
        text = page.read_text()
        fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        for code in [line for block in fenced for line in block.splitlines()] + spans:
            for found in pattern.findall(code.split("   #")[0]):
                yield str(page.relative_to(ROOT)), found


def test_the_reference_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def command(verb: str) -> object:
    root = typer.main.get_command(build([verb]))
    return root.commands[verb]  # type: ignore[attr-defined]


def test_every_command_that_a_page_names_exists() -> None:
    groups = {verb: set(getattr(command(verb), "commands", ())) for verb in VERBS}
    found = set(named(VERB))
    assert len(found) > 15, "the pages name commands"
    wrong = []
    for page, words in found:
        verb, _, below = words.partition(" ")
        if verb not in groups or (groups[verb] and below and below not in groups[verb]):
            wrong.append(f"{page}: interlock {words}")
    assert not wrong


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = set(named(TARGET))
    assert found
    wrong = {f"{page}: make {target}" for page, target in found if target not in targets}
    assert wrong <= {"docs/threat-model.md: make install"}, "that one is what an agent might run"


def test_every_target_of_the_makefile_says_what_it_does_and_is_no_file() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))
    explained = set(re.findall(r"^([a-z][a-z-]*):[^\n]*## \S", text, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    assert targets == explained == phony


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text()):
        where, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / where) if where else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = [path.name[:4] for path in sorted(ADRS.glob("[0-9]*.md"))]
    assert numbers == [f"{n:04}" for n in range(1, len(numbers) + 1)]


def test_pages_speak_of_the_project_alone() -> None:
    private = re.compile(r"/work/|/root/|/home/(?!\w+/)")
    assert not [str(page) for page in PAGES if private.search(page.read_text())]


def test_every_property_of_approvals_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \| .+? \| (.+) \|$", (ROOT / "docs/properties.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 37))
    for number, tests in rows:
        named_tests = re.findall(r"`([^`]+\.py)::(test_\w+)`", tests)
        assert named_tests, f"property {number} names no test"
        for file, name in named_tests:
            text = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{file} has no {name}"
