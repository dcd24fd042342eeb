"""What quotes mean, exactly: unquoted and double-quoted backslashes, `$'…'`, and the way back to single quotes.

Spec: bash manual 3.1.2; POSIX XCU 2.2. Knows characters only.
"""

from __future__ import annotations

import re

_SIMPLE = {
    "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "?": "?",
}  # fmt: skip
_ANSI = re.compile(
    r"\\(?:(?P<oct>[0-7]{1,3})|x(?P<hex>[0-9A-Fa-f]{1,2})|u(?P<u4>[0-9A-Fa-f]{1,4})|U(?P<u8>[0-9A-Fa-f]{1,8})|(?P<char>.))",
    re.DOTALL,
)
_BRACES = re.compile(r"\{.*(?:,|\.\.).*\}", re.DOTALL)
QUOTED = "\x00"
"""Stands in `bare` for a character that was quoted: it can't take part in an expansion."""


def unquoted(raw: str) -> tuple[str, str]:
    """Decode an unquoted literal: its value, and its bare characters with quoted ones masked."""
    value: list[str] = []
    bare: list[str] = []
    index = 0
    while index < len(raw):
        char = raw[index]
        if char == "\\" and index + 1 < len(raw):
            following = raw[index + 1]
            if following != "\n":
                value.append(following)
                bare.append(QUOTED)
            index += 2
            continue
        value.append(char)
        bare.append(char)
        index += 1
    return "".join(value), "".join(bare)


def double_quoted(raw: str, special: str = '$`"\\') -> str:
    """Decode a literal between double quotes, or (special `$`\\`) in an unquoted here-document."""
    out: list[str] = []
    index = 0
    while index < len(raw):
        char = raw[index]
        if char == "\\" and index + 1 < len(raw):
            following = raw[index + 1]
            if following == "\n":
                index += 2
                continue
            if following in special:
                out.append(following)
                index += 2
                continue
        out.append(char)
        index += 1
    return "".join(out)


def ansi_c(raw: str) -> str | None:
    """Decode the inside of `$'…'`. None when it can't be said exactly (bytes that are not ASCII, NUL, `\\c`)."""
    broken = False

    def one(match: re.Match[str]) -> str:
        nonlocal broken
        if (char := match["char"]) is not None:
            if char in _SIMPLE:
                return _SIMPLE[char]
            broken = True  # \c and the undefined ones
            return ""
        digits, base = (match["oct"], 8) if match["oct"] is not None else (match["hex"] or match["u4"] or match["u8"], 16)
        code = int(digits, base)
        # Octal and hex escapes are bytes; a lone byte over 0x7f is not text. \u is a character in a UTF-8 locale.
        limit = 0x80 if match["oct"] is not None or match["hex"] is not None else 0x110000
        if not 0 < code < limit or 0xD800 <= code <= 0xDFFF:
            broken = True
            return ""
        return chr(code)

    decoded = _ANSI.sub(one, raw)
    return None if broken or (raw.endswith("\\") and not raw.endswith("\\\\")) else decoded


def expansion(bare: str, *, assignment: bool = False) -> str:
    """Say what the bare characters of a word would expand as (`glob`, `brace`, `tilde`), or an empty string."""
    if "*" in bare or "?" in bare or "\\" in bare or ("[" in bare and bare != "["):
        return "glob"
    if _BRACES.search(bare):
        return "brace-expansion"
    if bare.startswith("~") or "=~" in bare or ((assignment or "=" in bare) and ":~" in bare):
        return "tilde"
    return ""


def home(bare: str) -> bool:
    """Tell whether a word is `~` or `~/…` and nothing else in it expands: every shell makes HOME of that, split nowhere."""
    return bare[:1] == "~" and bare[1:2] in ("", "/") and not expansion(QUOTED + bare[1:])


def single_quoted(value: str) -> str:
    """Quote for any POSIX shell: identical in bash, dash, zsh, mksh and busybox."""
    return "'" + value.replace("'", "'\\''") + "'"
