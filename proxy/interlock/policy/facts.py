"""The facts that conditions can read, as a typed vocabulary: protobuf messages built at run time.

CEL checks every condition against these descriptors, so a misspelt field or a wrong type stops the load. The table
`FACTS` is the one source: descriptors, the conversion and the facts table in docs/policy.md all come from it. Pure:
knows the domain's words and CEL's types, never verdicts, files or clocks. Spec: policy.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from interlock.commands.model import Analysis, Command, Effect, Opaque
from interlock.identity.principal import Principal
from interlock.policy.model import SessionFacts, Target

PACKAGE = "interlock"
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Message = Any
"""A message of a class that exists only at run time."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One field: its type (`string`, `bool`, `int`, a message name, `list(…)` or `map(string, string)`) and meaning."""

    name: str
    type: str
    meaning: str


FACTS: dict[str, tuple[Fact, ...]] = {
    "Effect": (
        Fact("verb", "string", "what happens: one of the closed sets of verbs"),
        Fact("object", "string", "to what: a path, host, unit, relation, setting"),
        Fact("program", "string", "the program that does it (shell)"),
        Fact("argv", "list(string)", "the program and its arguments, unquoted (shell)"),
        Fact("via", "list(string)", "wrappers around it, outermost first: sudo, env, xargs, explain, …"),
        Fact("origin", "string", "direct | wrapper | here-doc | stdin | sftp | scp | push | remote(host)"),
        Fact("recursive", "bool", "the whole tree below the object"),
        Fact("force", "bool", "without asking or checking"),
        Fact("host", "string", "the remote host, where there is one"),
        Fact("schema", "string", "the relation's schema (SQL)"),
        Fact("relation_kind", "string", "table | view | matview | foreign | system, or empty"),
        Fact("filtered", "bool", "false: no WHERE, or one that is always true (SQL); true for everything else"),
        Fact("limited", "bool", "false: no LIMIT (SQL); true for everything else"),
        Fact("functions", "list(string)", "functions called (SQL)"),
        Fact("columns", "list(string)", "columns read, where they can be known (SQL)"),
        Fact("detail", "string", "what the verb alone does not say, such as the kind of object created"),
    ),
    "Opaque": (
        Fact("reason", "string", "why it could not be resolved"),
        Fact("text", "string", "the part of the text"),
        Fact("start", "int", "byte offset of its begin"),
        Fact("end", "int", "byte offset of its end"),
    ),
    "Command": (
        Fact("protocol", "string", "ssh | postgres"),
        Fact("kind", "string", "command | sftp | git.push | pg.query | pg.parse | pg.bind"),
        Fact("text", "string", "the exact text; bytes that are no UTF-8 as \\xNN"),
        Fact("statements", "int", "how many statements the text holds"),
        Fact("stdin", "string", "what it does with standard input: none | ignored | protocol | data | code"),
        Fact("effects", "list(Effect)", "the same as `effects`"),
        Fact("opaque", "list(Opaque)", "the same as `opaque`"),
    ),
    "Assurance": (
        Fact("acr", "string", "authentication context class (OIDC Core §2)"),
        Fact("amr", "list(string)", "authentication methods (RFC 8176)"),
    ),
    "Principal": (
        Fact("subject", "string", "issuer:subject, the stable identifier"),
        Fact("handle", "string", "the name people know; authority should not hang on it"),
        Fact("kind", "string", "human | agent | service"),
        Fact("groups", "list(string)", "groups of the directory"),
        Fact("owner", "string", "issuer:subject of whoever answers for an agent, or empty"),
        Fact("acting_for", "list(string)", "the delegation chain, newest first"),
        Fact("assurance", "Assurance", "how strongly the identity was proven"),
    ),
    "Target": (
        Fact("name", "string", "the target's name"),
        Fact("protocol", "string", "ssh | postgres | tcp"),
        Fact("labels", "map(string, string)", "the labels of the configuration; an absent one is an error, ask with `in`"),
        Fact("account", "string", "the SSH account"),
        Fact("role", "string", "the Postgres role"),
        Fact("database", "string", "the Postgres database"),
    ),
    "Session": (
        Fact("id", "string", "the session's identifier"),
        Fact("client", "string", "source address, without the port"),
    ),
    "Time": (
        Fact("year", "int", "in UTC, like all of these"),
        Fact("month", "int", "1 to 12"),
        Fact("day", "int", "1 to 31"),
        Fact("weekday", "string", "monday … sunday"),
        Fact("hour", "int", "0 to 23"),
        Fact("minute", "int", "0 to 59"),
    ),
}

