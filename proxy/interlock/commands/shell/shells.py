"""Shells: where the text stands that one is given, or that it reads its commands. Spec: POSIX sh, OPTIONS; bash(1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from interlock.commands.shell.inner import Inner

SHELLS = frozenset("sh bash dash ash ksh zsh mksh".split())
_SHELL_OPTIONS = frozenset("errexit nounset pipefail noglob xtrace verbose noclobber allexport posix noexec notify".split())


def shell(argv: Sequence[str]) -> Inner | None:
    """sh, bash, dash, …: `-c text`, a script file, or commands on standard input (POSIX sh, OPTIONS)."""
    index, has_text = 1, False
    opaque: list[tuple[str, str]] = []
    from_stdin = False
    while index < len(argv):
        word = argv[index]
        if word in ("-", "--"):
            index += 1
            break
        if word in ("-o", "+o") or re.fullmatch(r"[-+][abefhlmnuvxsc]*o", word):
            has_text = has_text or (word[0] == "-" and "c" in word)
            if index + 1 >= len(argv) or argv[index + 1] not in _SHELL_OPTIONS:
                opaque.append(("unknown-option", word))
            index += 2
            continue
        if word in ("--norc", "--noprofile", "--posix", "--login", "--noediting"):
            index += 1
            continue
        if re.fullmatch(r"-[abefhlmnuvxsc]+", word) or re.fullmatch(r"\+[abefhmnuvx]+", word):
            has_text = has_text or "c" in word
            from_stdin = from_stdin or "s" in word
            index += 1
            continue
        if word in ("--version", "--help") and len(argv) == 2:
            return None
        if word[:1] in ("-", "+") and len(word) > 1:
            opaque.append(("unknown-option", word))
            has_text = has_text or (re.match(r"-[a-zA-Z]*c\Z", word) is not None)
            index += 1
            continue
        break
    if has_text:
        if index >= len(argv):
            return Inner(opaque=(*opaque, ("no-command", argv[0])))
        return Inner(script=index, opaque=tuple(opaque))
    if index < len(argv) and not from_stdin:
        return Inner(verb="execute", object=argv[index], opaque=(*opaque, ("script-file", argv[index])))
    return Inner(reads_script=True, opaque=tuple(opaque))
