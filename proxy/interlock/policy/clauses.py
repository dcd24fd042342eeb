"""What a condition says for certain: its alternatives, the clauses that each needs, and whether they can be true together.

Reads tokens, runs nothing. Everything said here holds for every command, or it is not said: a form that is not
recognised is a clause of which nothing is known but that it is the same as itself. Knows CEL's `&&`, `||`, comparisons
with literals and `effects.exists`; nothing of rules or verdicts. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from interlock.policy.facts import WEEKDAYS
from interlock.policy.tokens import Token, tokens

Clause = tuple[str, ...]
"""The words of one clause: equal words mean the same in every condition of one kind."""

Values = frozenset[str]

MAX_ALTERNATIVES = 64

BOUNDS: Mapping[str, tuple[int, int]] = {
    "time.hour": (0, 23), "time.minute": (0, 59), "time.month": (1, 12), "time.day": (1, 31),
    "command.statements": (0, 1 << 31),
}  # fmt: skip
CLOSED: Mapping[str, Values] = {"time.weekday": frozenset(WEEKDAYS)}

_OPEN, _CLOSE = {"(", "[", "{"}, {")", "]", "}"}
_COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way for a condition to be true: everything here holds at once.

    `clauses` speak of the command; each of `some` are the clauses that hold of one and the same effect, which is called
    `effect` in them.
    """

    clauses: frozenset[Clause]
    some: tuple[frozenset[Clause], ...] = ()

    def needs(self, other: Alternative) -> bool:
        """Whether this holds only where `other` holds as well."""
        return _follow(other.clauses, self.clauses) and all(
            any(_follow(theirs, ours | self.clauses) for ours in self.some) for theirs in other.some
        )


@dataclass(slots=True)
class Known:
    """What clauses say of one fact. Texts: the values it may have (None: any) and those it has not. Numbers: an interval."""

    low: int
    high: int
    among: Values | None = None
    never: set[str] = field(default_factory=set)
    truth: set[bool] = field(default_factory=set)

    @property
    def impossible(self) -> bool:
        return self.low > self.high or len(self.truth) > 1 or (self.among is not None and not self.among - self.never)

    def within(self, other: Known) -> bool:
        """Whether every value that this leaves is left by the other."""
        left = None if self.among is None else self.among - self.never
        return (
            self.low >= other.low
            and self.high <= other.high
            and (not other.truth or self.truth == other.truth)
            and (other.among is None or (left is not None and left <= other.among))
            and (other.never <= self.never if left is None else not other.never & left)
        )


def alternatives(source: str | None) -> tuple[Alternative, ...] | None:
    """Return the ways in which a condition can be true (one without clauses for none), or None if it can't be read."""
    if source is None:
        return (Alternative(frozenset()),)
    words = list(tokens(source))
    if not _plain(words):
        return None
    found: list[Alternative] = []
    for conjuncts in _ways(words):
        found.append(_alternative(conjuncts))
        if len(found) > MAX_ALTERNATIVES:
            return None
    return tuple(found)


NOT_OPAQUE: Clause = ("effect", ".", "verb", "!=", '"opaque"')
"""What is known for certain of every effect of a command: opaque parts are not among them."""


def among(fact: str, values: Iterable[str]) -> Clause:
    """Write the clause that a fact has one of these values."""
    listed = [word for value in sorted(values) for word in (",", f'"{value}"')][1:]
    return (*(word for part in fact.split(".") for word in (".", part)), "in", "[", *listed, "]")[1:]


def contradiction(way: Alternative) -> str:
    """Name a fact that would need two values at once in this alternative, or return nothing."""
    return _impossible(way.clauses) or next(
        filter(None, (_impossible([*way.clauses, *clauses, NOT_OPAQUE]) for clauses in way.some)), ""
    )


def subject(clause: Clause) -> object:
    """Return something that is equal for clauses one of which may follow from the other."""
    return _learn({}, clause) or clause


