"""Grants: what a reviewer allowed beyond once, and exactly what that covers. Pure.

Theory of operation: a request whose approvers all chose the same wider scope leaves a grant behind. A later request of the
same requester that the grant covers is born approved under it, with the same votes, and is consumed like any other: policy
is asked again, the voters are looked up again, the use is on record. Two scopes exist:

* `exact`: the same `match` (the same bytes, input, values, target, account, chain) until a time.
* `rule_in_session`: what the same rule holds in the same session, bound to the words of the request that was approved
  (threats.md A10). For a shell that is one simple command: the same program with the same flags behind the same wrappers, on
  the same object or, for a path, below it. For SQL it is the same statement with other constants.

Whatever can't be bound that way is not offered: opaque parts, input, environment, a critical rule. Both end with a time, a
revocation, a voter who does not stand any more, other terms of the rule, or a store that was restored.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from posixpath import normpath

from interlock.approvals.model import ApprovalRequest, RequestDraft, Scope, Vote, VoteVerdict
from interlock.approvals.wording import duration
from interlock.commands.model import Analysis, Effect, Kind, Stdin, Wire
from interlock.commands.sql.shape import shape
from interlock.identity.principal import Identity
from interlock.policy.model import ReviewTerms, Target

ROWS = frozenset(("select", "insert", "update", "delete", "merge"))
"""SQL effects that a shape binds: a call of a function may take a whole statement, or a name, as its constant."""

MAX_EFFECTS = 8
MAX_WORDS = 64
"""A command that does more, or has more words, can't be bound: nobody reads along, and comparing costs time."""

HERE = "\0"
"""Stands for the granted path or one below it where two argument lists are compared; no argument can hold a NUL."""