VARIABLES: dict[str, str] = {
    "command": "Command",
    "effects": "list(Effect)",
    "opaque": "list(Opaque)",
    "principal": "Principal",
    "target": "Target",
    "session": "Session",
    "time": "Time",
}
"""What every condition sees. Conditions of allow rules also see `effect`, one Effect."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _FIELD.TYPE_STRING, "bool": _FIELD.TYPE_BOOL, "int": _FIELD.TYPE_INT64}


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="interlock/facts.proto", package=PACKAGE, syntax="proto3")
    for message_name, facts in FACTS.items():
        message = file.message_type.add(name=message_name)
        for number, fact in enumerate(facts, 1):
            _add_field(message, number, fact)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(message: Any, number: int, fact: Fact) -> None:
    inner = fact.type.removeprefix("list(").removesuffix(")") if fact.type.startswith("list(") else fact.type
    label = _FIELD.LABEL_REPEATED if inner != fact.type else _FIELD.LABEL_OPTIONAL
    if fact.type.startswith("map("):
        entry = message.nested_type.add(name="LabelsEntry")
        entry.options.map_entry = True
        for index, key in enumerate(("key", "value"), 1):
            entry.field.add(name=key, number=index, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
        message.field.add(
            name=fact.name, number=number, type=_FIELD.TYPE_MESSAGE, label=_FIELD.LABEL_REPEATED,
            type_name=f".{PACKAGE}.{message.name}.LabelsEntry",
        )  # fmt: skip
    elif inner in _SCALARS:
        message.field.add(name=fact.name, number=number, type=_SCALARS[inner], label=label)
    else:
        message.field.add(name=fact.name, number=number, type=_FIELD.TYPE_MESSAGE, label=label, type_name=f".{PACKAGE}.{inner}")


POOL = _pool()
_CLASSES: dict[str, Callable[..., Message]] = {
    name: message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in FACTS
}


def cel_type(written: str) -> Any:
    """Return CEL's type for a type as written in `FACTS` and `VARIABLES`."""
    if written.startswith("list("):
        return cel.Type.List(cel_type(written.removeprefix("list(").removesuffix(")")))
    return cel.Type(f"{PACKAGE}.{written}")


def effect_message(effect: Effect) -> Message:
    return _CLASSES["Effect"](
        verb=effect.verb, object=_text(effect.object), program=_text(effect.program), argv=map(_text, effect.argv),
        via=map(_text, effect.via), origin=_text(effect.origin), recursive=effect.recursive, force=effect.force,
        host=_text(effect.host), schema=_text(effect.schema), relation_kind=effect.relation_kind,
        filtered=effect.filtered, limited=effect.limited, functions=map(_text, effect.functions),
        columns=map(_text, effect.columns), detail=_text(effect.detail),
    )  # fmt: skip


def opaque_message(opaque: Opaque) -> Message:
    return _CLASSES["Opaque"](reason=opaque.reason, text=_text(opaque.text), start=opaque.start, end=opaque.end)


def command_message(command: Command, analysis: Analysis, effects: Iterable[Message], opaque: Iterable[Message]) -> Message:
    return _CLASSES["Command"](
        protocol=str(command.wire), kind=str(command.kind), text=command.text.decode("utf-8", "backslashreplace"),
        statements=analysis.statements, stdin=str(analysis.stdin), effects=effects, opaque=opaque,
    )  # fmt: skip


def principal_message(principal: Principal) -> Message:
    return _CLASSES["Principal"](
        subject=str(principal.identity), handle=principal.handle, kind=str(principal.kind), groups=sorted(principal.groups),
        owner=str(principal.owner) if principal.owner else "", acting_for=[str(i) for i in principal.acting_for],
        assurance=_CLASSES["Assurance"](acr=principal.assurance.acr, amr=principal.assurance.amr),
    )  # fmt: skip


def target_message(target: Target) -> Message:
    return _CLASSES["Target"](
        name=target.name, protocol=target.protocol, labels=dict(target.labels), account=target.account, role=target.role,
        database=target.database,
    )  # fmt: skip


def session_message(session: SessionFacts) -> Message:
    return _CLASSES["Session"](id=session.id, client=session.client)


def time_message(now: datetime) -> Message:
    moment = now.astimezone(UTC)
    return _CLASSES["Time"](
        year=moment.year, month=moment.month, day=moment.day, weekday=WEEKDAYS[moment.weekday()], hour=moment.hour,
        minute=moment.minute,
    )  # fmt: skip


def standing_key(principal: Principal, target: Target) -> tuple[object, ...]:
    """Return everything that rules can read of a principal and a target: two that are equal here decide alike."""
    return (
        principal.identity, principal.handle, principal.kind, principal.groups, principal.owner, principal.acting_for,
        principal.assurance.acr, principal.assurance.amr, target.name, target.protocol, _frozen(target.labels),
        target.account, target.role, target.database,
    )  # fmt: skip


def _frozen(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def _text(value: str) -> str:
    """Protobuf text is UTF-8: a lone surrogate of an undecodable argument is shown escaped."""
    return value.encode("utf-8", "backslashreplace").decode()
