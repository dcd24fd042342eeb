"""The shape of an entry in `data/*.yaml`, checked strictly: an unknown key or verb stops the load.

An effect is written `VERB[/DETAIL][:OBJECT]`; several are joined with `+`. Without OBJECT the object is the operand (or
the option's value); `{}` inside OBJECT stands for it. The verbs `read`, `list`, `write`, `output` and `delete` take paths
(`output` is a `write` for which `-` is the standard output); `none` is no effect; `opaque/REASON` can't be known.
docs/commands.md explains each key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from interlock.commands.model import SHELL_VERBS, Stdin
from interlock.commands.programs.options import Grammar

PATH_VERBS = frozenset({"read", "list", "write", "output", "delete"})
SPECIALS = frozenset(
    (
        "find", "test", "tar", "dd", "ps", "kill", "sed", "awk", "chmod", "cd", "echo", "date", "jq", "printf", "exit",
        "shell-state", "read", "zip", "sysctl", "lsof", "curl", "copies", "git", "git-server", "ssh", "psql", "flock",
        "umask",
    )
)  # fmt: skip


class SchemaError(Exception):
    """An entry is not of the shape above."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One effect as written in the data."""

    verb: str
    detail: str = ""
    object: str | None = None


Specs = tuple[Spec, ...]


@dataclass(frozen=True, slots=True)
class Operands:
    first: Specs | None = None
    first_unless: frozenset[str] = frozenset()  # options that take the place of the first operand
    rest: Specs | None = None  # None: operands are not expected, and opaque
    last: Specs | None = None
    last_unless: frozenset[str] = frozenset()
    absent: Specs = ()
    absent_unless: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()  # operands (split at / and ,) that name secrets


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    grammar: Grammar = field(default_factory=Grammar)
    option_effects: Mapping[str, Specs] = field(default_factory=dict)
    recursive: frozenset[str] = frozenset()
    always_recursive: bool = False
    force: frozenset[str] = frozenset()
    always: Specs = ()
    always_unless: frozenset[str] = frozenset()
    operands: Operands = field(default_factory=Operands)
    stdin: Stdin = Stdin.IGNORED
    code_unless: frozenset[str] = frozenset()  # options that give the code, so that stdin is data
    filter: bool = False  # reads standard input when no operand (or `-`) is given
    subcommands: Mapping[str, Program] = field(default_factory=dict)
    default_subcommand: bool = False  # without a subcommand the entry's own rules apply
    special: str = ""
    verbs: Mapping[str, Specs] = field(default_factory=dict)  # classes of calls that are not listed, by a word in them


_KEYS = frozenset(
    (
        "flags", "values", "optional", "permute", "complete", "digits", "single_dash", "recursive", "always_recursive",
        "force", "always", "operands", "stdin", "subcommands", "default_subcommand", "special", "flag_effects", "like",
        "code_unless", "always_unless", "verbs",
    )
)  # fmt: skip
_OPERAND_KEYS = frozenset({"first", "first_unless", "rest", "last", "last_unless", "absent", "absent_unless", "secrets"})


def specs(text: object) -> Specs:
    """Read `read`, `write/owner`, `network:{}` or several joined with `+`. Raise SchemaError."""
    if not isinstance(text, str):
        raise SchemaError(f"an effect is written as text, not {text!r}")
    found: list[Spec] = []
    for part in text.split("+"):
        head, colon, target = part.strip().partition(":")
        verb, _, detail = head.partition("/")
        if verb == "none":
            continue
        if verb not in SHELL_VERBS and verb not in ("list", "output", "opaque"):
            raise SchemaError(f"{verb!r} is not an effect verb")
        found.append(Spec(verb, detail, target if colon else None))
    return tuple(found)


def _words(value: object) -> frozenset[str]:
    if not isinstance(value, str):
        raise SchemaError(f"a list of options is written as one text, not {value!r}")
    return frozenset(value.split())


def _table(value: object) -> dict[str, Specs]:
    """Read {"-o --output": write, …}: several names may share one effect."""
    if not isinstance(value, Mapping):
        raise SchemaError(f"expected a mapping of options, not {value!r}")
    found: dict[str, Specs] = {}
    for names, effect in value.items():
        for name in str(names).split():
            if name in found:
                raise SchemaError(f"{name} stands twice")
            found[name] = specs(effect)
    return found


