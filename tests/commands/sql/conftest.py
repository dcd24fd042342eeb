"""A recorded catalog of tests/data/sql/schema.sql, and a way to ask for an analysis in few words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from interlock.commands.model import Analysis, Kind, SqlContext
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.catalog import Catalog

DATA = Path(__file__).parents[2] / "data"

Ask = Callable[..., Analysis]


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """What `Catalog.from_rows` makes of a PostgreSQL 15 that has schema.sql."""
    return Catalog.from_rows(json.loads((DATA / "sql" / "catalog_rows.json").read_text()))


@pytest.fixture(scope="session")
def ask(catalog: Catalog) -> Ask:
    """Analyse text against the recorded catalog; keywords change the context."""

    def analyse(text: str | bytes, kind: Kind = Kind.QUERY, **context: object) -> Analysis:
        raw = text if isinstance(text, bytes) else text.encode()
        return analyze_sql(raw, SqlContext(**{"catalog": catalog, **context}), kind)  # type: ignore[arg-type]  # test keywords

    return analyse


def shown(analysis: Analysis) -> list[tuple[str, str]]:
    """Return (verb, object) of each effect."""
    return [(effect.verb, effect.object) for effect in analysis.effects]


def reasons(analysis: Analysis) -> list[str]:
    return [hidden.reason for hidden in analysis.opaque]
