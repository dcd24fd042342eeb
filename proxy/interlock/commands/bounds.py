"""How much an analysis may hold: what a text names once must not be kept once for each thing that it does.

Every effect of a shell command carries the whole command line, so that a list of 2,300 files would be kept 2,300 times. Pure.
An effect beyond the budget loses its operands, never its verb, object, program or flags: rules that deny still see it, and
nothing is allowed by a machine any more. What can't be listed at all is refused, so that no length hides an effect.
"""

from __future__ import annotations

from dataclasses import replace

from interlock.commands.model import Analysis, Effect, Opaque, Unreadable
from interlock.errors import Reason

TOO_MANY = "too-many-words"
WORDS = 64 * 1024
"""Characters of the words (argv, functions, columns) of all effects of one analysis."""
ESSENCE = 64 * 1024
"""Characters of what is kept of the command lines beyond that: program, subcommand and options, which rules ask for."""
LISTED = 960 * 1024
"""Characters of everything else in the effects, with EACH for an effect."""
EACH = 320
"""What an effect costs besides its words: the names of its fields in a stored request."""
EFFECTS = LISTED // EACH
OPAQUE = 500
"""Opaque parts that are kept, and the first of each further reason."""
WALKED = 10_000
"""Effects, with repetitions, beyond which nobody goes on to look for more."""
_BETWEEN = 4
"""Quotes, a comma: what a word costs besides its characters."""


class TooMany(Exception):  # noqa: N818  # not an error of anybody: a stop for the walks, which ends as `refused`
    """A text has more effects than can be listed."""


def bounded(analysis: Analysis) -> Analysis:
    """Return the analysis within its bounds: the same object when nothing had to go. Never loses an effect silently."""
    if analysis.unreadable is not None:
        return analysis
    effects = analysis.effects
    if _listed(effects) > LISTED:
        effects = tuple(dict.fromkeys(effects))
        if _listed(effects) > LISTED:
            return refused(analysis)
    if sum(map(_words, effects)) > WORDS:
        effects = _trimmed(effects)
    opaque = _few(analysis.opaque)
    if effects is analysis.effects and opaque is analysis.opaque:
        return analysis
    return replace(analysis, effects=effects, opaque=(*opaque, Opaque(TOO_MANY)), sent=None)


def refused(analysis: Analysis) -> Analysis:
    """Return the refusal of a text whose effects can't be listed: nobody can review it, and no rule has seen all of it."""
    message = "the command does more things than can be listed; send it in parts"
    return replace(analysis, effects=(), opaque=(), sent=None, names=(), unreadable=Unreadable(Reason.TOO_LARGE, message))


def _trimmed(effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
    """Drop words beyond the budget. Every different command line, the shortest first, comes before any repetition."""
    lines: dict[tuple[str, ...], int] = {}
    objects: dict[tuple[str, ...], set[str]] = {}
    for index, effect in enumerate(effects):
        lines.setdefault(effect.argv, index)
        objects.setdefault(effect.argv, set()).add(effect.object)
    essence = {argv: _essence(argv, named) for argv, named in objects.items()}
    firsts = frozenset(lines.values())
    told: set[str] = set()
    left, spare = WORDS, ESSENCE
    kept: dict[int, Effect] = {}
    for index in sorted(range(len(effects)), key=lambda i: (i not in firsts, _words(effects[i]) if i in firsts else 0, i)):
        effect = effects[index]
        cost = _words(effect)
        if cost <= left:
            left -= cost
        else:
            words = essence[effect.argv]
            words, spare = (words, spare - _length(words)) if _length(words) <= spare else ((), spare)
            effect = replace(
                effect, argv=words,
                functions=tuple(f for f in effect.functions if f not in told),
                columns=tuple(c for c in effect.columns if c not in told),
            )  # fmt: skip
        told.update(effect.functions, effect.columns)
        kept[index] = effect
    return tuple(dict.fromkeys(kept[index] for index in range(len(effects))))


def _essence(argv: tuple[str, ...], named: set[str]) -> tuple[str, ...]:
    """Return the program, subcommands and options: each word once that is no object of the line's own effects."""
    return tuple(dict.fromkeys(word for word in argv if word not in named))


def _few(opaque: tuple[Opaque, ...]) -> tuple[Opaque, ...]:
    if len(opaque) <= OPAQUE:
        return opaque
    further: dict[str, Opaque] = {}
    for one in opaque[OPAQUE:]:
        further.setdefault(one.reason, one)
    return (*opaque[:OPAQUE], *further.values())


def _words(effect: Effect) -> int:
    return _length(effect.argv) + _length(effect.functions) + _length(effect.columns)


def _listed(effects: tuple[Effect, ...]) -> int:
    return sum(
        EACH + len(e.object) + len(e.program) + len(e.host) + len(e.schema) + len(e.detail) + _length(e.via) for e in effects
    )


def _length(words: tuple[str, ...]) -> int:
    return sum(map(len, words)) + _BETWEEN * len(words)
