"""Every request that SSH has, and what becomes of it: the table of design/ssh.md as data. Pure.

Whatever is not listed is refused, and every refusal is an event in the transcript. `docs/ssh.md` shows this table and
a test holds the two together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """On what level a request comes (RFC 4254 §4, §5.1, §5.4)."""

    GLOBAL = "global"
    OPEN = "channel"
    SESSION = "session"


class Told(StrEnum):
    """How the client learns the sentence of a refusal; what becomes of the rest."""

    STDERR = "stderr"  # a line on the channel's stderr; what else the channel asks for goes on
    EXIT = "exit"  # the line, exit status 126, the channel ends. The request itself is answered with success, because
    # stock clients drop everything a channel said when they see a failure there
    OPEN_FAILURE = "open failure"  # the text of the channel open failure
    NEXT_CHANNEL = "next channel"  # a global request has no words of its own: the line goes to the next channel's stderr
    SILENT = "silent"  # the protocol's own failure message and nothing else
    HANDLED = "served"  # not refused as such; `sentence` says what becomes of it


@dataclass(frozen=True, slots=True)
class Row:
    scope: Scope
    name: str
    told: Told
    sentence: str = ""

    @property
    def refused(self) -> bool:
        return self.told is not Told.HANDLED


_RUN = "run single commands: ssh TARGET 'command'"
_NO_FORWARD = "port and socket forwarding is not offered here"
_BY_SFTP = "is not offered here: copy files with sftp, scp or rsync"

TABLE: tuple[Row, ...] = (
    Row(Scope.GLOBAL, "tcpip-forward", Told.NEXT_CHANNEL, f"{_NO_FORWARD} (-R)"),
    Row(Scope.GLOBAL, "cancel-tcpip-forward", Told.SILENT, f"{_NO_FORWARD} (-R)"),
    Row(Scope.GLOBAL, "streamlocal-forward@openssh.com", Told.NEXT_CHANNEL, f"{_NO_FORWARD} (-R)"),
    Row(Scope.GLOBAL, "cancel-streamlocal-forward@openssh.com", Told.SILENT, f"{_NO_FORWARD} (-R)"),
    Row(Scope.GLOBAL, "keepalive@openssh.com", Told.HANDLED, "answered with a failure: any answer says that we live"),
    Row(Scope.GLOBAL, "no-more-sessions@openssh.com", Told.HANDLED, "a session after it ends the connection, as with sshd"),
    Row(Scope.GLOBAL, "hostkeys-prove-00@openssh.com", Told.SILENT, "the proxy has one host key and does not rotate it in band"),
    Row(Scope.GLOBAL, "*", Told.SILENT, "this global request is not known here"),
    Row(Scope.OPEN, "session", Told.HANDLED, "one command or one file session, decided and recorded on its own"),
    Row(
        Scope.OPEN,
        "direct-tcpip",
        Told.HANDLED,
        "leads to our own front end when it names a target, else fails in words",
    ),
    Row(Scope.OPEN, "direct-streamlocal@openssh.com", Told.OPEN_FAILURE, f"{_NO_FORWARD} (-L)"),
    Row(Scope.OPEN, "forwarded-tcpip", Told.OPEN_FAILURE, "only a server opens such a channel"),
    Row(Scope.OPEN, "forwarded-streamlocal@openssh.com", Told.OPEN_FAILURE, "only a server opens such a channel"),
    Row(Scope.OPEN, "x11", Told.OPEN_FAILURE, "X11 is not offered here"),
    Row(Scope.OPEN, "auth-agent@openssh.com", Told.OPEN_FAILURE, "agent forwarding is not offered here"),
    Row(Scope.OPEN, "tun@openssh.com", Told.OPEN_FAILURE, "tunnel devices are not offered here (-w)"),
    Row(Scope.OPEN, "*", Told.OPEN_FAILURE, "this kind of channel is not offered here"),
    Row(Scope.SESSION, "exec", Told.HANDLED, "the gate; one a channel; empty, NUL, control characters, not UTF-8: exit 126"),
    Row(Scope.SESSION, "env", Told.HANDLED, "LANG, LC_* and COLORTERM of harmless values, before the exec; the rest fails"),
    Row(Scope.SESSION, "signal", Told.HANDLED, "passed on while the command runs, by the names of RFC 4254; else it fails"),
    Row(Scope.SESSION, "eow@openssh.com", Told.HANDLED, "noted: the client takes no more output"),
    Row(Scope.SESSION, "keepalive@openssh.com", Told.HANDLED, "answered with a failure"),
    Row(Scope.SESSION, "window-change", Told.SILENT, "there is no terminal whose size could change"),
    Row(Scope.SESSION, "break", Told.SILENT, "there is no terminal to break"),
    Row(Scope.SESSION, "pty-req", Told.EXIT, f"no terminal and no shell are offered here; {_RUN} (drop -t), or use sftp or scp"),
    Row(Scope.SESSION, "shell", Told.HANDLED, "a script on standard input, read to its end and decided like `bash -s`"),
    Row(Scope.SESSION, "subsystem", Told.EXIT, f"this subsystem is not offered here; {_RUN}"),
    Row(Scope.SESSION, "subsystem:sftp", Told.HANDLED, "ends here; every operation is decided"),
    Row(Scope.SESSION, "x11-req", Told.STDERR, "X11 forwarding is not offered here (drop -X)"),
    Row(Scope.SESSION, "auth-agent-req@openssh.com", Told.STDERR, "agent forwarding is not offered here (drop -A)"),
    Row(Scope.SESSION, "*", Told.SILENT, "this request is not known here"),
    Row(Scope.SESSION, "exec:sftp-server", Told.EXIT, f"a server of sftp by its path {_BY_SFTP}"),
    Row(Scope.SESSION, "exec:mosh", Told.EXIT, f"mosh is not offered here; {_RUN}"),
)

_BY_NAME = {(row.scope, row.name): row for row in TABLE}


def find(scope: Scope, name: str) -> Row:
    """Return the row for a request; the row `*` of its scope for one that is not listed."""
    return _BY_NAME.get((scope, name)) or _BY_NAME[scope, "*"]


def subsystem(name: str) -> Row:
    return _BY_NAME.get((Scope.SESSION, f"subsystem:{name}")) or _BY_NAME[Scope.SESSION, "subsystem"]


def shown_name(name: bytes) -> str:
    """Return the name of a request as it may be recorded: printable ASCII, at most 64 characters."""
    return "".join(chr(b) if 0x21 <= b < 0x7F else "?" for b in name[:64])


NO_SHELL = f"no interactive shell is offered here; {_RUN}, or end the script: ssh TARGET < script"

# -- servers of protocols that are not offered, which come as exec ------------------------------------------------------

_PROTOCOLS = (
    ("exec:sftp-server", re.compile(rb"(?:\S*/)?(?:sftp-server|internal-sftp)(?:\s|\Z)")),
    ("exec:mosh", re.compile(rb"(?:\S*/)?mosh-server(?:\s|\Z)")),
)


def unoffered(text: bytes) -> Row | None:
    """Recognise a command that is the far end of a protocol that is not offered, so that its user is told in plain words.

    A courtesy, not a boundary: the same thing written differently is classified like any command and never sees more
    standard input than the gate released.
    """
    start = text.lstrip()
    for name, pattern in _PROTOCOLS:
        if pattern.match(start):
            return _BY_NAME[Scope.SESSION, name]
    return None


# -- environment ------------------------------------------------------------------------------------------------------

ENV_NAMES = frozenset(
    (
        "LANG", "LC_ALL", "LC_CTYPE", "LC_COLLATE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME",
        "LC_ADDRESS", "LC_IDENTIFICATION", "LC_MEASUREMENT", "LC_NAME", "LC_PAPER", "LC_TELEPHONE",
    )
)  # fmt: skip

REASON = b"INTERLOCK_REASON"
"""The variable in which an agent says why it asks: words for the reviewer, never passed on to the target."""
MAX_REASON = 2048
"""Bytes of it that are read at all; the gate keeps less."""

_LOCALE = re.compile(r"(?:C|POSIX|[A-Za-z]{1,8}(?:_[A-Za-z0-9]{1,8})?\.(?:UTF-8|utf8))\Z")

_COLORS = re.compile(r"[A-Za-z0-9]{1,16}\Z")


def accepted_env(name: bytes, value: bytes) -> tuple[str, str] | None:
    """Return the variable when it may be passed on, else None.

    A locale whose charset is not UTF-8 makes the target's shell read other words than we did (GBK and Shift-JIS hide a
    backslash or a quote in the second byte of a character), so it is not a preference but an attack on the lexer.
    """
    shown = name.decode("ascii", "replace")
    text = value.decode("ascii", "replace")
    if shown == "COLORTERM":
        return (shown, text) if _COLORS.match(text) else None
    return (shown, text) if shown in ENV_NAMES and _LOCALE.match(text) else None


def stated_reason(name: bytes, value: bytes) -> str | None:
    """Return the agent's own reason when this is the variable that holds it, as text of any kind: the gate flattens it."""
    return value[:MAX_REASON].decode("utf-8", "replace") if name == REASON else None


# -- signals (RFC 4254 §6.10) -----------------------------------------------------------------------------------------

SIGNALS = frozenset("ABRT ALRM FPE HUP ILL INT KILL PIPE QUIT SEGV TERM USR1 USR2".split())
