"""Which shells read a text as bash does: the account's own, and those that a text is handed to."""

from __future__ import annotations

from interlock.commands.shell.shells import SHELLS
from interlock.commands.shell.syntax import Script

POSIX_SHELLS = frozenset("unknown posix sh bash dash ash ksh mksh zsh busybox".split())
"""Account shells in which single-quoted words mean what they say. fish, tcsh and whatever else there is do not."""
PLAIN_SHELLS = frozenset("posix sh dash ash busybox".split())
"""Account shells that read forms of bash (`$'…'`, `<<<`, `&>`, `|&`) otherwise than bash does."""

HANDED_ON = frozenset("ssh at batch crontab tar git".split())
"""What hands a text to a shell that is not the account's own: of another machine, or `sh`, later."""


def foreign(script: Script, shell: str) -> bool:
    """Tell whether the shell may read the script otherwise than bash, or read what is sent instead of it otherwise.

    Written anew, most forms of bash are plain. `time` stays, and where it is no keyword it is a program.
    """
    return (script.dialect and shell in PLAIN_SHELLS) or (script.timed and shell == "unknown")


def reader(via: tuple[str, ...], account: str) -> str:
    """Return the shell that parses a text behind `via`: the innermost one around it, or the account's."""
    inside = [name for name in via if name in SHELLS or name in HANDED_ON]
    if inside and inside[-1] == "ssh":
        return "unknown"
    return "sh" if inside and inside[-1] != "bash" else "bash" if inside else account
