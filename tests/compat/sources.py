"""Where the suites and clients come from: package registries, by their own clients, into a scratch folder kept between runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements.lock"


class NotObtainableError(Exception):
    """What a check needs can't be had here: it is skipped, and says so."""


def call(*argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 900) -> str:
    """Run a package manager. Raise NotObtainableError with the end of what it said."""
    try:
        done = subprocess.run(
            [str(word) for word in argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise NotObtainableError(f"{argv[0]} is not installed") from error
    if done.returncode:
        raise NotObtainableError(f"{argv[0]} {argv[1]}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def locked(package: str) -> str:
    """Return the version that the project itself is locked to."""
    found = re.search(rf"^{re.escape(package)}==([\w.]+)", LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise NotObtainableError(f"{package} is not in requirements.lock")
    return found[1]


PSYCOPG2 = "2.9.13"
"""Of psycopg2-binary: not used by the project, and the suite of libpq's users that can be had."""


def source_archive(package: str, scratch: Path, version: str = "") -> Path:
    """Return the unpacked source archive of a Python package, at the locked version or at another one."""
    version = version or locked(package)
    place = scratch / "sources"
    folder = place / f"{package}-{version}"
    if not folder.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        call(
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            place,
            f"{package}=={version}",
        )
        with tarfile.open(place / f"{package.replace('-', '_')}-{version}.tar.gz") as archive:
            archive.extractall(place, filter="data")
    return folder


def python(scratch: Path) -> Path:
    """Return a Python of its own with the clients and what their suites need. The project's venv stays as it is."""
    folder = scratch / "python"
    pinned = [f"{name}=={locked(name)}" for name in ("asyncpg", "psycopg", "psycopg-binary", "sqlalchemy")]
    more = ["django", "pgcli", "psycopg-pool", f"psycopg2-binary=={PSYCOPG2}", "pytest", "distro", "greenlet", "uvloop"]
    ready, wanted = folder / "ready", " ".join((*pinned, *more))
    if not ready.exists() or ready.read_text() != wanted:
        call(sys.executable, "-m", "venv", folder)
        call(folder / "bin/pip", "install", "-q", *pinned, *more)
        ready.write_text(wanted)
    return folder / "bin/python"
