"""The start-up parameters that reach the server: rebuilt from an allow-list, never passed through.

Knows: postgres.md "Start-up": what is pinned, what a client may choose. Settings sent at start-up are also what RESET
ALL and DISCARD ALL go back to (PostgreSQL manual, RESET), so the pinned ones hold for the whole session.
Must not know: sockets, policy.
"""

from __future__ import annotations

import re

from interlock.config import TargetConfig
from interlock.errors import InterlockError, RemoteProtocolError
from interlock.identity.principal import Principal
from interlock.postgres.wire.answers import ErrorFields
from interlock.postgres.wire.opening import Startup, parse_options

_UTF8 = frozenset(("utf8", "utf-8", "unicode", "'utf8'", "'utf-8'"))
_PLAIN = re.compile(r"[ -~]{0,200}\Z")
_DURATION = re.compile(r"[0-9]{1,9} ?(us|ms|s|min|h|d)?\Z")
_WORD = re.compile(r"[A-Za-z0-9_ ,.+:/<>-]{0,100}\Z")

CHOOSABLE: dict[str, re.Pattern[str]] = {
    "application_name": _PLAIN,
    "datestyle": _WORD,
    "intervalstyle": _WORD,
    "timezone": _WORD,
    "extra_float_digits": re.compile(r"-?[0-9]{1,2}\Z"),
    "statement_timeout": _DURATION,
    "lock_timeout": _DURATION,
    "idle_in_transaction_session_timeout": _DURATION,
    "geqo": _WORD,
    "jit": _WORD,
    "bytea_output": _WORD,
    "default_transaction_read_only": _WORD,
    "default_transaction_isolation": _WORD,
    "client_min_messages": _WORD,
}
"""What a client may set at start-up, lower case, with the form of its value."""

REASON = "interlock.reason"
"""The setting in which an agent says why it asks (`options=-c interlock.reason=…`): words for the reviewer. It is taken at
start-up only and never sent: the server's state stays what it would be without."""


class StartupRefusedError(InterlockError):
    """The start-up packet asks for something that is not offered. `fields` is the FATAL to send."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.fields = ErrorFields("FATAL", code, f"interlock: {message}")


def search_path(target: TargetConfig) -> tuple[str, ...]:
    """Return the pinned search_path as names. It always ends in pg_temp (threats.md A5)."""
    names = [part.strip().strip('"') for part in target.search_path.split(",") if part.strip()]
    return (*(name for name in names if name != "pg_temp"), "pg_temp")


def pinned(target: TargetConfig) -> tuple[tuple[str, str], ...]:
    """Return the settings that change how text is read. They are part of what a reviewer approves.

    None where the target has `unsafe_client_settings`: there every text is opaque (ADR 0020).
    """
    if target.unsafe_client_settings:
        return ()
    path = ", ".join('"' + name.replace('"', '""') + '"' for name in search_path(target))
    return (("search_path", path), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on"))


def requested(startup: Startup) -> dict[str, str]:
    """Return the settings a client asked for, lower case, `options` unfolded. Raise StartupRefusedError."""
    asked: dict[str, str] = {}
    for name, value in startup.parameters:
        match name:
            case "user" | "database":
                continue
            case "replication":
                if value.lower() not in ("false", "off", "no", "0"):
                    raise StartupRefusedError("0A000", "replication connections are not offered")
            case "options":
                try:
                    asked.update(parse_options(value))
                except RemoteProtocolError as error:
                    raise StartupRefusedError("42501", str(error)) from None
            case _:
                asked[name.lower()] = value
    return asked


def stated_reason(startup: Startup) -> str:
    """Return the agent's own reason for what it will ask on this connection. Raise StartupRefusedError."""
    return requested(startup).get(REASON, "")


def server_parameters(
    startup: Startup, target: TargetConfig, *, role: str, database: str, principal: Principal
) -> dict[str, str]:
    """Build the start-up packet for the server. Raise StartupRefusedError for what is not on the list."""
    if target.unsafe_client_settings:
        return _as_asked(startup, role=role, database=database)
    chosen: dict[str, str] = {}
    fixed = dict(pinned(target))
    for name, value in requested(startup).items():
        if name == "client_encoding":
            if value.lower() not in _UTF8:
                raise StartupRefusedError("22023", "client_encoding must be UTF8 here")
        elif name == "standard_conforming_strings":
            if value.lower() not in ("on", "true", "1", "yes"):
                raise StartupRefusedError("22023", "standard_conforming_strings must be on here")
        elif name == "search_path":
            if value.replace('"', "").replace(" ", "") != fixed["search_path"].replace('"', "").replace(" ", ""):
                raise StartupRefusedError("42501", f"search_path is pinned to {target.search_path} on this target")
        elif name != REASON:
            form = CHOOSABLE.get(name)
            if form is None:
                raise StartupRefusedError("42501", f"the start-up parameter {name[:63]!r} is not offered")
            if form.match(value) is None:
                raise StartupRefusedError("22023", f"the start-up parameter {name} has a value that is not taken")
            chosen[name] = value
    client = chosen.pop("application_name", "")
    name = f"interlock:{principal.handle}" + (f" {client}" if client else "")
    return {"user": role, "database": database, **chosen, "application_name": name[:63], **fixed}


def _as_asked(startup: Startup, *, role: str, database: str) -> dict[str, str]:
    """Pass on what the client sent, but for who it is, where it goes, and what is for the reviewer."""
    if REASON in requested(startup):
        raise StartupRefusedError("42501", f"{REASON} has no reader on this target: nobody is asked")
    passed = {name: value for name, value in startup.parameters if name not in ("user", "database", "replication")}
    return {"user": role, "database": database, **passed}
