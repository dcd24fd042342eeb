"""SET, RESET, SHOW and set_config: which setting becomes what.

Settings that change how later text is read (search_path, role, client_encoding, …) also become a name action, so that
the session and the later statements of the same text know. Verdicts about single settings are policy's.
"""

from __future__ import annotations

from typing import Any

from postgast import pg_query_pb2 as pb

from interlock.commands.sql import names
from interlock.commands.sql.walk import HANDLERS, Walk

_SPECIAL = {
    "TRANSACTION": "",
    "SESSION CHARACTERISTICS": "default_",
}


def constant(node: pb.Node) -> str | None:
    """Return a constant as SET would print it, None when it is none."""
    match node.WhichOneof("node"):
        case "a_const":
            value = node.a_const
            match value.WhichOneof("val"):
                case "ival":
                    return str(value.ival.ival)
                case "fval":
                    return str(value.fval.fval)
                case "boolval":
                    return "on" if value.boolval.boolval else "off"
                case "sval":
                    return str(value.sval.sval)
                case "bsval":
                    return str(value.bsval.bsval)
            return None
        case "type_cast":
            return constant(node.type_cast.arg)
        case "string":
            return str(node.string.sval)
        case "integer":
            return str(node.integer.ival)
        case "boolean":
            return "on" if node.boolean.boolval else "off"
        case "float":
            return str(node.float.fval)
    return None


def sets(walk: Walk, setting: str, value: str) -> None:
    """Add a `set`; names of settings are case-insensitive."""
    setting = setting.lower()
    walk.emit("set", setting, detail=value)
    walk.name("set", setting, value)


def resets(walk: Walk, setting: str) -> None:
    """Add a `reset`; an empty name is all of them."""
    setting = setting.lower()
    walk.emit("reset", setting or "*")
    walk.name("reset", setting)


def variable_set(walk: Walk, message: pb.VariableSetStmt) -> None:
    match message.kind:
        case pb.VAR_SET_VALUE:
            values = [constant(argument) for argument in message.args]
            if any(value is None for value in values):
                walk.hide("dynamic-setting", message.name)
            sets(walk, message.name, ", ".join(value or "" for value in values))
        case pb.VAR_SET_DEFAULT | pb.VAR_RESET:
            resets(walk, message.name)
        case pb.VAR_RESET_ALL:
            resets(walk, "")
        case pb.VAR_SET_MULTI if message.name in _SPECIAL:
            options(walk, message.args, _SPECIAL[message.name])
        case pb.VAR_SET_MULTI if message.name == "TRANSACTION SNAPSHOT":
            sets(walk, "transaction_snapshot", constant(message.args[0]) or "")
        case pb.VAR_SET_CURRENT:
            walk.hide("set-from-current", message.name)
        case _:
            walk.hide("unknown-node", f"SET {message.name}")


def options(walk: Walk, wrappers: Any, prefix: str = "") -> None:
    """Options of BEGIN and SET TRANSACTION: isolation level, read only, deferrable."""
    for wrapper in wrappers:
        option = wrapper.def_elem
        value = constant(option.arg) or ""
        if option.defname in ("transaction_read_only", "transaction_deferrable"):
            value = "on" if value in ("1", "on", "true") else "off"
        sets(walk, prefix + option.defname, value)


def variable_show(walk: Walk, message: pb.VariableShowStmt) -> None:
    walk.emit(
        "select",
        "pg_catalog.pg_settings",
        schema="pg_catalog",
        relation_kind="system",
        columns=(message.name.lower(),),
        detail="show",
    )


NEVER_DYNAMIC = frozenset(
    """search_path role session_authorization client_encoding standard_conforming_strings backslash_quote is_superuser
    default_transaction_read_only transaction_read_only session_replication_role""".split()
)
"""Settings whose value decides what later text means or may do: set by a parameter they are opaque."""


def set_config(walk: Walk, message: pb.FuncCall) -> None:
    """Judge set_config as the SET it is when its first argument is a constant; else it could be any setting.

    The value may be a parameter (asyncpg switches `jit` like this), but for the settings in NEVER_DYNAMIC.
    """
    fixed = walk.scope.fixed if walk.scope is not None else {}
    arguments = [_argument(argument, fixed) for argument in message.args]
    if len(arguments) == 3 and arguments[0] is not None and arguments[2] is not None:
        value = message.args[1]
        if arguments[1] is not None:
            sets(walk, arguments[0], arguments[1])
            return
        if value.WhichOneof("node") == "param_ref" and arguments[0].lower() not in NEVER_DYNAMIC:
            sets(walk, arguments[0], f"${value.param_ref.number}")
            return
    walk.emit("function", "pg_catalog.set_config", schema="pg_catalog", detail="arguments are not constant")
    walk.hide("dynamic-setting", "set_config", message.location)
    walk.name("temp-ddl")  # it may have set the search_path: unqualified names mean less from here on


def _argument(node: pb.Node, fixed: dict[str, str]) -> str | None:
    match node.WhichOneof("node"):
        case "type_cast":
            if names.strings(node.type_cast.type_name.names)[-1:] not in (["text"], ["bool"], ["varchar"]):
                return None
            return _argument(node.type_cast.arg, fixed)
        case "column_ref" if len(node.column_ref.fields) == 1:
            return fixed.get(node.column_ref.fields[0].string.sval)
    return constant(node)


HANDLERS.update({"variable_set_stmt": variable_set, "variable_show_stmt": variable_show})
