"""Effects of SQL in words: one function a verb of SQL_VERBS. Objects and details: docs/sql.md."""

from __future__ import annotations

from collections.abc import Mapping

from interlock.commands.display import inline
from interlock.commands.model import Effect
from interlock.commands.names import Words, detailed, name


def _rows(effect: Effect) -> str:
    """How many rows: all of them, or those that a condition leaves."""
    return "every row" if not effect.filtered else "rows that its condition selects"


def _where(effect: Effect) -> str:
    return "" if effect.filtered else " (no WHERE that leaves any out)"


def _triggers(effect: Effect) -> str:
    told = ""
    if effect.functions and effect.verb in ("insert", "update", "delete", "merge"):
        told += f", running {', '.join(map(inline, effect.functions[:5]))}"
        told += f" and {len(effect.functions) - 5} more functions" if len(effect.functions) > 5 else ""
    elif "triggers" in effect.detail:
        told += ", running its triggers"
    return told


def _select(effect: Effect) -> str:
    if not effect.object:
        return "computes a result without reading any table"
    kind = {"view": "the view ", "matview": "the materialised view ", "foreign": "the foreign table "}.get(
        effect.relation_kind, ""
    )
    if "secret" in effect.detail:
        return f"reads secrets of the database (password hashes, credentials): {name(effect)}"
    if effect.detail == "show":
        return "shows a setting"
    what = f"{_rows(effect)} of {kind}{name(effect)}"
    columns = f", columns {', '.join(inline(c) for c in effect.columns[:8])}" if effect.columns else ""
    columns += ", …" if len(effect.columns) > 8 else ""
    bound = "" if effect.limited else ", however many there are"
    return f"reads {what}{columns}{_where(effect)}{bound}"


def _insert(effect: Effect) -> str:
    return f"adds rows to {name(effect)}{_triggers(effect)}"


def _update(effect: Effect) -> str:
    conflict = " that are already there" if effect.detail.startswith("on conflict") else ""
    return f"changes {_rows(effect)} of {name(effect)}{conflict}{_where(effect)}{_triggers(effect)}"


def _delete_rows(effect: Effect) -> str:
    return f"deletes {_rows(effect)} of {name(effect)}{_where(effect)}{_triggers(effect)}"


def _merge(effect: Effect) -> str:
    return f"merges rows into {name(effect)}: adds, changes or deletes{_triggers(effect)}"


def _truncate(effect: Effect) -> str:
    return f"empties {name(effect)} at once: every row is gone{_triggers(effect)}"


def _copy_in(effect: Effect) -> str:
    return f"loads rows into {name(effect)}{_triggers(effect)}"


def _copy_out(effect: Effect) -> str:
    return f"exports rows of {name(effect, 'a query')}{_where(effect)}" + ("" if effect.limited else ", however many")


def _copy_file(effect: Effect) -> str:
    return f"reads or writes a file on the database server: {name(effect)}"


def _copy_program(effect: Effect) -> str:
    return f"runs a program on the database server: {name(effect)}"


def _kind(effect: Effect) -> str:
    return f"{inline(effect.detail)} " if effect.detail else ""


def _create(effect: Effect) -> str:
    if "function" in effect.detail or "procedure" in effect.detail:
        return f"stores code in the database: {_kind(effect)}{name(effect)}"
    return f"creates {_kind(effect)}{name(effect, '')}".rstrip()


def _alter(effect: Effect) -> str:
    if effect.detail.startswith("system"):
        return f"changes a setting of the whole server: {name(effect)} {inline(effect.detail[6:].strip())}".rstrip()
    return f"changes how {_kind(effect)}{name(effect)} is defined"


def _drop(effect: Effect) -> str:
    return f"drops {_kind(effect)}{name(effect, '')}".rstrip() + ", with what is in it"


def _grant(effect: Effect) -> str:
    return f"gives rights on {name(effect)}{detailed(effect)}"


def _revoke(effect: Effect) -> str:
    return f"takes rights on {name(effect)} away{detailed(effect)}"


def _call(effect: Effect) -> str:
    return f"runs the procedure {name(effect)}, which may do anything it was written for{detailed(effect)}"


