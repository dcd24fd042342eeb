"""A place where shell texts may run: nothing real can, and every program that would have run is written down.

PATH holds nothing but stubs that log their arguments. The few wrappers among them (`env`, `timeout`, `nice`, …) go on to
the real program, which finds nothing but stubs itself. The texts of a batch run one after another in one shell, each in a
subshell; when the harness is root they run as nobody. A text with a slash, or with a builtin
that no stub can stand for (`kill`), is not run at all.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interlock.commands.shell.quoting import single_quoted

SHELLS: Mapping[str, tuple[str, ...]] = {
    "bash": ("/bin/bash", "--norc", "--noprofile"),
    "dash": ("/bin/dash",),
    "busybox": ("/bin/busybox", "sh"),
}
HOME = "home-of-the-account"
"""What `~` becomes. It has no slash, and no text has it."""

BATCH_S = 60.0
"""A batch takes a second; a text that waits for something is found by running its batch one by one."""

ALONE_S = 10.0

Argv = tuple[str, ...]
Run = tuple[Argv, ...]
"""What one text executed, sorted."""

_WRAPPERS = frozenset("env timeout nice nohup setsid stdbuf".split())
_KEEPS_PATH = """check() {
  while [ $# -gt 0 ]; do
    case $1 in
    -u) [ "$2" = PATH ] && return 1; shift 2 ;;
    --unset=PATH | PATH=*) return 1 ;;
    --unset=* | -v | -0) shift ;;
    -*) return 1 ;;
    *=*) shift ;;
    *) return 0 ;;
    esac
  done
  return 1
}
check "$@" || exit 0
"""
"""Without PATH the real `env` would look for the command where real programs are."""

_REAL_SHELLS = {"sh": "/bin/dash", "dash": "/bin/dash", "ash": "/bin/busybox sh", "bash": "/bin/bash"}

_CAPSH = """while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
[ $# -gt 0 ] || exit 0
shift
exec /bin/bash "$@"
"""
"""What stands behind `--` is for bash, as it is with the real one."""

_UNSAFE = re.compile(r"(?<!~)/|kill|ulimit|command\b.*-[a-zA-Z]*p|suspend|enable|\\[xuU0-7]", re.DOTALL)
_HARMLESS_ESCAPES = re.compile(r"\\(?:x41|101|u00e9)(?![0-9A-Fa-f])")
_QUOTES = re.compile(r"""['"$\n\\]""")

_ENDLESS = re.compile(r"while(?!\s+(?:false|read(?:[ \t]+\w+)*|! *true)\s*[;\n]\s*do\b)|until(?!\s+(?:true|:|ls)\s*[;\n]\s*do\b)")


def ends(text: str) -> bool:
    """Tell whether every loop of the text is surely left when each stub succeeds."""
    return not _ENDLESS.search(text)


def safe(text: str) -> bool:
    """Tell whether a text can reach only stubs, however it is read."""
    plain = _HARMLESS_ESCAPES.sub("A", text)
    return not _UNSAFE.search(plain) and not _UNSAFE.search(_QUOTES.sub("", plain))


@dataclass(frozen=True, slots=True)
class Task:
    """One text for one shell. `key` tells its answer apart."""

    key: int
    text: str


class Sandbox:
    """Stubs for `programs`, and scratch directories. Close it; use one in each process."""

    def __init__(self, programs: Iterable[str]) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="shell-fuzz-"))
        self.root.chmod(0o777)
        self.bin = self.root / "bin"
        self.bin.mkdir(mode=0o755)
        self.log = self.root / "log"
        for name in {*programs} - _WRAPPERS - _REAL_SHELLS.keys():
            self._stub(name, "")
        for name in _WRAPPERS:
            check = _KEEPS_PATH if name == "env" else ""
            self._stub(name, f'{check}PATH={self.bin}\nexport PATH\nexec /usr/bin/{name} "$@"\n')
        for name, real in _REAL_SHELLS.items():
            self._stub(name, f'exec {real} "$@"\n')
        self._stub("capsh", _CAPSH)
        self._account = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}

    def _stub(self, name: str, then: str) -> None:
        path = self.bin / name
        # dash writes one printf with one write, and O_APPEND keeps records whole.
        path.write_text(f"#!/bin/dash\nprintf '%s\\0' \"$FUZZ_KEY\" {single_quoted(name)} \"$@\" '\1' >>{self.log}\n{then}")
        path.chmod(0o755)

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, shell: str, tasks: Sequence[Task]) -> dict[int, Run]:
        """Run each text in `shell` and return what it executed, by key. A text that never ends is left out."""
        done = self._batch(shell, tasks, BATCH_S)
        if done is not None:
            return done
        found: dict[int, Run] = {}
        for task in tasks:
            found |= self._batch(shell, [task], ALONE_S) or {}
        return found

    def _batch(self, shell: str, tasks: Sequence[Task], seconds: float) -> dict[int, Run] | None:
        self.log.write_bytes(b"")
        self.log.chmod(0o666)
        place = Path(tempfile.mkdtemp(dir=self.root))
        place.chmod(0o777)
        _furnish(place)
        lines = ["ulimit -c 0; ulimit -f 65536"]
        lines += [f"(FUZZ_KEY={task.key};ulimit -t 1;eval {single_quoted(task.text)})" for task in tasks]
        script = self.root / "batch"
        script.write_text("\n".join(lines) + "\n", "utf-8")
        alive, held = os.pipe()
        process = subprocess.Popen(
            [*SHELLS[shell], str(script)], cwd=place, pass_fds=[held], start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._account,
            env={"PATH": str(self.bin), "LC_ALL": "C.UTF-8", "HOME": HOME, "FUZZ_KEY": ""},
        )  # fmt: skip
        os.close(held)
        try:
            # Every process of the batch, those in the background too, holds the other end of this pipe.
            ended = _wait(alive, seconds) and process.wait() is not None
        finally:
            os.close(alive)
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            shutil.rmtree(place, ignore_errors=True)
        return _records(self.log.read_bytes(), tasks) if ended else None


def _furnish(folder: Path) -> None:
    """A few names for what would expand, and a start-up file for a variable that names one."""
    for name in ("a", "ab", "b"):
        (folder / name).touch()
    (folder / "rc").write_text("rm from-rc\n")  # not ours to change: the files belong to the harness


def _wait(pipe: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            return os.read(pipe, 1) == b""
    return False


def _records(log: bytes, tasks: Sequence[Task]) -> dict[int, Run]:
    found: dict[int, list[Argv]] = {task.key: [] for task in tasks}
    for record in log.decode("utf-8", "surrogateescape").split("\0\1\0"):
        key, _, words = record.partition("\0")
        if key.isdigit() and int(key) in found:
            found[int(key)].append(tuple(words.split("\0")))
    return {key: tuple(sorted(argvs)) for key, argvs in found.items()}
