"""What bash executes is among what was predicted, whenever the answer is static; and what is sent does the same.

Nothing real ever runs: PATH holds only stubs that log their arguments, texts hold no slash, and the shells run in an
empty directory, in a session of their own that is killed at the end.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from harness.budget import examples
from interlock.commands.shell.quoting import single_quoted

STUBS = "ls cat rm grep head sort uptime touch tee stat wc cp mkdir".split()
EXAMPLES = examples(170, fuzz=2000)
BUILTINS = frozenset("echo true false test [ : printf pwd cd sleep".split())


class Sandbox:
    """A PATH of stubs. `run` returns what was executed, as a multiset of argument lists."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.log = root / "log"
        for name in STUBS:
            self._stub(name, "")
        # A shell inside runs for real, as dash, so that what it is sent is proven in another dialect.
        for name in ("sh", "bash"):
            self._stub(name, f'exec /bin/{"dash" if name == "sh" else "bash"} "$@"\n')
        for name in ("env", "timeout", "nohup", "nice"):
            self._stub(name, "")

    def _stub(self, name: str, then: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/bash\nprintf '%s\\0' {name} \"$@\" $'\\1' >> {self.log}\n{then}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, text: str, shell: str) -> Counter[tuple[str, ...]] | None:
        assert "/" not in text
        self.log.write_bytes(b"")
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            process = subprocess.Popen(
                [shell, "-c", text], env={"PATH": str(self.bin), "LC_ALL": "C.UTF-8"}, cwd=folder, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _end_session(process)
        records = self.log.read_bytes().decode("utf-8", "surrogateescape").split("\1\0")
        return Counter(tuple(r.split("\0")[:-1]) for r in records if r)


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """Background commands are waited for by a stub-only world in no time; what is left is ended."""
    for _ in range(200):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        if process.poll() is None:
            break
        os.sched_yield()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Iterator[Sandbox]:
    yield Sandbox(tmp_path_factory.mktemp("sandbox"))


WORDS = st.sampled_from(
    [
        "a",
        "-la",
        "'b c'",
        '"d e"',
        "f\\ g",
        "$'h\\ti'",
        "''",
        '""',
        "é",
        "a#b",
        "x=y",
        '"it\'s"',
        "{",
        "}",
        "if",
        "'a;b'",
        "!",
        "%",
        "--",
        "-n",
    ]
)
NAMES = st.sampled_from([*STUBS, "echo", "true", "r'm'", 'l"s"', "\\cat", "env -i ls", "timeout 5 rm", "nice -n 5 cat"])


@st.composite
def simple(draw: st.DrawFn) -> str:
    words = [draw(NAMES), *draw(st.lists(WORDS, max_size=3))]
    if draw(st.integers(0, 5)) == 0:
        words.insert(0, "LC_ALL=C")
    if draw(st.integers(0, 3)) == 0:
        words.append(draw(st.sampled_from([">o1", "2>&1", ">>o2", "2>o4", "<<<'x y'", "&>o3", ">&2"])))
    return " ".join(words)


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, inner)
    return st.one_of(
        two.map(" && ".join), two.map(" || ".join), two.map("; ".join), two.map("\n".join),
        two.map(lambda p: f"{{ {p[0]}; }} | {{ {p[1]}; }}"),
        inner.map(lambda t: f"( {t} )"), inner.map(lambda t: f"{{ {t}; }}"), inner.map(lambda t: f"! {{ {t}; }}"),
        inner.map(lambda t: f"if true; then {t}; else ls no; fi"), inner.map(lambda t: f"for i in 1 2; do {t}; done"),
        inner.map(lambda t: f"case x in a) ls;; x|y) {t};; *) rm z;; esac"), inner.map(lambda t: f"until true; do {t}; done"),
        inner.map(lambda t: f"{t} # comment; rm c"), inner.map(lambda t: f"time {{ {t}; }}"),
        inner.map(lambda t: f"cat <<'E'\nbody $(rm x)\nE\n{t}"), inner.map(lambda t: f"{{ {t}; }} >out 2>&1"),
        inner.map(lambda t: f"sh -c {single_quoted(t)}"), inner.map(lambda t: f"bash -c {single_quoted(t)} n"),
        inner.map(lambda t: f"bash <<'Q'\n{t}\nQ"), inner.map(lambda t: f"eval {single_quoted(t)}"),
    )  # fmt: skip


STRUCTURED = st.recursive(simple(), compound, max_leaves=4)
SOUP = st.sampled_from(
    [
        *"'\"\\;|&(){}$#!=~*[]<>`02%@^ ",
        *("\n", "\t", " \\\n", "&&", "||", "|&", "&>", ">|", ";;", "$'", '$"', "<<E", "<<-E", "\nE\n"),
        *("time ", "if ", " then ", " fi ", "case x in ", " esac"),
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(STRUCTURED)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(SOUP) + text[place + draw(st.integers(0, 1)) :]
    return text


@settings(
    max_examples=EXAMPLES, derandomize=not os.environ.get("FUZZ"), deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)  # fmt: skip
@given(text=st.one_of(STRUCTURED, mutated(), mutated()))
def test_executed_is_among_predicted_and_sent_does_the_same(text: str, grammars, sandbox: Sandbox) -> None:
    analysis = grammars.analyse(text)
    if not analysis.static:
        event("refused" if analysis.unreadable else "opaque")
        return
    event("static")
    assert analysis.sent is not None
    predicted = {e.argv for e in analysis.effects}
    executed = sandbox.run(text, "/bin/bash")
    if executed is None:
        return
    assert {argv for argv in executed if argv} <= predicted, (text, executed, predicted)
    # The words of a text inside are sent re-rendered, so what is compared is what the inner shell runs.
    for shell in ("/bin/bash", "/bin/dash"):
        sent = sandbox.run(analysis.sent, shell)
        assert sent is not None
        assert set(_inner(sent)) <= predicted, (text, analysis.sent, shell)
        if shell == "/bin/dash" and "time " in analysis.sent:
            # `time` is no keyword there: before a compound command it is a syntax error, and nothing runs.
            assert _inner(sent) <= _inner(executed), (text, analysis.sent, shell)
        else:
            assert _inner(sent) == _inner(executed), (text, analysis.sent, shell)


def _inner(executed: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    return Counter({argv: n for argv, n in executed.items() if argv[0] not in ("sh", "bash")})


def test_the_sandbox_sees_what_runs(sandbox: Sandbox) -> None:
    """The property can fail: what is executed but not predicted is seen."""
    assert sandbox.run("ls a; rm 'b c' | cat", "/bin/bash") == Counter({("ls", "a"): 1, ("rm", "b c"): 1, ("cat",): 1})
    assert sandbox.run("sh -c 'rm x'", "/bin/bash") == Counter({("sh", "-c", "rm x"): 1, ("rm", "x"): 1})
