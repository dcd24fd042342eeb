"""What a message in chat may show of a request: secrets are hidden there, and nothing can hide by looking like one. Pure.

Chat keeps what it is sent, on other people's servers. So whatever `detectors` finds is hidden in it, always. But a mark in
place of text is also what an attacker wants: `rm -rf AKIA…`, a program that is named like a token. Therefore the approve
button stays only while every hidden piece is provably nothing but a value (threats.md, A7; property 33):

* it lies inside one static literal that is an operand (shell) or one plain string constant (SQL), or in one bind value, or is
  one, by the column that it goes to;
* nothing in the command is unknown, and no code is called that would read the value;
* it is not what an effect acts on: a path, host, table or account is never hidden, but for the password in a URL.

Anything else is answered on the page, which shows everything. The digest covers the raw bytes either way, and the notes tell
the reviewer what was hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from interlock.approvals.detectors import Hit, find, merged
from interlock.approvals.model import RequestDraft
from interlock.commands.display import MAX_LINE, Display, about, display, hide, inline
from interlock.commands.model import Analysis, BindValue, Command, Effect, Wire
from interlock.commands.programs.loader import programs
from interlock.commands.shell.operands import operands
from interlock.commands.sql.constants import constants

MAX_SHOWN = 32 * 1024
MAX_READ = 64 * 1024
"""Chat shows at most so much of a text, and reads further for secrets that begin before the end of what is shown."""

_OVER_VALUES = {
    Wire.SSH: frozenset(("read",)),
    Wire.POSTGRES: frozenset(("select", "insert", "update", "delete", "merge", "lock", "transaction")),
}
"""Commands that do nothing else take their strings as values, never as code, settings or options. An operand of a shell
command that changes something may say how (`chown OWNER file`)."""
_WITH_URL = frozenset(("read", "write", "delete", "network"))
_WITH_PASSWORD = frozenset(("create", "alter"))
_PASSWORD_OF_ROLE = re.compile(rb"(?i)\bpassword[ \t\n]{1,8}'\Z")
_NEVER_HIDDEN = frozenset(b"'\"\\`\n\r$\x00")
_ESCAPED = re.compile(r"\\(.)")
_URL_PASSWORD = re.compile(rb"[a-z][a-z0-9+.-]{0,20}+://[^\s/?#@:'\"\\]{0,128}+:\Z")
_URL_HOST = re.compile(rb"@[A-Za-z0-9.-]{1,255}+(?::[0-9]{1,5})?(?![^/?#\s'\"])")


@dataclass(frozen=True, slots=True)
class Hidden:
    """A text of which some ranges are not shown."""

    raw: bytes = field(repr=False)
    spans: tuple[tuple[int, int], ...] = ()
    more: int = 0  # bytes that follow and are not here

    def display(self, lines: int, width: int) -> Display:
        return display(self.raw, lines=lines, width=width, hidden=self.spans, more=self.more)


@dataclass(frozen=True, slots=True)
class Redaction:
    """`values` are what was hidden, to hide it in words made from the request too; they must never be shown or logged."""

    text: Hidden
    stdin: Hidden | None
    binds: tuple[str | None, ...]  # as shown, None for NULL or what can't be decoded
    notes: tuple[str, ...]
    chat_approvable: bool
    values: tuple[str, ...] = field(default=(), repr=False)

    def words(self, text: str) -> str:
        """Return a text that was made from the request, such as the object of an effect, with its secrets hidden.

        What stands for a secret is `display.hide`'s: the result is for `inline` or `display`, which draw the marks.
        """
        for value in self.values:
            text = text.replace(value, hide(len(value)))
        raw = text.encode("utf-8", "surrogatepass")[:MAX_READ]
        return _hidden_text(raw, [(hit.start, hit.end) for hit in find(raw)])

    def shown(self, text: str, limit: int = MAX_LINE) -> str:
        """Return such a text ready to print, on one line and with its marks."""
        return inline(self.words(text), limit)


def redacted(draft: RequestDraft) -> Redaction:
    """Return what chat may show of a request, and whether it can be approved there as far as that goes."""
    command = draft.command
    text, hits = _of_text(command.text, draft.analysis.concealed)
    provable = _provable_ranges(draft)
    sure = all(_provable(command, hit, provable, draft.analysis) for hit in hits)
    values = [command.text[hit.start : hit.end] for hit in hits]
    counted = list(hits)
    stdin = None
    if command.stdin is not None:
        stdin, in_stdin = _of_text(command.stdin.data)
        # What a program reads is never one literal: a secret in it is answered on the page.
        sure = sure and not in_stdin
        counted += in_stdin
        values += [command.stdin.data[hit.start : hit.end] for hit in in_stdin]
    binds: list[str | None] = []
    static = _only_values(draft.analysis, command.wire)
    for number, value in enumerate(command.binds, 1):
        shown, in_bind = _of_bind(value, secret=number in draft.analysis.secrets)
        binds.append(shown)
        counted += in_bind
        sure = sure and (static or not in_bind)
        values += [(value.shown or "").encode("utf-8", "surrogatepass")[hit.start : hit.end] for hit in in_bind]
    around = [found for _, content in command.env for found in find(content.encode("utf-8", "surrogatepass"))]
    beside = [hit for prose in (draft.said, *draft.facts) for hit in find(prose.encode("utf-8", "surrogatepass"))]
    sure = sure and not around and not beside
    return Redaction(
        text, stdin, tuple(binds), _notes(counted + around + beside), sure,
        _spellings(values),
    )  # fmt: skip


# -- finding -----------------------------------------------------------------------------------------------------------


def _of_text(raw: bytes, concealed: tuple[tuple[int, int], ...] = ()) -> tuple[Hidden, tuple[Hit, ...]]:
    """Return a text with its secrets hidden. `concealed` are ranges that hold one, whatever it looks like."""
    known = (Hit(start, end, "a value for a secret column", certain=True) for start, end in concealed)
    hits = merged((*find(raw[:MAX_READ]), *known)) if concealed else find(raw[:MAX_READ])
    shown = raw[:MAX_SHOWN]
    spans = tuple((hit.start, min(hit.end, len(shown))) for hit in hits if hit.start < len(shown))
    return Hidden(shown, spans, more=len(raw) - len(shown)), hits


def _of_bind(value: BindValue, *, secret: bool) -> tuple[str | None, tuple[Hit, ...]]:
    """Return what is shown of a value. One that goes to a secret column is hidden whole, whatever it looks like."""
    if secret and value.raw:
        length = len(value.raw if value.shown is None else value.shown.encode("utf-8", "surrogatepass"))
        return hide(length), (Hit(0, length, "a value for a secret column", certain=True),)
    if value.raw is None or value.shown is None:
        return None, ()
    raw = value.shown.encode("utf-8", "surrogatepass")
    hits = find(raw[:MAX_READ])
    return _hidden_text(raw[:MAX_SHOWN], [(hit.start, hit.end) for hit in hits]), hits


def _hidden_text(raw: bytes, spans: Iterable[tuple[int, int]]) -> str:
    out: list[str] = []
    position = 0
    for start, end in spans:
        out += [raw[position:start].decode("utf-8", "surrogatepass"), hide(end - start)]
        position = end
    return "".join(out) + raw[position:].decode("utf-8", "surrogatepass")


def _spellings(values: list[bytes]) -> tuple[str, ...]:
    """Return the secrets as they may stand in words about the command, longest first: as written, and without escapes."""
    found: set[str] = set()
    for value in values:
        written = value.decode("utf-8", "replace")
        found |= {written, _ESCAPED.sub(r"\1", written), written.replace("''", "'")}
    return tuple(sorted((text for text in found if len(text) > 3), key=lambda text: (-len(text), text)))


# -- proving -----------------------------------------------------------------------------------------------------------


def _provable_ranges(draft: RequestDraft) -> tuple[tuple[int, int], ...]:
    """Return where a text is nothing but a value. Nowhere when anything of the command is unknown."""
    command = draft.command
    if len(command.text) > MAX_READ or draft.analysis.opaque:
        return ()
    return constants(command.text) if command.wire is Wire.POSTGRES else operands(command.text, programs())


def _only_values(analysis: Analysis, wire: Wire) -> bool:
    return (
        not analysis.opaque
        and analysis.unreadable is None
        and bool(analysis.effects)
        and all(effect.verb in _OVER_VALUES[wire] for effect in analysis.effects)
    )


def _provable(command: Command, hit: Hit, ranges: tuple[tuple[int, int], ...], analysis: Analysis) -> bool:
    text = command.text
    within = next((r for r in ranges if r[0] <= hit.start and hit.end <= r[1]), None)
    value = text[hit.start : hit.end]
    if within is None or not _NEVER_HIDDEN.isdisjoint(value):
        return False
    secret = value.decode("utf-8", "replace")
    naming = [effect for effect in analysis.effects if any(secret in name for name in _acts_on(effect))]
    if _is_password_of_url(text, hit):
        # The host it goes to stays in sight, and no reader takes another one from such an address.
        verbs = _WITH_URL if command.wire is Wire.SSH else _OVER_VALUES[command.wire]
        return all(e.verb in verbs for e in analysis.effects) and all(e.verb == "network" for e in naming)
    if not _only_values(analysis, command.wire) and not _is_password_of_role(text, within[0], analysis):
        return False
    return not naming


def _is_password_of_url(text: bytes, hit: Hit) -> bool:
    before = _URL_PASSWORD.search(text, max(0, hit.start - 160), hit.start)
    return before is not None and _URL_HOST.match(text, hit.end) is not None


def _is_password_of_role(text: bytes, start: int, analysis: Analysis) -> bool:
    """CREATE and ALTER ROLE … PASSWORD '…', alone: no other string of a definition is only a value."""
    return all(e.verb in _WITH_PASSWORD and e.detail.partition(" ")[0] == "role" for e in analysis.effects) and (
        _PASSWORD_OF_ROLE.search(text, max(0, start - 24), start) is not None
    )


def _acts_on(effect: Effect) -> tuple[str, ...]:
    """Return the names that tell what an effect acts on or how."""
    if (effect.verb, effect.object) == ("read", "arguments"):
        return ()
    return (effect.object, effect.host, effect.detail, effect.schema, *effect.functions, *effect.columns, *effect.via)


# -- telling -----------------------------------------------------------------------------------------------------------


def _notes(hits: list[Hit]) -> tuple[str, ...]:
    certain = [hit for hit in hits if hit.certain]
    doubtful = [hit for hit in hits if not hit.certain]
    told = []
    if certain:
        told.append(f"{_count(certain, 'secret')} hidden; the page shows it all")
    if doubtful:
        told.append(f"{_count(doubtful, 'text')} that may be secret hidden; the page shows it all")
    return tuple(told)


def _count(hits: list[Hit], noun: str) -> str:
    lengths = sorted({about(hit.end - hit.start) for hit in hits})
    return f"{len(hits)} {noun}{'' if len(hits) == 1 else 's'} of about {' or '.join(map(str, lengths))} characters"
