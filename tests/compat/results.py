"""What one run of a check gives, how two runs are compared, and which differences have an explanation.

A check is anything with names and outcomes: a driver's test suite (test → passed, failed, skipped), a file of SQL (file →
all that psql printed), a client's script (step → what it saw). Pure.
"""

from __future__ import annotations

import difflib
import fnmatch
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Outcomes = Mapping[str, str]
"""Name of a test or step → its outcome: one word, or the whole text it printed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One name whose outcome is not the same both ways. `why` is its explanation, empty when there is none."""

    name: str
    direct: str
    through: str
    why: str = ""

    def shown(self) -> str:
        lines = difflib.unified_diff(
            self.direct.splitlines(), self.through.splitlines(), "direct", "through", lineterm="", n=2
        )  # fmt: skip
        body = "\n".join(f"    {line}" for line in list(lines)[:60])
        return f"  {self.name}: {self.why or 'NOT EXPLAINED'}\n{body}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both runs of one check."""

    check: str
    version: str
    direct: Outcomes
    through: Outcomes
    differences: Sequence[Difference]

    @property
    def unexplained(self) -> Sequence[Difference]:
        return [one for one in self.differences if not one.why]

    def summary(self) -> str:
        same = len({*self.direct, *self.through}) - len(self.differences)
        words = f"{self.check} {self.version}: direct {tally(self.direct)}; through {tally(self.through)}; {same} the same"
        return f"{words}, {len(self.differences)} differ, {len(self.unexplained)} of them not explained"


def tally(outcomes: Outcomes) -> str:
    """`310 passed, 2 failed`, or the number of texts where outcomes are no single words."""
    counted = Counter(
        outcome if outcome in ("passed", "failed", "skipped", "error") else "texts" for outcome in outcomes.values()
    )
    return ", ".join(f"{counted[word]} {word}" for word in sorted(counted)) or "nothing"


def compare(check: str, version: str, direct: Outcomes, through: Outcomes, explained: Mapping[str, str]) -> Comparison:
    """Set two runs side by side. `explained` maps patterns of names to reasons."""
    differences = []
    for name in sorted({*direct, *through}):
        left, right = direct.get(name, "(did not run)"), through.get(name, "(did not run)")
        if left != right:
            why = next((reason for pattern, reason in explained.items() if fnmatch.fnmatchcase(name, pattern)), "")
            differences.append(Difference(name, left, right, why))
    return Comparison(check, version, direct, through, differences)


def explanations(path: Path) -> dict[str, dict[str, str]]:
    """Read explained.toml: a table for each check, of patterns and reasons."""
    found = tomllib.loads(path.read_text())
    return {check: {str(pattern): str(reason) for pattern, reason in table.items()} for check, table in found.items()}