class GrantState(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Bound:
    """One effect that a grant covers. `path`: the object is a path, and what is below it is covered as well."""

    effect: Effect
    path: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """Kept by the store. `words` is what the reviewer was shown for the scope; `votes` are the ones that gave it."""

    id: str
    request: str
    digest: str  # of that request
    scope: Scope
    requester: Identity
    handle: str
    owner: Identity | None
    chain: tuple[Identity, ...]
    target: Target
    rule: str
    terms: ReviewTerms
    match: str
    session: str
    shape: str  # of a SQL statement
    bounds: tuple[Bound, ...]
    words: str
    votes: tuple[Vote, ...]
    excluded: frozenset[Identity]
    created: datetime
    valid_until: datetime
    state: GrantState = GrantState.ACTIVE

    def active(self, now: datetime) -> bool:
        return self.state is GrantState.ACTIVE and now < self.valid_until


def ident(request_id: str) -> str:
    """A request leaves at most one grant, so its id follows from the request's."""
    return "grt_" + request_id.partition("_")[2]


def offered(draft: RequestDraft) -> tuple[Scope, ...]:
    """Return the scopes that a reviewer may choose: what the rule permits and what can be bound. `once` is always first."""
    terms = draft.terms
    once = (Scope.ONCE,) if Scope.ONCE in terms.scopes else ()
    if terms.critical:
        return once
    wider = [Scope.EXACT] if Scope.EXACT in terms.scopes else []
    if Scope.RULE_IN_SESSION in terms.scopes and draft.session and _bindable(draft):
        wider.append(Scope.RULE_IN_SESSION)
    return (*once, *wider)


def words(draft: RequestDraft, scope: Scope, longest: float) -> str:
    """Say what a scope would cover, as the card shows it. `longest` is the longest life of a grant, in seconds."""
    place = f"as {draft.target.account or draft.target.role} on {draft.target.name}"
    limit = duration(int(longest))
    match scope:
        case Scope.ONCE:
            return "once: this command, one time"
        case Scope.EXACT:
            return f"exactly this command, again and again, {place}, for as long as you say, at most {limit}"
        case Scope.RULE_IN_SESSION:
            return f"{_bound_words(draft)}, {place}, in this session, for at most {limit}"


def made(request: ApprovalRequest, scope: Scope, valid_until: datetime, longest: float) -> Grant:
    """Return the grant that an approval of this scope leaves behind."""
    draft = request.draft
    bound = scope is Scope.RULE_IN_SESSION
    return Grant(
        id=ident(request.id), request=request.id, digest=request.digest, scope=scope,
        requester=draft.principal.identity, handle=draft.principal.handle, owner=draft.principal.owner,
        chain=draft.principal.acting_for, target=draft.target, rule=draft.decision.rule, terms=draft.terms,
        match=request.match, session=draft.session if bound else "",
        shape=shape(draft.command.text) if bound and draft.command.wire is Wire.POSTGRES else "",
        bounds=_bounds(draft.analysis.effects) if bound else (), words=words(draft, scope, longest),
        votes=tuple(vote for vote in request.votes if vote.verdict is VoteVerdict.APPROVE), excluded=request.excluded,
        created=request.decided_at or request.created, valid_until=valid_until,
    )  # fmt: skip


def covers(grant: Grant, draft: RequestDraft, match: str, now: datetime) -> bool:
    """Whether a grant answers this request before anybody is asked."""
    who = draft.principal
    same_terms = (grant.rule, grant.terms) == (draft.decision.rule, draft.terms)
    if not grant.active(now) or not same_terms or draft.terms.critical or str(grant.scope) not in draft.terms.scopes:
        return False
    if (grant.requester, grant.owner, grant.chain) != (who.identity, who.owner, who.acting_for) or grant.target != draft.target:
        return False
    if grant.scope is Scope.EXACT:
        return grant.match == match
    if not grant.session or grant.session != draft.session or not _bindable(draft):
        return False
    if draft.command.wire is Wire.POSTGRES:
        same = grant.shape != "" and grant.shape == shape(draft.command.text)
        return same and _bounds(draft.analysis.effects) == grant.bounds
    tops = [bound.effect.object for bound in grant.bounds if bound.path]
    return all(any(_within(effect, bound, tops) for bound in grant.bounds) for effect in draft.analysis.effects)


# -- binding --------------------------------------------------------------------------------------------------------------


def _bindable(draft: RequestDraft) -> bool:
    """Whether the words of a request can bound another one: everything is known, and nothing comes from beside the text."""
    command, analysis = draft.command, draft.analysis
    if not 0 < len(analysis.effects) <= MAX_EFFECTS or not analysis.static or analysis.assumed or analysis.names:
        return False
    if command.wire is Wire.POSTGRES:
        rows = command.kind in (Kind.QUERY, Kind.BIND) and {effect.verb for effect in analysis.effects} <= ROWS
        called = any(effect.functions for effect in analysis.effects)
        return rows and not called and analysis.statements == 1 and shape(command.text) != ""
    given = analysis.stdin is Stdin.PROTOCOL or (command.stdin is not None and command.stdin.data != b"")
    return not given and not command.env and not command.pty and _simple(analysis)


def _simple(analysis: Analysis) -> bool:
    """Whether the text is one simple command and nothing else: no `cd` before it, no operator, pipe or redirection.

    `sent` is the re-rendering of a text whose every word is static. It must be, word for word, the arguments of the
    outermost program; each inner one must be the rest of that line behind its wrappers.
    """
    words = tuple(_words(analysis.sent))
    if not words or len(words) > MAX_WORDS:
        return False
    return all(
        effect.program and effect.argv and words[-len(effect.argv) :] == effect.argv for effect in analysis.effects
    ) and any(effect.argv == words for effect in analysis.effects)


def _words(sent: str | None) -> list[str]:
    try:
        return shlex.split(sent or "")
    except ValueError:
        return []


def _bounds(effects: Sequence[Effect]) -> tuple[Bound, ...]:
    return tuple(Bound(effect, _plain_path(effect.object)) for effect in effects)


def _within(effect: Effect, bound: Bound, tops: Sequence[str]) -> bool:
    """Whether one effect is covered. `tops` are the paths that the grant covers, below which arguments may differ."""
    granted = bound.effect
    same = ("verb", "program", "via", "origin", "recursive", "force", "host", "detail")
    if any(getattr(effect, name) != getattr(granted, name) for name in same):
        return False
    here = _below(effect.object, granted.object) if bound.path else effect.object == granted.object
    return here and _skeleton(effect.argv, tops) == _skeleton(granted.argv, tops)


def _plain_path(text: str) -> bool:
    """An absolute path that means itself: no `..`, no doubled slash, no pattern. The root itself bounds nothing."""
    return text.startswith("/") and text != "/" and normpath(text) == text and not set(text) & set("*?[]{}~$`\\")


def _below(path: str, top: str) -> bool:
    return _plain_path(path) and (path == top or path.startswith(top + "/"))


def _skeleton(argv: Sequence[str], tops: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments with every path below one of `tops` replaced, several in a row as one: `rm A B` is `rm HERE`."""
    shown: list[str] = []
    for word in argv:
        if not any(_below(word.rstrip("/") or word, top) for top in tops):
            shown.append(word)
        elif not shown or shown[-1] != HERE:
            shown.append(HERE)
    return tuple(shown)


def _bound_words(draft: RequestDraft) -> str:
    if draft.command.wire is Wire.POSTGRES:
        verbs = ", ".join(dict.fromkeys(f"{e.verb} on {e.object}" if e.object else e.verb for e in draft.analysis.effects))
        return f"the same statement with other constants ({verbs})"
    parts: dict[str, None] = {}
    for effect in draft.analysis.effects:
        flags = [word for word in effect.argv[1:] if word.startswith("-")]
        head = " ".join([*effect.via, effect.program, *flags])
        if _plain_path(effect.object):
            parts[f"`{head}` on {effect.object} and below (links there lead elsewhere)"] = None
        elif effect.verb != "privilege":  # the wrapper itself: it stands before the program that it runs
            parts[f"`{' '.join([*effect.via, *effect.argv])}`"] = None
    return "; ".join(parts)
