"""ssh and psql: what their options do at this end, and where the text for the other end stands.

What that text does is asked elsewhere (`shell.launchers`, `shell.queries`). Spec: OpenSSH ssh(1) and ssh.c; psql(1) 15.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from interlock.commands.model import Stdin
from interlock.commands.programs.options import Grammar, Item, Operand, Option, Problem, parse
from interlock.commands.programs.run import Run, host_of
from interlock.commands.programs.schema import Program


def _flags(letters: str) -> frozenset[str]:
    return frozenset(f"-{letter}" for letter in letters)


SSH = Grammar(_flags("46AaCfgKkMNnqsTtvXxYy"), _flags("BbcDEeFIiJLlmOopRSWw"), permute=False)
"""Without -G, -Q and -V, which only print: -G runs what `Match exec` in the configuration says."""


@dataclass(frozen=True, slots=True)
class SshCall:
    """Options of both sides of the destination, the destination, and the index of the first word of the command."""

    options: tuple[Option | Problem, ...]
    destination: str = ""
    command: int | None = None

    def has(self, *names: str) -> bool:
        return any(isinstance(i, Option) and i.name in names for i in self.options)

    @property
    def host(self) -> str:
        return host_of(self.destination)


def ssh_call(argv: Sequence[str]) -> SshCall:
    """Split as ssh does: options may stand on both sides of the destination, but not behind a `--` before it."""
    items = parse(argv, SSH, first=1, stop_at_operand=True)
    options = [i for i in items if not isinstance(i, Operand)]
    if not items or not isinstance(items[-1], Operand):
        return SshCall(tuple(options))
    place = items[-1].index
    rest: list[Item] = [Operand(w, place + 1 + k) for k, w in enumerate(argv[place + 1 : place + 2])]
    if argv[place - 1] != "--":
        rest = parse(argv, SSH, first=place + 1, stop_at_operand=True)
        options += [i for i in rest if not isinstance(i, Operand)]
    command = rest[-1].index if rest and isinstance(rest[-1], Operand) else None
    return SshCall(tuple(options), argv[place], command)


_PLAIN_SETTINGS = frozenset(
    """addressfamily batchmode bindaddress checkhostip ciphers compression connectionattempts connecttimeout
    hostkeyalgorithms identitiesonly kexalgorithms loglevel macs numberofpasswordprompts passwordauthentication port
    preferredauthentications pubkeyauthentication requesttty serveralivecountmax serveraliveinterval
    stricthostkeychecking tcpkeepalive user""".split()
)
"""What `-o` may set without running, reading, forwarding or redirecting anything."""

_FORWARDS = frozenset("-L -R -D -W -w".split())
_RUNS = frozenset("-F -I -O -S".split())


def ssh(run: Run, program: Program, first: int) -> None:
    call = ssh_call(run.argv)
    for item in call.options:
        if isinstance(item, Problem):
            run.opaque(item.reason, item.text)
            continue
        value = item.value or ""
        if item.name == "-o":
            setting = re.split(r"[=\s]", value.strip(), maxsplit=1)[0].lower()
            if setting not in _PLAIN_SETTINGS:
                run.opaque("option-runs-code", value)
        elif item.name in _RUNS:
            run.opaque("option-runs-code", value)
        elif item.name in _FORWARDS:
            run.add("network", value, detail="forward")
        elif item.name == "-J":
            for hop in value.split(","):
                run.network(hop, detail="route")
        elif item.name == "-E":
            run.path("write", value, detail="append")
        elif item.name == "-i":
            run.path("read", value)
            run.add("identity", value, detail="keys")
        elif item.name in ("-A", "-K"):
            run.add("identity", "agent" if item.name == "-A" else "tickets", detail="keys")  # the other machine may use them
        elif item.name in ("-X", "-Y"):
            run.add("network", "display", detail="forward")
    run.outcome.stdin = Stdin.IGNORED if call.has("-n", "-f") else Stdin.DATA
    if call.destination:
        run.network(call.destination)
    # What the other account's shell, its start-up files and the machine behind it are is not known here.
    run.opaque("remote-session", call.destination)


_VARIABLES = re.compile(r"[a-z][a-z0-9_]*(?:=|\Z)|(?:ON_ERROR_STOP|ON_ERROR_ROLLBACK|QUIET|VERBOSITY|ECHO|SHOW_CONTEXT)=")
"""Variables that change what is shown, or nothing at all: psql's own ones are written in capitals."""


def psql(run: Run, program: Program, first: int) -> None:
    items = parse(run.argv, program.grammar, first=first)
    run.walk(program, items)
    given = [i for i in items if isinstance(i, Option)]
    for item in given:
        value = item.value or ""
        if item.name in ("-o", "--output") and value.startswith("|"):
            run.opaque("option-runs-code", value)
        elif item.name in ("-o", "--output"):
            run.path("write", value)
        elif item.name in ("-v", "--set", "--variable") and not _VARIABLES.match(value):
            run.opaque("option-runs-code", value)
        elif item.name in ("-f", "--file") and value != "-":
            run.path("read", value)
            run.opaque("script-file", value)
    run.outcome.stdin = Stdin.CODE if psql_reads(items) else Stdin.DATA


def psql_reads(items: Sequence[Item]) -> bool:
    """Tell whether psql takes commands from its standard input: nothing else gives them, or `-f -` says so."""
    options = [i for i in items if isinstance(i, Option)]
    if any(i.name in ("-f", "--file") and i.value == "-" for i in options):
        return True
    return not any(i.name in ("-c", "--command", "-f", "--file") for i in options)