def of_one_effect(way: Alternative) -> frozenset[Clause]:
    """Return the clauses of an allow rule's alternative, with those that it asks of some effect: there is but one."""
    return way.clauses.union(*way.some)


def about_the_command(clause: Clause) -> bool:
    """Whether a clause means the same in an allow rule, which sees one effect alone, and in another."""
    return not {"effects", "effect", "opaque"} & set(clause)


# -- reading ----------------------------------------------------------------------------------------------------------------


def _plain(words: Sequence[Token]) -> bool:
    """Whether the tokens are surely those of CEL: text in three quotes or of bytes is read by the compiler alone."""
    for before, word in pairwise(words):
        if word.kind in ("text", "raw") and before.kind in ("text", "raw", "name") and before.text != "in":
            return False
    return not any(word.kind == "sign" and word.text in "\"'`\\" for word in words)


def _ways(words: Sequence[Token]) -> Iterator[list[Sequence[Token]]]:
    """Yield each alternative as its conjuncts. `&&` binds tighter than `||`."""
    if _at_top(words, "?"):
        yield [words]
        return
    parts = _split(words, "||")
    for part in parts:
        inner = _bare(part)
        if inner is not part:
            yield from _ways(inner)
            continue
        conjuncts: list[Sequence[Token]] = []
        for conjunct in _split(part, "&&"):
            conjuncts += _flat(conjunct)
        yield conjuncts


def _flat(words: Sequence[Token]) -> list[Sequence[Token]]:
    """Open `(a && b)` into its clauses; whatever has an alternative inside stays one clause."""
    inner = _bare(words)
    if inner is words:
        return [words]
    if _at_top(inner, "||") or _at_top(inner, "?"):
        return [inner]
    return [clause for part in _split(inner, "&&") for clause in _flat(part)]


def _bare(words: Sequence[Token]) -> Sequence[Token]:
    """Take away parentheses around the whole."""
    if len(words) < 3 or words[0].text != "(" or words[-1].text != ")":
        return words
    depth = 0
    for index, word in enumerate(words):
        depth += _step(word)
        if depth == 0:
            return _bare(words[1:-1]) if index == len(words) - 1 else words
    return words


def _split(words: Sequence[Token], sign: str) -> list[Sequence[Token]]:
    parts: list[Sequence[Token]] = []
    depth = begin = 0
    for index, word in enumerate(words):
        depth += _step(word)
        if depth == 0 and word.kind == "sign" and word.text == sign:
            parts.append(words[begin:index])
            begin = index + 1
    return [*parts, words[begin:]]


def _at_top(words: Sequence[Token], sign: str) -> bool:
    return len(_split(words, sign)) > 1


def _step(word: Token) -> int:
    if word.kind != "sign":
        return 0
    return (word.text in _OPEN) - (word.text in _CLOSE)


def _alternative(conjuncts: Iterable[Sequence[Token]]) -> Alternative:
    clauses: set[Clause] = set()
    some: list[frozenset[Clause]] = []
    for conjunct in conjuncts:
        body = _of_some_effect(conjunct)
        if body is None:
            clauses.add(_words(conjunct))
        else:
            some.append(body)
    return Alternative(frozenset(clauses), tuple(some))


def _of_some_effect(words: Sequence[Token]) -> frozenset[Clause] | None:
    """Return the clauses of `effects.exists(e, …)`, with `effect` for its variable; None for anything else."""
    head = [word.text for word in words[:6]]
    if len(words) < 8 or head[:4] != ["effects", ".", "exists", "("] or head[5] != "," or words[-1].text != ")":
        return None
    variable, body = words[4].text, words[6:-1]
    if _bare(words[3:]) is words[3:]:
        return None  # something follows the call: effects.exists(…) == (…)
    names = {word.text for word in body if word.kind == "name"}
    if variable != "effect" and "effect" in names:
        return None  # to call the variable `effect` would mix up two
    if _at_top(body, "||") or _at_top(body, "?"):
        return frozenset((_renamed(body, variable),))
    return frozenset(_renamed(clause, variable) for part in _split(body, "&&") for clause in _flat(part))


