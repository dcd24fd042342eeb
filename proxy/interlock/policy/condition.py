"""A condition: one CEL expression, compiled and checked against the typed facts, and what it reads.

Knows CEL and the vocabulary of facts.py; nothing of rules or files. CEL cannot loop for ever (the runtime has an
iteration budget) or reach out. Beyond the type check, three mistakes that types can't see stop the load here: a verb
or kind outside its closed set (`e.verb == "delte"` would silently never match), a regular expression that does not
compile, and `dyn`, which switches the type check off. Spec: policy.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel

from interlock.commands.model import SHELL_VERBS, SQL_VERBS, Kind, Stdin, Wire
from interlock.identity import principal as who
from interlock.policy.facts import PACKAGE, POOL, VARIABLES, WEEKDAYS, cel_type
from interlock.policy.tokens import Token, tokens

Activation = Any

CLOSED: dict[str, frozenset[str]] = {
    ".verb": SHELL_VERBS | SQL_VERBS | {"opaque"},
    ".relation_kind": frozenset(("", "table", "view", "matview", "foreign", "system")),
    ".weekday": frozenset(WEEKDAYS),
    "command.kind": frozenset(str(k) for k in Kind),
    "command.protocol": frozenset(str(w) for w in Wire),
    "command.stdin": frozenset(str(s) for s in Stdin),
    "principal.kind": frozenset(str(k) for k in who.Kind),
    "target.protocol": frozenset(("ssh", "postgres", "tcp")),
}
"""Fields with a closed set of values; literals compared with them are checked."""


class ConditionError(Exception):
    """The expression can't be used. `line` and `column` count from 1 within it."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Matched:
    """The outcome of one evaluation. `error` is a code of the runtime, never a part of the command."""

    value: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled expression. `reads` are the variables it mentions."""

    source: str
    reads: frozenset[str]
    program: Any

    def evaluate(self, activation: Activation) -> Matched:
        """Evaluate. Whatever goes wrong is an error value, never an exception and never true."""
        try:
            value = self.program.eval(activation).value()
        except RuntimeError as error:  # the iteration budget and other limits of the runtime
            return Matched(False, _code(str(error)))
        if value is True or value is False:
            return Matched(value)
        return Matched(False, _code(str(value)))


def activation(values: Mapping[str, Any]) -> Activation:
    """Prepare the facts once; any number of conditions is evaluated against the result."""
    return _ALLOW.Activation(values) if "effect" in values else _COMMAND.Activation(values)


def compile_condition(source: str, *, per_effect: bool) -> Condition:
    """Compile and check. `per_effect` adds the variable `effect` (allow rules). Raise ConditionError."""
    environment = _ALLOW if per_effect else _COMMAND
    try:
        program = environment.compile(source)
    except RuntimeError as error:
        raise _located(str(error), source, per_effect=per_effect) from None
    if program.return_type() != cel.Type.BOOL:
        raise ConditionError(f"a condition must be true or false; this is {program.return_type().name()}")
    words = list(tokens(source))
    _refuse_dyn(words)
    _check_closed_sets(words)
    _check_patterns(words)
    names = [*VARIABLES, *(("effect",) if per_effect else ())]
    return Condition(source, frozenset(name for name in names if _reads(source, name, names)), program)


def _environment(names: Mapping[str, str]) -> Any:
    return cel.NewEnv(
        descriptor_pool=POOL, variables={name: cel_type(written) for name, written in names.items()}, container=PACKAGE
    )


_COMMAND = _environment(VARIABLES)
_ALLOW = _environment({**VARIABLES, "effect": "Effect"})
_WITHOUT: dict[tuple[str, ...], Any] = {}


def _reads(source: str, name: str, names: list[str]) -> bool:
    """Ask the compiler: without the variable, an expression that reads it does not compile.

    Exact where a search in the text is not (`time` may be the name of a comprehension's variable).
    """
    if name not in source:
        return False
    rest = tuple(n for n in names if n != name)
    if rest not in _WITHOUT:
        _WITHOUT[rest] = _environment({n: VARIABLES.get(n, "Effect") for n in rest})
    try:
        _WITHOUT[rest].compile(source)
    except RuntimeError:
        return True
    return False


_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


def _located(text: str, source: str, *, per_effect: bool) -> ConditionError:
    found = _ERROR.search(text)
    if found is None:
        return ConditionError(text.split("\n", 1)[0])
    message = found[3].removesuffix(" [INVALID_ARGUMENT]").replace(f"{PACKAGE}.", "").replace(f" (in container '{PACKAGE}')", "")
    if re.search(r"undeclared reference to 'effect\b", message) and not per_effect:
        message += "; only allow rules see one effect, others ask effects.exists(e, …)"
    unknown = re.search(r"undefined field '(\w+)' not found in struct '(\w+)'|undeclared reference to '(\w+)", message)
    if unknown is not None:
        message += _nearest(unknown[1], unknown[2]) if unknown[1] else _nearest_variable(unknown[3])
    return ConditionError(message, int(found[1]), int(found[2]))


def _nearest(field: str, message: str) -> str:
    from interlock.policy.facts import FACTS

    near = difflib.get_close_matches(field, [fact.name for fact in FACTS.get(message, ())], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _nearest_variable(name: str) -> str:
    near = difflib.get_close_matches(name, VARIABLES, n=1)
    return f"; did you mean {near[0]!r}?" if near and near[0] != name else ""


def _code(text: str) -> str:
    """Keep the runtime's code and drop its sentence, which may quote the command."""
    found = re.match(r"[A-Z][A-Z_]+", text)
    return found[0] if found else "NOT_BOOLEAN"


# -- what types can't see -----------------------------------------------------------------------------------------------


def _refuse_dyn(words: list[Token]) -> None:
    for token in words:
        if token.kind == "name" and token.text == "dyn":
            raise ConditionError("dyn() switches the type check off and is not available", token.line, token.column)


def _check_closed_sets(words: list[Token]) -> None:
    """Check every literal in `x.verb == "…"`, `"…" == x.verb` and `x.verb in ["…", …]`."""
    for index in range(len(words) - 2):
        if words[index + 1].text != "." or words[index + 2].kind != "name":
            continue
        names = (f"{words[index].text}.{words[index + 2].text}", f".{words[index + 2].text}")
        allowed = next((CLOSED[name] for name in names if name in CLOSED), None)
        if allowed is None:
            continue
        compared = list(_compared(words, index, index + 3))
        for token in compared:
            value = token.literal
            if value is not None and value not in allowed:
                near = difflib.get_close_matches(value, allowed, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(sorted(a for a in allowed if a))
                raise ConditionError(f"{value!r} is never a value of {names[1][1:]}; {hint}", token.line, token.column)


def _compared(words: list[Token], before: int, after: int) -> Iterator[Token]:
    if after + 1 < len(words) and words[after].text in ("==", "!="):
        yield words[after + 1]
    if before >= 2 and words[before - 1].text in ("==", "!="):
        yield words[before - 2]
    if after + 1 < len(words) and words[after].text == "in" and words[after + 1].text == "[":
        for token in words[after + 2 :]:
            if token.text == "]":
                return
            yield token


def _check_patterns(words: list[Token]) -> None:
    for index in range(len(words) - 2):
        if (words[index].text, words[index + 1].text) != ("matches", "("):
            continue
        pattern = words[index + 2]
        if pattern.kind not in ("raw", "text"):
            continue
        outcome = _COMMAND.compile(f'"".matches({pattern.text})').eval(_COMMAND.Activation({})).value()
        if not isinstance(outcome, bool):
            raise ConditionError("this regular expression (RE2) does not compile", pattern.line, pattern.column)
