"""Rows of a bench: two series of one interleaved run and their ratio, as minimum, median and maximum."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from harness.children import children

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    """`ours` and `theirs` were taken in turn, so that their ratio holds although the machine's speed drifts.

    `at_most` or `at_least` is the budget of the ratio.
    """

    what: str
    unit: str
    name: str
    peer: str
    ours: list[float]
    theirs: list[float]
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    def to_json(self) -> dict[str, Any]:
        ratios = self.ratios
        return {**asdict(self), "ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same row in another run."""
        return self.what, self.unit, self.peer

    @property
    def budget(self) -> str:
        """The budget, and whether the median keeps it."""
        if self.at_most is None and self.at_least is None:
            return ""
        found = median(self.ratios)
        kept = (self.at_most is None or found <= self.at_most) and (self.at_least is None or found >= self.at_least)
        bound = f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"
        return f"{bound} {'kept' if kept else 'MISSED'}"


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


def family_seconds(pid: int) -> float:
    """The same of a process and its children together."""
    total = cpu_seconds(pid)
    for child in children(pid):
        with suppress(OSError):  # it has ended
            total += cpu_seconds(child)
    return total


QUIET_S, QUIET_MOST_S = 0.3, 120.0


def quiet(pid: int) -> float:
    """Wait until the process and its children do nothing, and return its CPU seconds: sealing what came before must not count."""
    before, since, end = family_seconds(pid), time.monotonic(), time.monotonic() + QUIET_MOST_S
    while time.monotonic() - since < QUIET_S:
        if time.monotonic() > end:
            raise SystemExit(f"process {pid} did not come to rest")
        time.sleep(QUIET_S / 6)
        now = family_seconds(pid)
        if now - before > 1 / TICKS:  # a heartbeat or a timer is no work
            before, since = now, time.monotonic()
    return cpu_seconds(pid)


Earlier = Mapping[tuple[str, str, str], float]
"""Median ratios of an earlier run, by `Row.key`."""


def earlier(file: Path) -> Earlier:
    """Read the ratios of an earlier run; none where there was none, or one that can't be read: it must not cost this one."""
    if not file.exists():
        return {}
    try:
        return {(row["what"], row["unit"], row["peer"]): float(row["ratio"]) for row in json.loads(file.read_text())["rows"]}
    except (ValueError, KeyError, TypeError) as error:
        print(f"{file.name} of an earlier run can't be read and is not compared with: {error!r}")
        return {}


def keep(file: Path, rows: list[Row], figures: list[Figure]) -> None:
    """Write a run, whole or not at all: the next one is compared with it."""
    found = {
        "machine": platform.platform(), "cpus": os.cpu_count(),
        "rows": [row.to_json() for row in rows], "figures": [figure.to_json() for figure in figures],
    }  # fmt: skip
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(found, indent=2) + "\n")
    fresh.replace(file)


def show(rows: list[Row], before: Earlier = MappingProxyType({})) -> None:
    """Print the rows, each with its budget, and with the ratio that an earlier run had."""
    header = (
        "what",
        "unit",
        "against",
        "ours",
        "theirs",
        "ratio min",
        "median",
        "max",
        "budget",
        *(["before"] if before else []),
    )
    lines = [header]
    for row in rows:
        ratios = sorted(row.ratios)
        figures = [
            f"{median(row.ours):.1f}",
            f"{median(row.theirs):.1f}",
            *(f"{r:.2f}" for r in (ratios[0], median(ratios), ratios[-1])),
            row.budget,
        ]
        if before:
            then = before.get(row.key)
            figures.append("" if then is None else f"{then:.2f}")
        lines.append((row.what, row.unit, row.peer, *figures))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
