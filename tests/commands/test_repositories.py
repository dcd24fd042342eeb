"""git in a repository whose configuration names a program at every place that git has for one.

The forms that the table takes for a look run here, by the real git, and none of those programs starts. The control is
that the plain forms start them. Every program here only writes its name into a file.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from interlock.commands.programs.loader import programs, sensitive_paths
from interlock.commands.programs.place import Place
from interlock.commands.programs.rules import Rules

RULES = Rules(programs(), sensitive_paths())
GIT = shutil.which("git") or "git"

LOOKS = [
    "git rev-parse HEAD",
    "git rev-parse --show-toplevel",
    "git symbolic-ref --short HEAD",
    "git remote",
    "git --no-lazy-fetch rev-parse HEAD~1",
    "git --no-lazy-fetch log --no-show-signature --oneline",
    "git --no-lazy-fetch --no-pager log --no-show-signature --oneline -n 5 HEAD",
    "git --no-lazy-fetch log --no-show-signature --format=%H%x09%s --since=2000-01-01 --all",
    "git --no-lazy-fetch log --no-show-signature --pretty=fuller --graph -- f",
    "git --no-lazy-fetch log --no-show-signature --oneline HEAD~1..HEAD f",
    "git --no-lazy-fetch rev-list --count HEAD",
    "git --no-lazy-fetch show-ref --head",
    "git --no-lazy-fetch merge-base HEAD HEAD~1",
    "git --no-lazy-fetch describe --tags --always",
    "git --no-lazy-fetch ls-tree -r --name-only HEAD",
]
RUNS = [
    "git status",
    "git diff",
    "git log",
    "git log --no-show-signature",
    "git log --oneline",
    "git log -p --oneline",
    "git show",
]
"""Plain forms, each of which starts something in the hostile repository."""

ALSO_CODE = [
    "git --no-lazy-fetch log --oneline",
    "git --no-lazy-fetch log --no-show-signature",
    "git --no-lazy-fetch log --no-show-signature --format=mine",
    "git --no-lazy-fetch log --no-show-signature --format=%G?",
    "git --no-lazy-fetch log --no-show-signature --format='%(describe)'",
    "git --no-lazy-fetch log --no-show-signature --oneline -p",
    "git --no-lazy-fetch log --no-show-signature --oneline :f",
    "git --no-lazy-fetch log --no-show-signature --show-signature --oneline",
    "git log --no-show-signature --oneline --no-lazy-fetch",
    "git log --no-show-signature --oneline",
    "git --no-lazy-fetch status",
    "git --no-lazy-fetch describe --dirty",
    "git rev-parse HEAD~1",
    "git remote -v",
    "git remote update",
    "git branch",
]


def effects(text: str) -> tuple[set[str], bool]:
    found = RULES.evaluate(shlex.split(text), Place())
    return {effect.verb for effect in found.effects}, bool(found.opaque)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a signed commit of which every configured program is a trap."""
    root = tmp_path_factory.mktemp("git")
    repository = root / "repository"
    trap = root / "trap"
    trap.write_text(f'#!/bin/sh\necho "$0 $*" >> {root}/sprung\ncat >/dev/null 2>&1\nexit 0\n')
    trap.chmod(0o755)
    say(root, "init", "-q", str(repository))
    for number in (1, 2):
        (repository / "f").write_text(f"{number}\n")
        (repository / ".gitattributes").write_text("* diff=trap filter=trap\n")
        say(repository, "add", ".")
        say(repository, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", f"c{number}")
    raw = say(repository, "cat-file", "commit", "HEAD").partition("\n\n")
    signed = raw[0] + "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n" + raw[2]
    name = say(repository, "hash-object", "-t", "commit", "-w", "--stdin", given=signed).strip()
    say(repository, "update-ref", "HEAD", name)
    for hook in ("post-index-change", "reference-transaction", "fsmonitor-watchman"):
        shutil.copy(trap, repository / ".git" / "hooks" / hook)
    for key in (
        "core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.gitProxy", "core.askPass", "gpg.program",
        "diff.external",
        "diff.trap.textconv", "diff.trap.command", "filter.trap.clean", "filter.trap.smudge", "core.alternateRefsCommand",
        "interactive.diffFilter", "pager.log", "credential.helper", "sequence.editor", "remote.evil.uploadpack",
    ):  # fmt: skip
        say(repository, "config", key, str(trap))
    for key, value in {
        "log.showSignature": "true", "format.pretty": "%G? %s", "pretty.mine": "%G? %s", "diff.submodule": "log",
        "core.repositoryFormatVersion": "1", "extensions.partialClone": "evil", "remote.evil.url": str(root),
        "remote.evil.promisor": "true", "protocol.allow": "always", "branch.sort": "signature", "log.mailmap": "true",
    }.items():  # fmt: skip
        say(repository, "config", key, value)
    (repository / "f").write_text("changed\n")
    return root


def environment(root: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1", "LANG": "C"}


def ran(root: Path, place: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GIT, *words], cwd=place, env=environment(root), input=given, capture_output=True, text=True, timeout=60, check=False
    )


def say(place: Path, *words: str, given: str = "") -> str:
    said = ran(place, place, *words, given=given)
    assert said.returncode == 0, (words, said.stderr)
    return said.stdout


def sprung(root: Path, text: str) -> tuple[str, int]:
    """Run a line in the hostile repository. Return which traps were started, and how git ended."""
    mark = root / "sprung"
    mark.unlink(missing_ok=True)
    ended = ran(root, root / "repository", *shlex.split(text)[1:])
    return mark.read_text() if mark.exists() else "", ended.returncode


@pytest.fixture(scope="module")
def knows_lazy(hostile: Path) -> bool:
    return ran(hostile, hostile, "--no-lazy-fetch", "version").returncode == 0


@pytest.mark.parametrize("text", LOOKS)
def test_what_is_taken_for_a_look_starts_nothing(hostile: Path, knows_lazy: bool, text: str) -> None:
    assert effects(text) == ({"read"}, False)
    started, status = sprung(hostile, text)
    assert started == ""
    if "--no-lazy-fetch" in text and not knows_lazy:
        assert status != 0  # an older git refuses, and starts nothing; without the option it is asked for the rest
        started, status = sprung(hostile, text.replace("--no-lazy-fetch ", ""))
        assert started == ""
    assert status == 0


@pytest.mark.parametrize("text", RUNS)
def test_the_plain_forms_start_programs_of_the_repository(hostile: Path, text: str) -> None:
    assert "interpret" in effects(text)[0]
    assert "trap" in sprung(hostile, text)[0]


@pytest.mark.parametrize("text", ALSO_CODE)
def test_what_is_near_a_look_is_code(text: str) -> None:
    verbs, opaque = effects(text)
    assert "interpret" in verbs or opaque
