"""Rows of a bench: two series of one interleaved run and their ratio, as minimum, median and maximum."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    """`ours` and `theirs` were taken in turn, so that their ratio holds although the machine's speed drifts."""

    what: str
    unit: str
    name: str
    peer: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": median(self.ratios)}


@dataclass(frozen=True)
class Figure:
    """What was measured without a peer: one value a round. `at_least` or `at_most` is its budget."""

    what: str
    unit: str
    values: list[float]
    at_least: float | None = None
    at_most: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "median": median(self.values)}

    def __str__(self) -> str:
        low, middle, high = (f"{value:,.0f}" for value in (min(self.values), median(self.values), max(self.values)))
        said = f"{self.what}: min {low}, median {middle}, max {high} {self.unit}"
        budget = self.at_least if self.at_least is not None else self.at_most
        if budget is None:
            return said
        kept = median(self.values) >= budget if self.at_least is not None else median(self.values) <= budget
        return f"{said}, budget {budget:,.0f}: {'kept' if kept else 'MISSED'}"


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, from /proc/PID/stat (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def show(rows: list[Row]) -> None:
    header = ("what", "unit", "against", "ours", "theirs", "ratio min", "median", "max")
    lines = [header]
    for row in rows:
        ratios = sorted(row.ratios)
        figures = (
            f"{median(row.ours):.1f}",
            f"{median(row.theirs):.1f}",
            *(f"{r:.2f}" for r in (ratios[0], median(ratios), ratios[-1])),
        )
        lines.append((row.what, row.unit, row.peer, *figures))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
