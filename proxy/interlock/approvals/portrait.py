"""A request as people see it: the one place where it becomes words, for the console, the CLI, Teams and Slack alike.

Pure. Everything here is plain text that went through `commands.display`: it holds no control, invisible or direction-
changing character, and a channel adds no meaning to it (threats.md §4.4). `portrait` shows everything, on our own pages
and to our own command line. `chat_portrait` is for messages that leave the house: what looks like a secret is hidden there
(`approvals.redaction`), and it is cut to what a message can hold. What is hidden or cut is said, and unless it is provably
only a value it takes the approve button with it.

Knows words. Must not know who is looking, nor how a channel draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from interlock.approvals import grants
from interlock.approvals.model import ApprovalRequest, Presence, Proof, RequestDraft, Scope, State, Vote, VoteVerdict
from interlock.approvals.redaction import redacted
from interlock.approvals.wording import duration, one_line
from interlock.commands import wording
from interlock.commands.display import Display, display, inline, whole
from interlock.commands.model import Analysis, Command, Wire
from interlock.commands.remarks import remarks
from interlock.policy.model import Need, StepUp, Target

CHAT_LINES = 30
CHAT_WIDTH = 400
CHAT_BINDS = 20
"""What a message on a phone can hold. More is cut there, and answered on the page."""
MAX_CHAT_BYTES = 4 * CHAT_LINES * CHAT_WIDTH
"""A longer text does not fit, whatever is in it; this saves drawing it."""
LONGEST = 3600.0
"""Seconds that a grant may last when the configuration says nothing else (`approvals.grants`)."""

_TITLES = {
    State.APPROVED: "Approved",
    State.CONSUMED: "Approved, and the command was released",
    State.DENIED: "Denied",
    State.EXPIRED: "Expired: nobody answered in time",
    State.CANCELLED: "Cancelled",
    State.SUPERSEDED: "Superseded by another request",
    State.LAPSED: "Lapsed: approved, but never run",
    State.REVOKED: "Revoked before the command ran",
}


@dataclass(frozen=True, slots=True)
class Portrait:
    """What a reviewer sees. Every text is safe to print as it stands, as plain text.

    `said` and `remarks` are what only the agent wrote: set them apart and label them "written by the agent, not checked".
    `complete` is False when anything was cut here. `chat_approvable` is whether a message in chat may offer the approve
    button, whatever this view is of.
    """

    title: str
    who: str
    place: str
    held_by: str
    command: Display
    stdin: Display | None
    binds: tuple[str, ...]  # "$1 = …", in order
    surroundings: tuple[str, ...]  # environment, working directory, terminal, pinned settings: what else is approved
    effects: tuple[str, ...]  # sentences, the most dangerous first
    opaque: tuple[str, ...]  # what can't be known, in words
    said: str
    remarks: tuple[str, ...]
    facts: tuple[str, ...]
    needs: tuple[str, ...]  # who must answer, in words
    scopes: tuple[tuple[Scope, str], ...]  # what a reviewer may choose, each with its sentence
    votes: tuple[str, ...]
    notes: tuple[str, ...]  # warnings and remarks of ours about this view
    warnings: tuple[str, ...]  # those of them that follow from the text alone
    left: str  # "expires in 14m"; empty when it is over, or no time was given
    complete: bool
    chat_approvable: bool


def portrait(request: ApprovalRequest, now: datetime | None = None, *, longest: float = LONGEST) -> Portrait:
    """Return everything of a request, for the page and the command line: nothing is cut, nothing hidden."""
    command = request.draft.command
    stdin = None if command.stdin is None else whole(command.stdin.data)
    binds = tuple(_bind(value.raw, value.shown) for value in command.binds)
    approvable = _fits_chat(request) and redacted(request.draft).chat_approvable
    return _portrait(request, now, _View(whole(command.text), stdin, binds, approvable, longest, _secret(request.draft.analysis)))


def moved_on(view: Portrait, request: ApprovalRequest) -> Portrait:
    """Return the whole portrait of a request that was drawn before, in the state it is in now."""
    notes = tuple(dict.fromkeys((*_history(request), *view.warnings)))
    votes = tuple(_vote(vote, str) for vote in request.votes)
    return replace(view, title=title(request), votes=votes, notes=notes, left="")


def chat_portrait(request: ApprovalRequest, now: datetime | None = None, *, longest: float = LONGEST) -> Portrait:
    """Return what a message in chat may show: the same, with secrets hidden, cut to what a message holds."""
    found = redacted(request.draft)
    stdin = None if found.stdin is None else found.stdin.display(CHAT_LINES, CHAT_WIDTH)
    values = zip(request.draft.command.binds, found.binds, strict=True)
    binds = tuple(_bind(value.raw, shown) for value, shown in values)
    shown = found.text.display(CHAT_LINES, CHAT_WIDTH)
    approvable = found.chat_approvable and _fits_chat(request)
    view = _View(shown, stdin, binds[:CHAT_BINDS], approvable, longest, found.notes, found.words)
    return _portrait(request, now, view)


@dataclass(frozen=True, slots=True)
class _View:
    """What one of the two portraits is drawn from; `words` is applied to every name and text of the request."""

    command: Display
    stdin: Display | None
    binds: tuple[str, ...]
    chat_approvable: bool
    longest: float
    notes: tuple[str, ...] = ()
    words: Callable[[str], str] = str


def _portrait(request: ApprovalRequest, now: datetime | None, view: _View) -> Portrait:
    draft, stdin, words = request.draft, view.stdin, view.words
    command = draft.command
    analysis = draft.analysis if view.words is str else _hidden(draft.analysis, words)
    warnings = [*view.command.deceptions, *(stdin.deceptions if stdin is not None else ())]
    careful = (*(f"Careful: {w}" for w in warnings), *(inline(words(note)) for note in analysis.notes))
    notes = (*view.notes, *_history(request), *careful)
    return Portrait(
        title=title(request),
        who=who(draft),
        place=place(draft.target),
        held_by=inline(f"{draft.decision.rule}: {one_line(draft.decision.reason)}", 400),
        command=view.command,
        stdin=stdin if stdin is not None and stdin.length else None,
        binds=tuple(_numbered(number, value, analysis) for number, value in enumerate(view.binds, 1)),
        surroundings=_surroundings(command, words),
        effects=wording.sentences(analysis, command.wire),
        opaque=wording.unknowns(analysis),
        said=inline(words(draft.said), 600),
        remarks=tuple(f"{remark.kind}: {inline(words(remark.text), 400)}" for remark in remarks(command)),
        facts=tuple(inline(words(fact), 300) for fact in draft.facts),
        needs=needs(request),
        scopes=tuple((scope, inline(words(grants.words(draft, scope, view.longest)), 600)) for scope in grants.offered(draft)),
        votes=tuple(_vote(vote, words) for vote in request.votes),
        notes=tuple(dict.fromkeys(notes)),
        warnings=careful,
        left=_left(request, now),
        complete=not view.command.cut and not (stdin is not None and stdin.cut) and len(view.binds) == len(command.binds),
        chat_approvable=view.chat_approvable,
    )


def _secret(analysis: Analysis) -> tuple[str, ...]:
    """Tell of values in the text what `$1 (secret)` tells of those beside it."""
    count = len(analysis.concealed)
    return (f"Secret by where {'it goes' if count == 1 else 'they go'}: {count} of the values in the text",) if count else ()


def _hidden(analysis: Analysis, words: Callable[[str], str]) -> Analysis:
    """Hide in the effects what is hidden in the text."""
    effects = tuple(
        replace(
            effect,
            object=words(effect.object),
            detail=words(effect.detail),
            host=words(effect.host),
            functions=tuple(map(words, effect.functions)),
            columns=tuple(map(words, effect.columns)),
        )
        for effect in analysis.effects
    )
    return replace(analysis, effects=effects, opaque=tuple(replace(o, text=words(o.text)) for o in analysis.opaque))


def _fits_chat(request: ApprovalRequest) -> bool:
    """Whether a message may hold the question at all: no personal proof is asked for, and it shows everything."""
    terms, command = request.draft.terms, request.draft.command
    if terms.critical or terms.step_up is not StepUp.NONE:
        return False
    texts = [command.text] + ([command.stdin.data] if command.stdin is not None else [])
    return (
        all(len(text) <= MAX_CHAT_BYTES for text in texts)
        and not any(display(text, lines=CHAT_LINES, width=CHAT_WIDTH).cut for text in texts)
        and len(command.binds) <= CHAT_BINDS
        and all(value.raw is None or (value.shown is not None and len(value.shown) <= CHAT_WIDTH) for value in command.binds)
    )


# -- parts -------------------------------------------------------------------------------------------------------------


def title(request: ApprovalRequest) -> str:
    """Say how the request stands, as a headline."""
    if request.state is State.PENDING:
        if request.presence is Presence.HELD:
            return "A command waits for you"
        return "The agent has left; it will run this again"
    return _TITLES[request.state]


def who(draft: RequestDraft) -> str:
    """Say who asks, for whom, and who answers for it."""
    principal = draft.principal
    told = f"{principal.kind} {principal.handle}"
    if principal.acting_for:
        told += " for " + ", ".join(principal.acting_for_handles or [str(i) for i in principal.acting_for])
    if principal.owner is not None:
        told += f" (owned by {principal.owner_handle or principal.owner})"
    return inline(told, 600)


def place(target: Target) -> str:
    """Say where it would run, and as whom there."""
    if target.protocol == "postgres":
        return inline(f"{target.name}, database {target.database}, as {target.role}", 400)
    return inline(f"{target.name} as {target.account or target.role}", 400)


def needs(request: ApprovalRequest) -> tuple[str, ...]:
    """Say who must answer: one sentence for each need, and how they must prove themselves."""
    terms = request.draft.terms
    told = [_need(need) for need in terms.needs]
    if terms.critical:
        told.append("signed by each of them with a passkey or a key of their own")
    elif terms.step_up is StepUp.REAUTH:
        told.append("each freshly logged in")
    return tuple(told)


def _need(need: Need) -> str:
    groups = " or ".join(inline(group) for group in need.groups) or "nobody: no group may answer this"
    people = max(1, need.quorum)
    return f"one person of {groups}" if people == 1 else f"{people} different people of {groups}"


def _vote(vote: Vote, words: Callable[[str], str]) -> str:
    proof = {Proof.NONE: "", Proof.CHANNEL: "", Proof.PERSONAL: ", signed"}[vote.proof]
    verb = "approved" if vote.verdict is VoteVerdict.APPROVE else "denied"
    glass = " by breaking the glass" if vote.break_glass else ""
    reason = f": {inline(words(one_line(vote.reason)), 400)}" if vote.reason else ""
    return f"{inline(vote.reviewer_handle)} {verb} it{glass} ({inline(vote.channel)}{proof}){reason}"


def _history(request: ApprovalRequest) -> tuple[str, ...]:
    """Tell what happened to the request beside its answers."""
    told = []
    if request.edited_from:
        author, earlier = inline(str(request.author)), inline(request.edited_from)
        told.append(f"A reviewer ({author}) wrote this in place of {earlier}; the agent runs it itself once it is approved")
    if request.successor:
        told.append(f"A reviewer's edit took its place: {inline(request.successor)}")
    if request.grant:
        told.append(f"Approved by a grant that was given before: {inline(request.grant)}")
    if request.escalated_at is not None:
        told.append("Nobody had answered for a while, so more people were told")
    return tuple(told)


def _left(request: ApprovalRequest, now: datetime | None) -> str:
    if now is None or request.state is not State.PENDING:
        return ""
    seconds = int((request.expires - now).total_seconds())
    return f"expires in {duration(seconds)}" if seconds > 0 else "expires now"


def _numbered(number: int, value: str, analysis: Analysis) -> str:
    return f"${number} (secret) = {value}" if number in analysis.secrets else f"${number} = {value}"


def _bind(raw: bytes | None, shown: str | None) -> str:
    if raw is None:
        return "NULL"
    if shown is None:
        return f"{len(raw)} bytes that can't be read here: {raw[:64].hex()}" + ("…" if len(raw) > 64 else "")
    return inline(shown, 4000)


def _surroundings(command: Command, words: Callable[[str], str]) -> tuple[str, ...]:
    told = [f"variable {inline(name)} = {inline(words(value))}" for name, value in command.env]
    if command.cwd:
        told.append(f"in the directory {inline(words(command.cwd))}")
    if command.pty:
        told.append("on a terminal")
    if command.wire is Wire.POSTGRES:
        told += [f"setting {inline(name)} = {inline(words(value))}" for name, value in command.settings]
    return tuple(told)
