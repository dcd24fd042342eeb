"""Each character of a text as a terminal may be given it: printable ones as they are, all others made visible. Pure.

Control characters are shown as `^C`, everything else that is not printable as `\\u{202e}`; those of `kept` stay.

Compiled (`_shown.c`) where a compiler was there when the package was built: a recording of what is no text is made of
nothing else. Both forms give the same for every input (tests/evidence/test_terminal.py).
"""

from __future__ import annotations

__all__ = ["COMPILED", "kept", "shown", "shown_plain"]

_CONTROLS = 0x20
_REMEMBERED = 0x800
"""Characters below are worth remembering; a target that prints all that there are must not fill our memory."""


def kept(characters: str) -> int:
    """Return these control characters as a set for `shown`: bit N is character N."""
    return sum(1 << ord(character) for character in set(characters) if ord(character) < _CONTROLS)


def shown_plain(text: str, kept: int, /) -> str:
    """Return `text` with every character made visible that is neither printable nor in `kept`."""
    if text.isprintable():
        return text
    if kept not in _tables:
        _tables[kept] = _Table(kept)
    return text.translate(_tables[kept])


class _Table(dict[int, str]):
    """How each character is shown, for str.translate: recordings are long, and a loop over them costs more than all else."""

    def __init__(self, kept: int) -> None:
        super().__init__({code: chr(code) for code in range(_CONTROLS) if kept >> code & 1})

    def __missing__(self, code: int) -> str:
        character = chr(code)
        visible = character if character.isprintable() else _visible(code)
        if code < _REMEMBERED:
            self[code] = visible
        return visible


_tables: dict[int, _Table] = {}
"""There are as many as callers have sets: two."""


def _visible(code: int) -> str:
    if code < _CONTROLS or code == 0x7F:
        return "^" + chr(code ^ 0x40)
    return f"\\u{{{code:x}}}"


try:
    from interlock.evidence._shown import shown
except ImportError:
    COMPILED = False
    shown = shown_plain
else:
    COMPILED = True
