"""A small share of `make fuzz-shell` with a fixed seed: what shells execute, against what was predicted.

The texts are made so that each way of being wrong that `tests/sabotage/fuzz-*.toml` tries shows among them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from commands.conftest import Grammars
from fuzz.shell_differential import Differential, judge
from fuzz.shell_sandbox import Sandbox, Task, safe
from fuzz.shell_strings import Strings
from interlock.commands.shell.quoting import single_quoted

SEED = 5
TEXTS = 600
FRESH = bool(os.environ.get("FUZZ"))


@pytest.fixture(scope="module")
def differential() -> Iterator[Differential]:
    seed = int.from_bytes(os.urandom(4), "big") if FRESH else SEED
    print(f"seed {seed}")
    one = Differential(seed)
    yield one
    one.close()


@pytest.fixture(scope="module")
def sandbox(differential: Differential) -> Sandbox:
    return differential.sandbox


@pytest.mark.timeout(600)
def test_what_shells_execute_was_predicted(differential: Differential) -> None:
    texts = 20_000 if FRESH else TEXTS
    while differential.tally.strings < texts:
        found = differential.batch(300)
        assert not found, "\n".join(map(str, found[:5]))
    tally = differential.tally
    print(tally)
    assert tally.strings == texts
    assert tally.ran >= 0.3 * tally.strings, str(tally)
    assert tally.commands > tally.ran


def test_many_texts_in_one_child_are_read_as_each_alone(grammars: Grammars, differential: Differential) -> None:
    """The fuzz reads many texts at once; the product one."""
    supply = Strings(SEED + 1)
    texts = [supply.text() for _ in range(40)]
    texts += [
        "cat <<E\nbody",
        "ls 'a",
        "ls 'b\n' c",
        "if true; then ls",
        "fi",
        "(ls",
        "rm )",
        ": mark-1",
        "end-of-text-0",
        "{ ls",
        "}",
    ]
    for text, together in zip(texts, differential.grammars.analyse(texts), strict=True):
        alone = grammars.analyse(text)
        if together.unreadable is None:
            assert together == alone, text
        else:
            assert not alone.static, text


def test_the_sandbox_sees_what_runs(sandbox: Sandbox) -> None:
    texts = [
        "ls a; rm 'b c' | cat", "sh -c 'rm x'", "{ ls & } ; ( rm y & )", "until ls; do touch z; done",
        "timeout -k 5 9 env -u X ls",
        "env PATH=q ls", "env -i ls",
    ]  # fmt: skip
    for shell in ("bash", "dash", "busybox"):
        found = sandbox.run(shell, [Task(i, text) for i, text in enumerate(texts)])
        assert found[0] == (("cat",), ("ls", "a"), ("rm", "b c"))
        assert found[1] == (("rm", "x"), ("sh", "-c", "rm x"))
        assert found[2] == (("ls",), ("rm", "y"))
        assert found[3] == (("ls",),)
        assert found[4] == (("env", "-u", "X", "ls"), ("ls",), ("timeout", "-k", "5", "9", "env", "-u", "X", "ls"))
        assert found[5] == (("env", "PATH=q", "ls"),)
        assert found[6] == (("env", "-i", "ls"),)


@pytest.mark.parametrize("text", ["/bin/rm x", "k'i'll -9 1", "ki\\ll 1", "$'\\x6bill' 1", "command -p ls", "cat <~root/x"])
def test_what_could_reach_more_than_stubs_is_not_run(text: str) -> None:
    assert not safe(text)
    assert not safe(f"sh -c {single_quoted(text)}")


def test_a_wrong_prediction_is_seen(grammars: Grammars) -> None:
    """The comparison can fail, in each of its ways."""
    analysis = grammars.analyse("ls a && rm b")
    right = (("ls", "a"), ("rm", "b"))
    assert judge("", analysis, "dash", right, right) is None
    for raw, sent in (((*right, ("rm",)), right), (right, (*right, ("rm", "c"))), (right, right[:1]), (right, None)):
        assert judge("", analysis, "dash", raw, sent) is not None
