"""Which sed and awk scripts only rewrite text: recognised by what they lack, whatever dialect of the language runs them.

A script that is not recognised is code of another language. Nothing here reads a script to know what it prints.
Spec: GNU sed manual 3 and 5; POSIX sed; gawk manual 4.10 and 5.6 (what reaches out of an awk program).
"""

from __future__ import annotations

import re

# -- awk ----------------------------------------------------------------------------------------------------------------

_AWK_FUNCTIONS = frozenset(
    """length substr index split sub gsub gensub match tolower toupper sprintf int sqrt exp log sin cos atan2 rand srand
    strftime systime mktime print printf if while for in return delete exit else do BEGIN END and or""".split()
)
"""Words that may stand before a parenthesis."""

_AWK_REACHES = re.compile(
    r"system|getline|close|fflush|ENVIRON|PROCINFO|SYMTAB|FUNCTAB|ARG|func|include|load|namespace|nextfile|extension|@|\\\r?\n"
)
_AWK_CALL = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t]*\(")


def awk_only_rewrites(program: str) -> bool:
    """Tell whether an awk program has no way out: no command, pipe, file, environment, or other input than it is given.

    The words are looked for in the whole text, inside of strings and patterns too, so that it does not matter where an awk
    sees a string end. Before the first print `>` can only compare; behind it, it may write.
    """
    if _AWK_REACHES.search(program) or "|" in program.replace("||", ""):
        return False
    if ">" in program.partition("print")[2]:
        return False
    return all(name in _AWK_FUNCTIONS for name in _AWK_CALL.findall(program))


def awk_variable(assignment: str) -> bool:
    """Tell whether `-v NAME=VALUE` sets a variable of the program's own: those of awk itself are in capitals."""
    return bool(re.match(r"[a-z][a-z0-9_]*=", assignment))


# -- sed ----------------------------------------------------------------------------------------------------------------

_SED_BLANK = re.compile(r"[ \t;\n]*")
_SED_PLACE = re.compile(r"[0-9]+(?:~[0-9]+)?|\$")
_SED_STEP = re.compile(r"[+~][0-9]+")
_SED_PLAIN = re.compile(r"[pPdDnNhHgGx=]|[qQ][ \t]*[0-9]*|[btT][ \t]*[A-Za-z0-9_]*|:[ \t]*[A-Za-z0-9_]+")
_SED_FLAGS = re.compile(r"[gpIiMm0-9]*")
_SED_END = re.compile(r"[ \t]*(?=[;\n}]|\Z)")
_SED_DELIMITERS = frozenset("/|,#:@!%")


def sed_only_rewrites(script: str) -> bool:
    """Tell whether every command of a sed script works on the text alone: none runs, reads or writes a file."""
    position = _skip(script, 0)
    while position < len(script):
        if script[position] == "}":
            position = _skip(script, position + 1)
            continue
        after = _command(script, position)
        if after is None:
            return False
        position = _skip(script, after)
    return True


def _skip(script: str, position: int) -> int:
    found = _SED_BLANK.match(script, position)
    return found.end() if found else position


def _blanks(script: str, position: int) -> int:
    while script[position : position + 1] in (" ", "\t") and position < len(script):
        position += 1
    return position


def _command(script: str, position: int) -> int | None:
    """Return where the command at `position` ends, or None when it is not one of those known."""
    place = _address(script, position)
    if place is None:
        return None
    position = place
    while script[position : position + 1] == "!":
        position = _blanks(script, position + 1)
    letter = script[position : position + 1]
    if letter == "{":
        return position + 1
    if letter in ("s", "y"):
        end = _two_parts(script, position + 1)
        if end is None:
            return None
        flags = _SED_FLAGS.match(script, end) if letter == "s" else None
        position = flags.end() if flags else end
    else:
        plain = _SED_PLAIN.match(script, position)
        if plain is None:
            return None
        position = plain.end()
    ended = _SED_END.match(script, position)
    return ended.end() if ended else None


def _address(script: str, position: int) -> int | None:
    """Skip `N`, `$`, `/RE/` and a second one behind a comma. None when one does not end."""
    for count in (1, 2):
        if script[position : position + 1] == "/":
            end = _part(script, position + 1, "/")
            if end is None:
                return None
            position = end + 1 if script[end : end + 1] in ("I", "M") and end < len(script) else end
        else:
            found = _SED_PLACE.match(script, position) or (_SED_STEP.match(script, position) if count == 2 else None)
            if found is None:
                return position if count == 1 else None
            position = found.end()
        position = _blanks(script, position)
        if count == 2 or script[position : position + 1] != ",":
            return position
        position = _blanks(script, position + 1)
    return position


def _two_parts(script: str, position: int) -> int | None:
    delimiter = script[position : position + 1]
    if delimiter not in _SED_DELIMITERS or not delimiter:
        return None
    middle = _part(script, position + 1, delimiter)
    return _part(script, middle, delimiter, pattern=False) if middle is not None else None


def _part(script: str, position: int, delimiter: str, *, pattern: bool = True) -> int | None:
    """Return the place behind the closing delimiter. Seds differ inside of brackets: a delimiter in them is not understood."""
    start = position
    while position < len(script):
        letter = script[position]
        if letter == "\n":
            return None
        if letter == "\\":
            position += 2
        elif letter == delimiter:
            text = script[start:position]
            return None if pattern and _open_bracket(text, delimiter) else position + 1
        else:
            position += 1
    return None


def _open_bracket(pattern: str, delimiter: str) -> bool:
    """Tell whether a delimiter could stand inside of brackets, for a sed that knows them or for one that does not."""
    position = 0
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 2
            continue
        if pattern[position] == "[":
            closed = re.compile(r"\[\^?\]?(?:\[[:.=][^\]]*[:.=]\]|[^\]\\\[])*\]").match(pattern, position)
            if closed is None or delimiter in closed.group():
                return True
            position = closed.end()
            continue
        position += 1
    return False
