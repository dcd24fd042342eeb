"""The test suites of Python's drivers and of SQLAlchemy, from their source archives, with the wheels that users install."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from compat.results import Outcomes
from compat.sources import PSYCOPG2, locked, python, source_archive
from compat.ways import Way, run

_DIALECT = "test/dialect/postgresql"
SQLALCHEMY_DIALECT = tuple(f"{_DIALECT}/test_{name}.py" for name in ("dialect", "on_conflict", "query", "reflection"))
"""The PostgreSQL dialect's own tests, but for types."""
SQLALCHEMY_TYPES = (f"{_DIALECT}/test_types.py",)
SQLALCHEMY_SUITE = ("test/dialect/test_suite.py",)
"""What every dialect must pass."""
SQLALCHEMY_NEEDS = ("test", "lib/sqlalchemy/testing/plugin")


def asyncpg_version(scratch: Path) -> str:
    _tests("asyncpg", ("tests",), scratch)
    python(scratch)
    return locked("asyncpg")


def asyncpg(way: Way, scratch: Path) -> Outcomes:
    """Every test that runs against a server which it did not start itself."""
    return _pytest(way, scratch, _tests("asyncpg", ("tests",), scratch), ["tests"], way.env())


def psycopg2_version(scratch: Path) -> str:
    _tests("psycopg2-binary", ("tests",), scratch, PSYCOPG2)
    python(scratch)
    return PSYCOPG2


def psycopg2(way: Way, scratch: Path) -> Outcomes:
    """The suite of psycopg 2: libpq as most programs use it, blocking, green and asynchronous."""
    way.create_database("test")
    way.server.run("CREATE EXTENSION hstore", user="postgres", database="test")
    env = way.env("test")
    told = {"PSYCOPG2_TESTDB": "test", "PSYCOPG2_TESTDB_HOST": way.host, "PSYCOPG2_TESTDB_PORT": str(way.port),
            "PSYCOPG2_TESTDB_USER": env["PGUSER"], "PSYCOPG2_TESTDB_PASSWORD": way.password}  # fmt: skip
    return _pytest(way, scratch, _tests("psycopg2-binary", ("tests",), scratch, PSYCOPG2), ["tests"], {**env, **told})


def sqlalchemy_version(scratch: Path) -> str:
    _tests("sqlalchemy", SQLALCHEMY_NEEDS, scratch)
    python(scratch)
    return locked("sqlalchemy")


def sqlalchemy(driver: str, tests: Sequence[str], way: Way, scratch: Path) -> Outcomes:
    way.create_database("test")
    way.server.run(
        "CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2; CREATE EXTENSION hstore; CREATE EXTENSION citext; "
        "ALTER DATABASE test SET default_text_search_config TO 'english'",
        user="postgres", database="test",
    )  # fmt: skip
    url = way.url("test", scheme=f"postgresql+{driver}")
    options = [f"--dburi={url}", "-p", "no:logging", "--maxfail=100000", "-c", "setup.cfg"]
    return _pytest(way, scratch, _tests("sqlalchemy", SQLALCHEMY_NEEDS, scratch), [*tests, *options], way.env("test"))


def _tests(package: str, parts: Sequence[str], scratch: Path, version: str = "") -> Path:
    """Return a folder with the package's tests and not the package, so that the installed one is what they import."""
    folder = scratch / "suites" / package
    if not folder.is_dir():
        archive = source_archive(package, scratch, version)
        for part in parts:
            shutil.copytree(archive / part, folder / part)
        for name in ("setup.cfg", "conftest.py"):
            if (archive / name).exists():
                shutil.copy(archive / name, folder / name)
    return folder


def _pytest(way: Way, scratch: Path, suite: Path, arguments: Sequence[str], env: dict[str, str]) -> Outcomes:
    copy = way.folder(scratch) / suite.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(suite, copy)
    report = copy / "report.xml"
    said = run(
        python(scratch), "-s", "-m", "pytest", "-q", "--tb=native", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments,
        env={**env, "PYTHONPATH": "", "PYTHONHASHSEED": "0"}, cwd=copy, timeout=3000,
    )  # fmt: skip
    (copy / "said").write_text(said)
    if not report.exists() or not said.endswith(("(exit 0)\n", "(exit 1)\n")):  # 2 and more: it did not run, or not whole
        raise AssertionError(f"{suite.name} did not run through {way.name}:\n{said[-2000:]}")
    return _read(report)


def _read(report: Path) -> Outcomes:
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # written by our own pytest
        name = f"{case.get('classname')}::{case.get('name')}"
        marks = {child.tag for child in case}
        worst = next((word for word in ("error", "failure", "skipped") if word in marks), "passed")
        found[name] = {"failure": "failed"}.get(worst, worst)
    return found
