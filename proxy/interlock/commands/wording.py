"""What a command would do, in sentences for a tired person: one for each effect, the most dangerous first.

Pure. Every verb of the model has its words here, and so has every reason why something can't be known (a test demands
both). Names inside a sentence went through `display.inline`: they can't pretend to be something else, nor end the
sentence early. Says what `Analysis` says and no more; knows neither who asks nor what policy thinks of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from interlock.commands.display import inline
from interlock.commands.model import Analysis, Effect, Opaque, Wire
from interlock.commands.names import name
from interlock.commands.shell.wording import SHELL_WORDS
from interlock.commands.sql.wording import SQL_WORDS
from interlock.commands.unknowns import WORDS


def sentences(analysis: Analysis, wire: Wire, of: Collection[Effect] | None = None) -> tuple[str, ...]:
    """Return what the command would do, each thing once. Empty when nothing is known; see `unknowns`.

    `of` are the effects to tell, when not all of them are meant.
    """
    accounts = _accounts(analysis.effects)
    kept = [effect for effect in analysis.effects if not _only_starts(effect, analysis.effects)]
    if of is not None:
        kept = [effect for effect in kept if effect in of] or list(of)
    ranked = sorted(kept, key=lambda effect: _rank(effect, wire))  # stable: the order of the text within a rank
    return tuple(dict.fromkeys(sentence(effect, wire, accounts) for effect in ranked))


def unknowns(analysis: Analysis) -> tuple[str, ...]:
    """Return what can't be known, each reason once."""
    found = [unknown(opaque) for opaque in analysis.opaque]
    if analysis.unreadable is not None:
        found.insert(0, f"can't be read: {inline(analysis.unreadable.message)}")
    return tuple(dict.fromkeys(found))


def sentence(effect: Effect, wire: Wire, accounts: Mapping[tuple[str, ...], str] | None = None) -> str:
    """Return the sentence of one effect. `accounts` tells as whom a wrapper (sudo, su) runs what is inside."""
    sql = wire is Wire.POSTGRES or _PSQL in effect.via
    words = (SQL_WORDS if sql else SHELL_WORDS).get(effect.verb)
    if words is None:
        return f"does something that has no words here, to {name(effect)}"
    if wire is Wire.POSTGRES:
        return words(effect) + _around_sql(effect.via)
    outer = effect.via.index(_PSQL) + 1 if sql else len(effect.via)
    around = _around(replace(effect, via=effect.via[:outer]), accounts or {})
    return words(effect) + around + _around_sql(effect.via[outer:])


_PSQL = "psql"
"""It starts nothing: what is said to go through it is SQL."""


def unknown(opaque: Opaque) -> str:
    """Return why a part can't be known, with the part."""
    words = WORDS.get(opaque.reason)
    if words is None and opaque.reason.startswith("redirection-"):
        words = f"{WORDS['redirection']}: {WORDS.get(opaque.reason.removeprefix('redirection-'), 'it was not understood')}"
    words = words or "it was not understood"
    return f"can't be known: {words}" + (f": {inline(opaque.text)}" if opaque.text else "")


# -- the order ---------------------------------------------------------------------------------------------------------

_GRAVEST = """do copy_program kernel secret privilege identity interpret drop truncate delete container cluster cloud package
    service schedule history execute process copy_file merge update insert copy_in grant revoke alter create call function
    replication write network lock vacuum copy_out notify set reset prepare fetch cursor select read listen explain
    transaction nothing""".split()
_RANK = {verb: number for number, verb in enumerate(_GRAVEST)}
_FIRST, _LAST = -1, len(_GRAVEST)


def _rank(effect: Effect, wire: Wire) -> int:
    """Everything at once is graver than its verb; what only speaks of itself or of metadata is last."""
    if effect.verb in ("delete", "update", "merge") and not effect.filtered:
        return _FIRST
    if wire is Wire.SSH and effect.verb == "delete" and effect.recursive:
        return _FIRST
    if effect.detail in ("harmless-form", "wrapper", "filter") or (effect.verb, effect.object) == ("read", "arguments"):
        return _LAST
    return _RANK.get(effect.verb, _FIRST)


_ONLY_ACCOUNTS = frozenset("sudo doas su runuser pkexec gosu su-exec".split())
"""Wrappers that `as whom` says everything about."""


def _only_starts(effect: Effect, effects: tuple[Effect, ...]) -> bool:
    """A wrapper that only starts what follows is told with what follows; sudo and su by `as whom`."""
    if effect.detail == "wrapper":
        inside = (*effect.via, effect.program or effect.object)
    elif effect.verb == "privilege" and effect.via and effect.detail == "":
        inside = effect.via
    else:
        return False
    return any(other.via[: len(inside)] == inside for other in effects if other is not effect)


def _accounts(effects: tuple[Effect, ...]) -> dict[tuple[str, ...], str]:
    """Say as whom what is inside of these wrappers runs. Two accounts behind the same wrappers are both named."""
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for effect in effects:
        if effect.verb == "privilege" and effect.via and not effect.detail:
            found.setdefault(effect.via, {})[inline(effect.object)] = None
    return {via: " or ".join(names) for via, names in found.items()}


def _around(effect: Effect, accounts: Mapping[tuple[str, ...], str]) -> str:
    """Tell what stands around a shell command: the account, the container, the programs that start it."""
    account = next((accounts[effect.via[:n]] for n in range(len(effect.via), 0, -1) if effect.via[:n] in accounts), "")
    told = f", as {account}" if account and effect.verb != "privilege" else ""
    if effect.origin == "remote" and effect.host:
        kind, colon, named = effect.host.partition(":")
        told += f", inside {kind} {inline(named)}" if colon else f", on {inline(effect.host)}"
    elif effect.origin in ("here-doc", "stdin"):
        told += ", by a script that it reads as input"
    starters = [s for s in effect.via if s not in _ONLY_ACCOUNTS or not account]
    return told + (f", through {' and '.join(map(inline, starters))}" if starters else "")


_SQL_AROUND = {
    "with": "",
    "copy": ", through COPY",
    "explain": ", because EXPLAIN ANALYZE runs it",
    "prepare": ", prepared only: it runs when somebody executes it",
    "execute": ", by a statement that was prepared before",
    "declare": ", through a cursor",
    "fetch": ", through a cursor",
    "create table as": ", to fill a new table",
    "merge": ", as a part of MERGE",
    "do": ", inside of the block of code",
    "definition": ", inside of what is defined",
}


def _around_sql(via: tuple[str, ...]) -> str:
    return "".join(dict.fromkeys(_SQL_AROUND.get(part, f", within {inline(part)}") for part in via))