def _do(effect: Effect) -> str:
    if effect.detail == "load":
        return f"loads a library into the server: {name(effect)}"
    return f"runs a block of code{detailed(effect)}"


def _set(effect: Effect) -> str:
    return f"sets {_setting(effect)} for this session" + (f" to {inline(effect.detail)}" if effect.detail else "")


def _reset(effect: Effect) -> str:
    return f"resets {_setting(effect)} of this session"


def _setting(effect: Effect) -> str:
    return "every setting" if effect.object in ("*", "") else name(effect)


def _lock(effect: Effect) -> str:
    mode = f" ({inline(effect.detail)})" if effect.detail else ""
    return f"locks {name(effect, 'the rows it reads')}{mode}: others may have to wait"


def _listen(effect: Effect) -> str:
    return f"{'stops listening' if effect.detail == 'unlisten' else 'listens'} to notifications on {name(effect)}"


def _notify(effect: Effect) -> str:
    return f"sends a notification on {name(effect)}: whoever listens may act on it"


def _vacuum(effect: Effect) -> str:
    words = {"checkpoint": "makes the server write everything to disk", "cluster": "rewrites", "reindex": "rebuilds indexes of"}
    what = "every table" if effect.object == "*" else name(effect)
    return words["checkpoint"] if effect.detail == "checkpoint" else f"{words.get(effect.detail, 'cleans up')} {what}"


def _explain(effect: Effect) -> str:
    if effect.detail == "analyze":
        return "runs the statement in order to measure it"
    return f"plans, without running, a statement on {name(effect, 'no table')}"


_TRANSACTIONS = {
    "begin": "opens a transaction",
    "start transaction": "opens a transaction",
    "commit": "makes the transaction's changes final",
    "rollback": "takes the transaction's changes back",
    "savepoint": "sets a savepoint",
    "release": "forgets a savepoint",
    "rollback to": "goes back to a savepoint",
    "prepare transaction": "parks the transaction on the server: its locks stay until somebody ends it",
    "commit prepared": "makes a parked transaction's changes final",
    "rollback prepared": "takes a parked transaction's changes back",
}


def _transaction(effect: Effect) -> str:
    words = _TRANSACTIONS.get(effect.detail, f"controls the transaction{detailed(effect)}")
    return f"{words}: {name(effect)}" if effect.object else words


def _cursor(effect: Effect) -> str:
    how = {"declare": "opens", "close": "closes"}.get(effect.detail, "uses")
    return f"{how} {'every cursor' if effect.object == '*' else f'the cursor {name(effect)}'}"


def _prepare(effect: Effect) -> str:
    if effect.detail == "deallocate":
        return "forgets every prepared statement" if effect.object == "*" else f"forgets the statement {name(effect)}"
    return f"stores the statement {name(effect)} for later in this session"


def _execute_prepared(effect: Effect) -> str:
    return f"runs the statement {name(effect)}, which was prepared before"


def _fetch(effect: Effect) -> str:
    return f"{'moves' if effect.detail == 'move' else 'reads rows from'} the cursor {name(effect)}"


def _replication(effect: Effect) -> str:
    return f"changes what is copied to or from other servers: {name(effect)}"


def _function(effect: Effect) -> str:
    return f"calls {name(effect)}, a function that may do more than compute{detailed(effect)}"


def _nothing(effect: Effect) -> str:
    return "does nothing: there is no statement in it"


SQL_WORDS: Mapping[str, Words] = {
    "select": _select, "insert": _insert, "update": _update, "delete": _delete_rows, "merge": _merge,
    "truncate": _truncate, "copy_in": _copy_in, "copy_out": _copy_out, "copy_program": _copy_program,
    "copy_file": _copy_file, "create": _create, "alter": _alter, "drop": _drop, "grant": _grant, "revoke": _revoke,
    "call": _call, "do": _do, "set": _set, "reset": _reset, "lock": _lock, "listen": _listen, "notify": _notify,
    "vacuum": _vacuum, "explain": _explain, "transaction": _transaction, "cursor": _cursor, "prepare": _prepare,
    "execute": _execute_prepared, "fetch": _fetch, "replication": _replication, "function": _function,
    "nothing": _nothing,
}  # fmt: skip