def _renamed(words: Sequence[Token], variable: str) -> Clause:
    found: list[str] = []
    for index, word in enumerate(words):
        of_field = index > 0 and words[index - 1].text == "."
        found.append("effect" if word.kind == "name" and word.text == variable and not of_field else word.text)
    return tuple(found)


def _words(words: Sequence[Token]) -> Clause:
    return tuple(word.text for word in words)


# -- what clauses say of facts ----------------------------------------------------------------------------------------------


def _impossible(clauses: Iterable[Clause]) -> str:
    facts: dict[str, Known] = {}
    for clause in clauses:
        name = _learn(facts, clause)
        if name and facts[name].impossible:
            return name
    return ""


def _follow(wanted: frozenset[Clause], given: frozenset[Clause]) -> bool:
    """Whether each of the wanted clauses is given, or follows from what is given of its fact."""
    missing = wanted - given
    if not missing:
        return True
    facts: dict[str, Known] = {}
    for clause in given:
        _learn(facts, clause)
    for clause in missing:
        asked: dict[str, Known] = {}
        name = _learn(asked, clause)
        if not name or name not in facts or not facts[name].within(asked[name]):
            return False
    return True


def _fact(facts: dict[str, Known], name: str) -> Known:
    if name not in facts:
        low, high = BOUNDS.get(name, (-(1 << 63), (1 << 63) - 1))
        facts[name] = Known(low, high, CLOSED.get(name))
    return facts[name]


def _learn(facts: dict[str, Known], clause: Clause) -> str:
    """Take in `fact == literal` and its relatives; return the fact's name, or nothing for any other form."""
    if clause[0] == "!" and (name := _path(clause[1:])):
        _fact(facts, name).truth.add(False)
        return name
    if name := _path(clause):
        _fact(facts, name).truth.add(True)
        return name
    if "in" in clause:
        return _learn_among(facts, clause)
    at = next((index for index, word in enumerate(clause) if word in _COMPARISONS), -1)
    if at < 0:
        return ""
    left, sign, right = clause[:at], clause[at], clause[at + 1 :]
    if not _path(left):
        left, sign, right = right, _MIRRORED.get(sign, sign), left
    name, literal = _path(left), right[0] if len(right) == 1 else ""
    if not name or not literal:
        return ""
    known = _fact(facts, name)
    text = _literal(literal)
    if text is not None:
        if sign == "==":
            known.among = frozenset((text,)) if known.among is None else known.among & {text}
        elif sign == "!=":
            known.never.add(text)
        return name
    if not literal.isdigit():
        return ""
    number = int(literal)
    if sign in ("==", "<="):
        known.high = min(known.high, number)
    if sign in ("==", ">="):
        known.low = max(known.low, number)
    if sign == "<":
        known.high = min(known.high, number - 1)
    if sign == ">":
        known.low = max(known.low, number + 1)
    return name


def _learn_among(facts: dict[str, Known], clause: Clause) -> str:
    """Take in `fact in ["a", "b"]`."""
    at = clause.index("in")
    name, listed = _path(clause[:at]), clause[at + 1 :]
    if not name or len(listed) < 3 or listed[0] != "[" or listed[-1] != "]":
        return ""
    values = [_literal(word) for word in listed[1:-1:2]]
    if any(sign != "," for sign in listed[2:-1:2]) or any(value is None for value in values):
        return ""
    known = _fact(facts, name)
    allowed = frozenset(value for value in values if value is not None)
    known.among = allowed if known.among is None else known.among & allowed
    return name


def _path(words: Sequence[str]) -> str:
    """Return `a.b.c` when the words are exactly that, else nothing."""
    if len(words) < 3 or len(words) % 2 == 0 or any(word != "." for word in words[1::2]):
        return ""
    return "".join(words) if all(word.isidentifier() for word in words[::2]) else ""


def _literal(word: str) -> str | None:
    """Return the value of a text literal without escapes, else None."""
    return Token("text", word, 1, 1).literal if word[:1] in ('"', "'") else None
