"""The patches of `make sabotage` fit the code as it is: found out here in a second, and there only after minutes."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from sabotage.__main__ import HERE, ROOT, Patch

PATCHES = [Patch.read(path) for path in sorted(HERE.glob("*.toml"))]


@cache
def defined(file: Path) -> frozenset[str]:
    """Return the tests of a file as pytest names them, without their parameters."""
    functions, found = ast.FunctionDef | ast.AsyncFunctionDef, set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, functions):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, functions)}
    return frozenset(found)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_a_patch_changes_one_line_and_names_a_test_that_exists(patch: Patch) -> None:
    assert (ROOT / patch.file).read_text().count(patch.old) == 1
    assert patch.new != patch.old
    if not patch.demo:
        file, _, name = patch.test.partition("::")
        assert name.partition("[")[0] in defined(ROOT / file)
