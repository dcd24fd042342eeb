"""Shell texts and commands that ordinary programs are handed in an option or a file, beside their own work.

The program's entry has said already that a person must see it (`option-runs-code`, `interpreter-code`, `schedule`); here is what
would run, for rules that deny and for that person. Nothing becomes known by it. Sources: the GNU tar manual 1.34, git-config(1),
tmux(1) 3.3, screen(1) 4.9, crontab(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from interlock.commands.programs.options import Grammar, Operand, Option, parse
from interlock.commands.shell.effective import inert
from interlock.commands.shell.inner import Inner

_TAR_TEXTS = "-I --use-compress-program --to-command -F --info-script --new-volume-script".split()
_GIT_TEXTS = re.compile(
    r"core\.(?:pager|editor|sshcommand|fsmonitor)|pager\..*|sequence\.editor|diff\.external|interactive\.difffilter"
    r"|(?:diff|filter|merge)\..*\.(?:textconv|command|clean|smudge|process|driver)",
    re.IGNORECASE,
)
"""Settings whose value git gives to a shell."""

_TMUX = Grammar(frozenset("-2 -C -D -l -N -u -v".split()), frozenset("-c -f -L -S -T".split()), permute=False)
_NEW_SESSION = Grammar(frozenset("-A -d -D -E -P -X".split()), frozenset("-c -e -f -F -n -s -t -x -y".split()), permute=False)
_NEW_WINDOW = Grammar(frozenset("-a -b -d -k -P -S".split()), frozenset("-c -e -F -n -t".split()), permute=False)
_SPLIT = Grammar(frozenset("-b -d -f -h -I -v -P -Z".split()), frozenset("-c -e -F -l -p -t".split()), permute=False)
_TMUX_STARTS = {
    "new-session": _NEW_SESSION, "new": _NEW_SESSION, "new-window": _NEW_WINDOW, "neww": _NEW_WINDOW,
    "split-window": _SPLIT, "splitw": _SPLIT,
}  # fmt: skip
_TERMINAL = (("interpreter-code", "a terminal that stays"),)
_SCREEN = Grammar(
    frozenset("-4 -6 -a -A -d -D -i -l -L -m -O -q -U".split()), frozenset("-c -e -h -p -s -S -t -T".split()), permute=False
)


def carried(name: str, argv: Sequence[str], grammar: Grammar | None) -> list[Inner] | None:
    """Return what the program `name` is handed to run. `grammar` is that of its entry, when it has one."""
    match name:
        case "tar" if grammar is not None:
            return [Inner(text=text, name=name) for text in _tar(argv, grammar)]
        case "git" if grammar is not None:
            return [Inner(text=text, name=name) for text in _git(argv, grammar)]
        case "tmux":
            return _tmux(argv)
        case "screen":
            operands = [i for i in parse(argv, _SCREEN, first=1) if isinstance(i, Operand)]
            return [Inner(argv=(operands[0].index, len(argv)), name=name, opaque=_TERMINAL)] if operands else None
    return None


def _tar(argv: Sequence[str], grammar: Grammar) -> Iterator[str]:
    for item in parse(argv, grammar, first=1):
        if isinstance(item, Option) and item.name in _TAR_TEXTS:
            yield item.value or ""
        elif isinstance(item, Option) and item.name == "--checkpoint-action" and (item.value or "").startswith("exec="):
            yield (item.value or "").removeprefix("exec=")


def _git(argv: Sequence[str], grammar: Grammar) -> Iterator[str]:
    for item in parse(argv, grammar, first=1, stop_at_operand=True):
        if isinstance(item, Option) and item.name == "-c":
            setting, _, value = (item.value or "").partition("=")
            if setting.lower().startswith("alias.") and value.startswith("!"):
                yield value[1:]
            elif _GIT_TEXTS.fullmatch(setting):
                yield value


def _tmux(argv: Sequence[str]) -> list[Inner] | None:
    """One word is for the server's default shell; several are a command."""
    command = next((i for i in parse(argv, _TMUX, first=1, stop_at_operand=True) if isinstance(i, Operand)), None)
    if command is None or (grammar := _TMUX_STARTS.get(command.value)) is None:
        return None
    operands = [i for i in parse(argv, grammar, first=command.index + 1) if isinstance(i, Operand)]
    if not operands:
        return None
    first = operands[0].index
    if len(argv) - first == 1:
        return [Inner(text=argv[first], name="tmux", opaque=(("foreign-shell", "tmux"),))]
    return [Inner(argv=(first, len(argv)), name="tmux", opaque=_TERMINAL)]


_ENTRY = re.compile(r"[ \t]*(?:@[a-z]+|(?:[-*/,0-9A-Za-z]+[ \t]+){4}[-*/,0-9A-Za-z]+)[ \t]+(.*)")
_SETTING = re.compile(r"[ \t]*([A-Za-z_]\w*)[ \t]*=[ \t]*(.*)")


def scheduled(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the commands of a crontab, each for `sh`, and what of it is opaque. What follows a `%` is their input."""
    commands: list[str] = []
    opaque: list[tuple[str, str]] = []
    for line in text.split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if (setting := _SETTING.fullmatch(line)) is not None:
            if not inert(setting[1], setting[2]):
                opaque.append(("assignment", setting[1]))
        elif (entry := _ENTRY.fullmatch(line)) is not None:
            command, *given = re.split(r"(?<!\\)%", entry[1])
            commands.append(command.replace("\\%", "%"))
            opaque.extend(("stdin-code", line) for _ in given[:1])
        else:
            opaque.append(("unknown-operand", line))
    return commands, opaque
