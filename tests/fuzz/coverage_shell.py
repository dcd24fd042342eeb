"""Coverage-guided fuzzing of what reads shell texts: libFuzzer (atheris) looks for texts that reach new lines of it.

The grammars are the real ones. For each text: the analysis answers and never raises; what is static can be sent; and what is
sent is read again as the same commands, with the same text to send. Nothing is executed. Run by `tests.fuzz.coverage`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proxy"), str(ROOT / "tests")]

with atheris.instrument_imports(include=["interlock.commands.shell", "interlock.commands.programs"]):
    from fuzz.shell_grammars import BatchGrammars
    from interlock.commands.model import Analysis

from fuzz.shell_strings import SOUP, corpus  # noqa: E402  after what is instrumented

GRAMMARS = BatchGrammars()
_NESTED = frozenset("sh bash dash ash ksh zsh mksh eval watch su".split())
"""Their words hold texts that are sent re-rendered, so the words of what is around them change."""


def one(data: bytes) -> None:
    """Judge one input."""
    text = data.decode("utf-8", "replace")
    (analysis,) = GRAMMARS.analyse([text])
    if not analysis.static:
        assert analysis.sent is None, f"sent though not static: {text!r}"
        return
    assert analysis.sent is not None, f"static and can't be sent: {text!r}"
    (again,) = GRAMMARS.analyse([analysis.sent])
    assert again.static, f"what is sent is not static: {text!r} {analysis.sent!r} {again.opaque} {again.unreadable}"
    assert again.sent == analysis.sent, f"sent otherwise the second time: {text!r} {analysis.sent!r} {again.sent!r}"
    if not any(_NESTED.intersection(effect.argv) for effect in analysis.effects):
        assert _what(again) == _what(analysis), f"what is sent does something else: {text!r} {analysis.sent!r}"


def _what(analysis: Analysis) -> set[tuple[str, str, tuple[str, ...]]]:
    return {(effect.verb, effect.object, effect.argv) for effect in analysis.effects}


def seeds(folder: Path) -> None:
    """Write the labelled texts as libFuzzer's first inputs, and the tokens as its dictionary."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(corpus()):
        (folder / f"corpus-{number}").write_text(text, "utf-8")
    words = sorted({token for token in SOUP if token.isascii() and token.isprintable() and token.strip()})
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"') for word in words)
    folder.with_suffix(".dict").write_text("".join(f'"{word}"\n' for word in escaped))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    seeds(place)
    atheris.Setup([sys.argv[0], str(place), f"-dict={place.with_suffix('.dict')}", "-max_len=400", *sys.argv[2:]], one)
    atheris.Fuzz()