def _verbs(value: object) -> dict[str, Specs]:
    """Read {"create-* put-*": cloud/write, …}: a word may be of several classes."""
    found: dict[str, Specs] = {}
    for names, effect in value.items() if isinstance(value, Mapping) else ():
        for name in str(names).split():
            found[name] = (*found.get(name, ()), *specs(effect))
    return found


def _operands(value: object) -> Operands:
    if isinstance(value, str):
        return Operands(rest=specs(value))
    if not isinstance(value, Mapping) or not set(value) <= _OPERAND_KEYS:
        raise SchemaError(f"operands: {value!r}")
    return Operands(
        first=specs(value["first"]) if "first" in value else None,
        first_unless=_words(value.get("first_unless", "")),
        rest=specs(value["rest"]) if "rest" in value else None,
        last=specs(value["last"]) if "last" in value else None,
        last_unless=_words(value.get("last_unless", "")),
        absent=specs(value.get("absent", "none")),
        absent_unless=_words(value.get("absent_unless", "")),
        secrets=_words(value.get("secrets", "")),
    )


def program(name: str, entry: Mapping[str, Any], known: Mapping[str, Program], parent: Program | None = None) -> Program:
    """Read one entry. A subcommand inherits its parent's options; `like` copies another entry. Raise SchemaError."""
    if not isinstance(entry, Mapping) or (unknown := set(entry) - _KEYS):
        raise SchemaError(f"{name}: unknown keys {sorted(unknown) if isinstance(entry, Mapping) else entry!r}")
    base = Program(name)
    if "like" in entry:
        if entry["like"] not in known:
            raise SchemaError(f"{name}: like {entry['like']!r}, which is not above it")
        base = known[entry["like"]]
    inherited = parent.grammar if parent is not None else base.grammar
    values, optional = _table(entry.get("values", {})), _table(entry.get("optional", {}))
    flag_effects = _table(entry.get("flag_effects", {}))
    own = [_words(entry.get("flags", "")) | frozenset(flag_effects), frozenset(values), frozenset(optional)]
    if twice := (own[0] & own[1]) | (own[0] & own[2]) | (own[1] & own[2]):
        raise SchemaError(f"{name}: {sorted(twice)} can't both take a value and take none")
    grammar = Grammar(
        flags=inherited.flags | base.grammar.flags | _words(entry.get("flags", "")) | frozenset(flag_effects),
        values=inherited.values | base.grammar.values | frozenset(values),
        optional=inherited.optional | base.grammar.optional | frozenset(optional),
        permute=bool(entry.get("permute", inherited.permute)),
        complete=bool(entry.get("complete", inherited.complete)),
        digits=bool(entry.get("digits", inherited.digits)),
        single_dash=bool(entry.get("single_dash", inherited.single_dash)),
    )
    stdin = str(entry.get("stdin", "filter" if base.filter else base.stdin))
    if stdin not in ("filter", "ignored", "data", "code"):
        raise SchemaError(f"{name}: stdin {stdin!r}")
    special = str(entry.get("special", base.special))
    if special and special not in SPECIALS:
        raise SchemaError(f"{name}: special {special!r}")
    effects = {**(parent.option_effects if parent else {}), **base.option_effects, **values, **optional, **flag_effects}
    made = Program(
        name=name,
        grammar=grammar,
        option_effects=effects,
        recursive=base.recursive | _words(entry.get("recursive", "")),
        always_recursive=bool(entry.get("always_recursive", base.always_recursive)),
        force=base.force | _words(entry.get("force", "")),
        always=specs(entry["always"]) if "always" in entry else base.always,
        always_unless=base.always_unless | _words(entry.get("always_unless", "")),
        operands=_operands(entry["operands"]) if "operands" in entry else base.operands,
        stdin=Stdin.IGNORED if stdin == "filter" else Stdin(stdin),
        code_unless=base.code_unless | _words(entry.get("code_unless", "")),
        filter=stdin == "filter",
        default_subcommand=bool(entry.get("default_subcommand", False)),
        special=special,
        verbs={**(parent.verbs if parent else {}), **base.verbs, **_verbs(entry.get("verbs", {}))},
    )
    table = entry.get("subcommands", {})
    if not isinstance(table, Mapping):
        raise SchemaError(f"{name}: subcommands")
    subcommands = {
        word: program(f"{name} {word}", below or {}, known, made) for words, below in table.items() for word in str(words).split()
    }
    return replace(made, subcommands=subcommands)
