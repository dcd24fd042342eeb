"""What must hold between events: time, order, and that nothing was released without its permission.

One pass; remembers only what is still open. Knows the meaning of events, not files, hashes or signatures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from interlock.verify import proof
from interlock.verify.finding import Released, Report
from interlock.verify.form import Form, needs
from interlock.verify.strict import MalformedError, parse_object

COMMANDS = frozenset(("command", "sftp", "git.push", "pg.query", "pg.parse", "pg.bind"))
TYPES = COMMANDS | frozenset(
    (
        "session.open", "session.close", "channel.open", "channel.close", "channel.refuse", "term.output", "term.input",
        "term.resize", "pg.copy", "pg.result", "sftp.result", "sftp.content",
        "decision", "approval.request", "approval.response", "forward", "block",
        "heartbeat", "clock.step", "gap", "recovery", "journal.open", "journal.close", "access.refused", "vote",
        "identity.change", "config.change", "login", "account", "certificate.issue", "authority.change", "catalog",
        "session.kill", "approval.escalated", "approval.edited",
        "grant", "requester.lock", "requester.unlock", "glass.reviewed", "channel.alert", "message.given_up",
    )
)  # fmt: skip
"""An event of another type fails verification: nobody has said what it means."""

CLOCK_BOUND_US = 1_000_000
HEARTBEAT_US = 30_000_000
SILENCE_US = 2 * HEARTBEAT_US + 5_000_000
"""Two heartbeats, and the time it takes to write them on a busy machine."""

_TS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")


@dataclass(slots=True)
class _Command:
    seq: int
    type: str
    text: str | None
    event: dict[str, Any]
    texts: dict[str, Any]  # kept while a reviewer may be asked about it
    decided: bool = False


@dataclass(slots=True)
class _Decision:
    command: _Command
    verdict: str
    rule: str
    requests: list[str] = field(default_factory=list)
    forwarded: bool = False
    blocked: bool = False


@dataclass(slots=True)
class _Request:
    digest: str
    quorum: int
    needs: tuple[tuple[frozenset[str], int], ...]  # (groups, people)
    critical: bool
    excluded: frozenset[str]
    expires: datetime | None
    grant: str = ""
    match: str = ""
    rule: str = ""
    nonce: str | None = None  # of the form, where it is disclosed
    verdict: str = ""  # of the answer, once there is one
    approved_by: tuple[str, ...] | None = None  # set by an approval that was not used yet
    used: bool = False


class Rules:
    """Feed every event in order, then call `finish` with the status of the seal."""

    def __init__(self, report: Report, kind: str, reviewers: Mapping[str, frozenset[str]] | None = None) -> None:
        """`reviewers` are the people whose keys the auditor lists, by fingerprint."""
        self._report = report
        self._reviewers = reviewers
        self._live = kind == "session"  # a journal keeps the desk's minutes: its answers are of other transcripts
        self._opening = "session.open" if kind == "session" else "journal.open"
        self._closing = "session.close" if kind == "session" else "journal.close"
        self._commands: dict[int, _Command] = {}
        self._decisions: dict[int, _Decision] = {}
        self._requests: dict[str, _Request] = {}
        self._by_digest: dict[str, tuple[str, _Request]] = {}
        self._opened: dict[str, Any] = {}
        self._asking: frozenset[str] = frozenset()
        self._wall: datetime | None = None
        self._mono = 0
        self._unexplained: tuple[int, int] | None = None  # (event, µs) of clocks that parted
        self._ended = False
        self._last = ""
        self.policies: set[str] = set()
        self.observe = False
        self.forwards = 0
        self.decided = 0
        self.proven = 0

    def feed(self, event: dict[str, Any], texts: dict[str, Any]) -> None:
        """Check one event against all before it. Its common keys have been checked for presence and type."""
        kind, seq = event["type"], event["seq"]
        if kind not in TYPES:
            self._bad("types", f"nobody has said what an event of type {kind!r} means", seq)
        self._time(event)
        self._order(kind, seq)
        try:
            match kind:
                case "session.open":
                    self._opened = event
                    parties = [event.get("principal"), event.get("owner"), *event.get("acting_for", [])]
                    self._asking = frozenset(str(p) for p in parties if p is not None)
                case "journal.open" if "continues" in event:
                    self._report.continues = (
                        str(event["continues"]), int(event["continues_events"]), str(event["continues_head"]),
                    )  # fmt: skip
                case "recovery":
                    torn = int(event["torn_bytes"])
                    self._report.notes.append(f"recovered at event {seq}: {torn} bytes of an unfinished line were cut off")
                case "decision":
                    self._decision(event)
                case "approval.request" if self._live:
                    self._request(event, texts)
                case "approval.response" if self._live:
                    self._response(event, texts)
                case "vote":
                    if event["counted"] is True:
                        self._proof(event, texts.get("statement"), seq)
                case "forward":
                    self._forward(event, texts)
                case "block":
                    self._block(event)
                case _ if kind in COMMANDS:
                    text = texts.get("text")
                    self._commands[seq] = _Command(seq, kind, text if isinstance(text, str) else None, event, texts)
                case _:
                    ref = event.get("ref")
                    if ref is not None and (type(ref) is not int or not 0 <= ref <= seq):
                        self._bad("references", "the event refers to one that is not before it", seq)
        except (KeyError, TypeError, ValueError, AttributeError):
            self._bad("events", f"a field of {kind} is missing or has the wrong form", seq)
        self._last = kind

    def finish(self, status: str) -> None:
        self._clocks_explained()
        if status == "closed" and not self._ended:
            self._bad("order", f"the seal says closed and there is no {self._closing}")
        if status == "closed" and self._last == "recovery":
            self._bad("order", "the seal says closed and the node had died")
        if status == "aborted" and self._last != "recovery":
            self._bad("order", "the seal says aborted and the last event is not the recovery")

    # -- time and order ---------------------------------------------------------------------------------------------

    def _time(self, event: dict[str, Any]) -> None:
        seq, mono, kind = event["seq"], event["mono_us"], event["type"]
        if not _TS.match(event["ts"]):
            self._bad("time", "the time is not RFC 3339 in UTC with six digits", seq)
            return
        try:
            wall = datetime.fromisoformat(event["ts"])
        except ValueError:
            self._bad("time", "the time does not exist", seq)
            return
        if kind == "clock.step" and self._unexplained is not None and event.get("ref") == self._unexplained[0]:
            if event.get("step_us") != self._unexplained[1]:
                self._bad("time", "the clock's step is not the one that the times show", seq)
            self._unexplained = None
        if mono < self._mono:
            self._bad("time", "the monotonic clock went back", seq)
        if self._wall is not None and kind != "recovery":  # after a crash another process's clock runs
            passed = mono - self._mono
            step = _microseconds(wall - self._wall) - passed
            if abs(step) > CLOCK_BOUND_US:
                self._clocks_explained()
                self._unexplained = (seq, step)
            if passed > SILENCE_US:
                self._bad("time", f"the record is silent for {passed // 1_000_000} s before this event", seq)
        self._wall, self._mono = wall, max(mono, self._mono)

    def _clocks_explained(self) -> None:
        if self._unexplained is not None:
            seq, step = self._unexplained
            self._unexplained = None
            self._bad("time", f"the clocks part by {step / 1e6:.3f} s and no clock.step says so", seq)

    def _order(self, kind: str, seq: int) -> None:
        if seq == 0 and kind not in (self._opening, "recovery"):
            self._bad("order", f"the first event is {kind} and not {self._opening}", seq)
        if kind == self._opening and seq != 0:
            self._bad("order", f"a second {kind}", seq)
        if self._ended and kind not in ("clock.step", "recovery"):
            self._bad("order", f"{kind} after the end", seq)
        if kind == self._closing:
            self._ended = True

    # -- permission -------------------------------------------------------------------------------------------------

    def _decision(self, event: dict[str, Any]) -> None:
        seq, verdict = event["seq"], event["verdict"]
        command = self._commands.pop(event["ref"], None)
        if command is None:
            self._bad("decisions", "the decision refers to no command, or to one that was decided already", seq)
            return
        if verdict not in ("allow", "deny", "review"):
            self._bad("decisions", f"{verdict!r} is not a verdict", seq)
        if verdict != "review":
            command.texts = {}
        self.decided += 1
        self.policies.add(str(event["policy"]))
        self.observe = self.observe or bool(event.get("observed"))
        self._decisions[seq] = _Decision(command, str(verdict), str(event["rule"]))

    def _request(self, event: dict[str, Any], texts: dict[str, Any]) -> None:
        seq, ident = event["seq"], str(event["request"])
        decision = self._decisions.get(event["ref"])
        if decision is None or decision.verdict != "review":
            self._bad("approvals", f"{ident} asks about something that policy did not send to review", seq)
            return
        quorum = event["quorum"]
        if type(quorum) is not int or quorum < 1:
            self._bad("approvals", f"{ident} asks for no reviewer at all", seq)
            quorum = 1
        excluded = frozenset(str(i) for i in event["excluded"])
        if not self._asking <= excluded:
            self._bad("approvals", f"{ident} does not exclude everybody who asked", seq)
        decision.requests.append(ident)
        known = self._requests.get(ident)
        if known is None:
            expires = datetime.fromisoformat(event["expires"])
            wanted = tuple((frozenset(map(str, need["groups"])), int(need["quorum"])) for need in needs(event))
            author = frozenset([str(event["author"])] if "author" in event else [])
            known = self._requests[ident] = _Request(
                str(event["digest"]), quorum, wanted, event.get("critical", False) is not False,
                excluded | self._asking | author, expires, str(event.get("grant", "")), str(event["match"]), decision.rule,
            )  # fmt: skip
            self._by_digest.setdefault(known.digest, (ident, known))
        elif known.digest != event["digest"] or known.quorum != quorum:
            self._bad("approvals", f"{ident} is asked twice and not the same", seq)
        self._form(event, texts, known, decision.command)

    def _form(self, event: dict[str, Any], texts: dict[str, Any], request: _Request, command: _Command) -> None:
        """Hold what the reviewer was asked against what the record says was asked: the digest alone ties nothing."""
        seq, ident, text = event["seq"], str(event["request"]), texts.get("form")
        if not isinstance(text, str):
            message = f"what {ident} asked is not here, so nothing ties its digest to the command"
            self._report.problem("approvals", message, seq, incomplete=True)
            return
        whole = len(command.texts) == len(command.event.get("_sd", ()))
        try:
            form = Form(text)
            wrong = form.disagreements(event, self._opened, command.event, command.texts, whole=whole)
        except (MalformedError, KeyError, TypeError, ValueError, AttributeError):
            self._bad("approvals", f"what {ident} asked can't be read", seq)
            return
        if wrong:
            self._bad("approvals", f"what {ident} asked is not what the record says: {', '.join(wrong)}", seq)
        request.nonce = form.nonce
        if form.session != self._opened.get("session"):
            if request.grant:
                self._bad("approvals", f"{ident} was released under a grant and was asked in another session", seq)
            else:  # run again from another connection, with the answer that waited
                self._note(f"{ident} was asked first in session {form.session}: look there whether it was used a second time")

    def _response(self, event: dict[str, Any], texts: dict[str, Any]) -> None:
        seq, ident = event["seq"], str(event["request"])
        request = self._requests.get(ident)
        if request is None:
            self._bad("approvals", f"{ident} is answered and was never asked", seq)
            return
        if event["digest"] != request.digest:
            self._bad("approvals", f"the answer to {ident} is about something else", seq)
            return
        signers: dict[bytes, str] = {}
        statements = texts.get("statements")
        for at, vote in enumerate(event["votes"]):
            signed = statements[at] if isinstance(statements, list) and at < len(statements) else None
            public = self._proof(vote, signed, seq)
            self._nonce(vote, signed, seq)
            if public is not None and signers.setdefault(public, str(vote["reviewer"])) != str(vote["reviewer"]):
                self._bad("proofs", f"two people answered {ident} with the same key", seq)
        request.verdict = str(event["verdict"])
        if event["verdict"] != "approve":
            return
        if str(event.get("grant", "")) != request.grant:
            self._bad("approvals", f"{ident} was asked and answered under different grants", seq)
            return
        people: dict[str, str] = {}
        groups: dict[str, frozenset[str]] = {}
        alone = False
        for vote in event["votes"]:
            reviewer = str(vote["reviewer"])
            if vote["verdict"] != "approve":
                self._bad("approvals", f"{ident} counts as approved and {reviewer} denied it", seq)
            if reviewer in request.excluded:
                self._bad("approvals", f"{reviewer} answered {ident} and may not: asked for it, or stands behind it", seq)
                continue
            self._answer(event, vote, reviewer, request)
            if request.critical and vote["proof"] != "personal":
                self._bad("approvals", f"{ident} is critical and {reviewer} approved it without a personal proof", seq)
            people[reviewer] = str(vote.get("handle") or reviewer)
            groups[reviewer] = frozenset(map(str, vote.get("groups", ())))
            alone = alone or (vote.get("break_glass") is True and vote["proof"] == "personal")
        if not alone and len(people) < request.quorum:
            self._bad("approvals", f"{ident} was approved by {len(people)} and needs {request.quorum}", seq)
            return
        if not alone and not _met(request.needs, list(groups.values())):
            self._bad("approvals", f"{ident} was not approved by people of every group that it needs", seq)
            return
        if request.used or request.approved_by is not None:
            self._bad("approvals", f"{ident} is used a second time", seq)
            return
        request.approved_by = tuple(sorted(people.values()))

    def _nonce(self, vote: dict[str, Any], signed: Any, seq: int) -> None:
        """A signature is over the nonce of the very request whose digest it names."""
        _, request = self._by_digest.get(str(vote["digest"]), ("", None))
        if request is None or request.nonce is None or not isinstance(signed, str) or "signed" not in vote:
            return
        try:
            same = parse_object(signed.encode()).get("nonce") == request.nonce
        except MalformedError:
            return  # `_proof` has said so
        if not same:
            self._bad("approvals", f"{vote['reviewer']} signed another nonce than that of what was asked", seq)

    def _proof(self, vote: dict[str, Any], statement: Any, seq: int) -> bytes | None:
        """Check that a personal proof is one; return the key that signed. `statement` is what the record says was signed."""
        kind, who = vote.get("proof"), str(vote["reviewer"])
        if kind not in proof.KINDS:
            self._bad("proofs", f"{kind!r} is not a kind of proof", seq)
        if kind != "personal" and "signed" not in vote:
            return None
        if "signed" not in vote:
            self._bad("proofs", f"the answer of {who} is not signed as it says: there is no signature", seq)
            return None
        if not isinstance(statement, str):
            message = f"the signature of {who} can't be checked: what was signed is missing"
            self._report.problem("proofs", message, seq, incomplete=True)
            return None
        try:
            public = proof.check(vote, statement)
        except (proof.UnprovenError, MalformedError) as error:
            self._bad("proofs", f"the answer of {who} is not signed as it says: {error}", seq)
            return None
        key = proof.fingerprint(public)
        if self._reviewers is not None and who not in self._reviewers.get(key, frozenset()):
            self._bad("proofs", f"{who} signed with {key}, which your list of reviewers does not give to them", seq)
            return None
        self.proven += 1
        return public

    def _answer(self, event: dict[str, Any], vote: dict[str, Any], reviewer: str, request: _Request) -> None:
        """One approval: about this request and in time, or what gave the grant and was still in force."""
        seq, ident = event["seq"], str(event["request"])
        if not request.grant:
            if vote["digest"] != request.digest:
                self._bad("approvals", f"{reviewer}'s answer to {ident} is about something else", seq)
            if request.expires is not None and datetime.fromisoformat(vote["at"]) > request.expires:
                self._bad("approvals", f"{reviewer} answered {ident} after it had expired", seq)
            return
        if vote["scope"] not in ("exact", "rule_in_session"):
            self._bad("approvals", f"{reviewer} approved once, and {ident} was released under a grant", seq)
        if "valid_until" in vote and datetime.fromisoformat(event["ts"]) > datetime.fromisoformat(vote["valid_until"]):
            self._bad("approvals", f"{ident} was released after the grant of {reviewer} had ended", seq)
        first, given = self._by_digest.get(str(vote["digest"]), ("", None))
        if given is not None and (given.grant or given.verdict not in ("", "approve", "lapsed") or given.rule != request.rule):
            self._bad("approvals", f"{ident} was released under a grant that {first} can't have given", seq)
        elif vote["scope"] == "exact" and given is not None:
            if given.match != request.match:
                self._bad("approvals", f"{ident} is not exactly what {reviewer} approved in {first}", seq)
        elif vote["scope"] == "exact":
            self._note(f"{ident} ran under the grant {request.grant}: the request that it was given for is in another transcript")
        elif given is None:
            self._bad("approvals", f"{ident} ran under a grant of this session, and this session never asked for it", seq)
        elif not given.verdict:  # handed back to the agent before it was answered
            self._note(f"{ident} ran under the grant {request.grant}: the answer to {first} is in the node's journal")

    def _forward(self, event: dict[str, Any], texts: dict[str, Any]) -> None:
        seq, sent = event["seq"], event["sent"]
        self.forwards += 1
        decision = self._decisions.get(event["ref"])
        if decision is None:
            self._bad("releases", "a command was released without a decision", seq)
            return
        command = decision.command
        ident: str | None = None
        people: tuple[str, ...] = ()
        if decision.forwarded or decision.blocked:
            self._bad("releases", "a command was released a second time, or after it was refused", seq)
        if sent not in ("exact", "rendered"):
            self._bad("releases", f"{sent!r} does not say what was sent", seq)
        match decision.verdict:
            case "allow":
                pass
            case "review":
                ident = next((i for i in decision.requests if self._requests[i].approved_by is not None), None)
                if ident is None:
                    self._bad("releases", "a command that needed an approval was released without one", seq)
                else:
                    request = self._requests[ident]
                    people, request.approved_by, request.used = request.approved_by or (), None, True
                if sent != "exact":
                    self._bad("releases", "what was released is not what was approved", seq)
            case _:
                self._bad("releases", "a denied command was released", seq)
        decision.forwarded = True
        rendered = texts.get("sent_text") if sent == "rendered" else None
        self._report.released.append(
            Released(
                seq=seq, type=command.type, text=command.text, sent=rendered if isinstance(rendered, str) else None,
                verdict=decision.verdict, rule=decision.rule, request=ident, approved_by=people,
            )
        )  # fmt: skip

    def _block(self, event: dict[str, Any]) -> None:
        decision = self._decisions.get(event["ref"])
        if decision is None:
            self._bad("decisions", "a refusal refers to no decision", event["seq"])
        else:
            decision.blocked = True

    def _note(self, message: str) -> None:
        if message not in self._report.notes:
            self._report.notes.append(message)

    def _bad(self, check: str, message: str, seq: int | None = None) -> None:
        self._report.problem(check, message, seq)


def _met(needs: tuple[tuple[frozenset[str], int], ...], people: list[frozenset[str]]) -> bool:
    """Whether every need has people of its own: a matching between seats and people, found by augmenting paths."""
    seats = [groups for groups, count in needs for _ in range(min(count, len(people) + 1))]
    sits: dict[int, int] = {}

    def seated(seat: int, asked: set[int]) -> bool:
        for person, groups in enumerate(people):
            if person not in asked and groups & seats[seat]:
                asked.add(person)
                if person not in sits or seated(sits[person], asked):
                    sits[person] = seat
                    return True
        return False

    return all(seated(seat, set()) for seat in range(len(seats)))


def _microseconds(delta: Any) -> int:
    return int((delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds)


def parse_time(text: str) -> datetime | None:
    """Return the time of an RFC 3339 text in our form, or None."""
    if not _TS.match(text):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None
