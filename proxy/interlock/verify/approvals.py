"""Requests and answers: that those who approved were asked about just this, may answer, were enough, and signed as is said.

Knows the events of approvals. Must not know what was released: the rules ask here for an approval and spend it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from interlock.verify import proof
from interlock.verify.finding import Report
from interlock.verify.form import Form, needs
from interlock.verify.pending import Command, Decision, Request
from interlock.verify.strict import MalformedError, parse_object


class Approvals:
    """The requests of one transcript. `reviewers` are the people whose keys the auditor lists, by fingerprint."""

    def __init__(self, report: Report, reviewers: Mapping[str, frozenset[str]] | None = None) -> None:
        self._report = report
        self._reviewers = reviewers
        self._requests: dict[str, Request] = {}
        self._by_digest: dict[str, tuple[str, Request]] = {}
        self._opened: dict[str, Any] = {}
        self._asking: frozenset[str] = frozenset()
        self.proven = 0

    def opened(self, event: dict[str, Any]) -> None:
        """The session begins: who asks in it, and stands behind who asks, may answer nothing of it."""
        self._opened = event
        parties = [event.get("principal"), event.get("owner"), *event.get("acting_for", [])]
        self._asking = frozenset(str(p) for p in parties if p is not None)

    def spend(self, decision: Decision) -> tuple[str, tuple[str, ...]] | None:
        """Use the approval of a decision, once: return its request and who approved, or None when there is none."""
        for ident in decision.requests:
            request = self._requests[ident]
            if request.approved_by is not None:
                people, request.approved_by, request.used = request.approved_by, None, True
                return ident, people
        return None

    def request(self, event: dict[str, Any], texts: dict[str, Any], decision: Decision | None) -> None:
        """Somebody is asked about what `decision` sent to review."""
        seq, ident = event["seq"], str(event["request"])
        if decision is None or decision.verdict != "review":
            self._bad(f"{ident} asks about something that policy did not send to review", seq)
            return
        quorum = event["quorum"]
        if type(quorum) is not int or quorum < 1:
            self._bad(f"{ident} asks for no reviewer at all", seq)
            quorum = 1
        excluded = frozenset(str(i) for i in event["excluded"])
        if not self._asking <= excluded:
            self._bad(f"{ident} does not exclude everybody who asked", seq)
        decision.requests.append(ident)
        known = self._requests.get(ident)
        if known is None:
            expires = datetime.fromisoformat(event["expires"])
            wanted = tuple((frozenset(map(str, need["groups"])), int(need["quorum"])) for need in needs(event))
            author = frozenset([str(event["author"])] if "author" in event else [])
            known = self._requests[ident] = Request(
                str(event["digest"]), quorum, wanted, event.get("critical", False) is not False,
                excluded | self._asking | author, expires, str(event.get("grant", "")), str(event["match"]), decision.rule,
            )  # fmt: skip
            self._by_digest.setdefault(known.digest, (ident, known))
        elif known.digest != event["digest"] or known.quorum != quorum:
            self._bad(f"{ident} is asked twice and not the same", seq)
        self._form(event, texts, known, decision.command)

    def _form(self, event: dict[str, Any], texts: dict[str, Any], request: Request, command: Command) -> None:
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
            self._bad(f"what {ident} asked can't be read", seq)
            return
        if wrong:
            self._bad(f"what {ident} asked is not what the record says: {', '.join(wrong)}", seq)
        request.nonce = form.nonce
        if form.session != self._opened.get("session"):
            if request.grant:
                self._bad(f"{ident} was released under a grant and was asked in another session", seq)
            else:  # run again from another connection, with the answer that waited
                self._note(f"{ident} was asked first in session {form.session}: look there whether it was used a second time")

    def response(self, event: dict[str, Any], texts: dict[str, Any]) -> None:
        """A request is decided: by enough people, who may, about just this, and each with the proof that is said."""
        seq, ident = event["seq"], str(event["request"])
        request = self._requests.get(ident)
        if request is None:
            self._bad(f"{ident} is answered and was never asked", seq)
            return
        if event["digest"] != request.digest:
            self._bad(f"the answer to {ident} is about something else", seq)
            return
        signers: dict[bytes, str] = {}
        statements = texts.get("statements")
        for at, vote in enumerate(event["votes"]):
            signed = statements[at] if isinstance(statements, list) and at < len(statements) else None
            public = self.proven_key(vote, signed, seq)
            self._nonce(vote, signed, seq)
            if public is not None and signers.setdefault(public, str(vote["reviewer"])) != str(vote["reviewer"]):
                self._report.problem("proofs", f"two people answered {ident} with the same key", seq)
        request.verdict = str(event["verdict"])
        if event["verdict"] != "approve":
            return
        if str(event.get("grant", "")) != request.grant:
            self._bad(f"{ident} was asked and answered under different grants", seq)
            return
        people: dict[str, str] = {}
        groups: dict[str, frozenset[str]] = {}
        alone = False
        for vote in event["votes"]:
            reviewer = str(vote["reviewer"])
            if vote["verdict"] != "approve":
                self._bad(f"{ident} counts as approved and {reviewer} denied it", seq)
            if reviewer in request.excluded:
                self._report.problem(
                    "approvals", f"{reviewer} answered {ident} and may not: asked for it, or stands behind it", seq
                )
                continue
            self._answer(event, vote, reviewer, request)
            if request.critical and vote["proof"] != "personal":
                self._bad(f"{ident} is critical and {reviewer} approved it without a personal proof", seq)
            people[reviewer] = str(vote.get("handle") or reviewer)
            groups[reviewer] = frozenset(map(str, vote.get("groups", ())))
            alone = alone or (vote.get("break_glass") is True and vote["proof"] == "personal")
        if not alone and len(people) < request.quorum:
            self._bad(f"{ident} was approved by {len(people)} and needs {request.quorum}", seq)
            return
        if not alone and not _met(request.needs, list(groups.values())):
            self._bad(f"{ident} was not approved by people of every group that it needs", seq)
            return
        if request.used or request.approved_by is not None:
            self._bad(f"{ident} is used a second time", seq)
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
            return  # `proven_key` has said so
        if not same:
            self._bad(f"{vote['reviewer']} signed another nonce than that of what was asked", seq)

    def proven_key(self, vote: dict[str, Any], statement: Any, seq: int) -> bytes | None:
        """Check that a personal proof is one; return the key that signed. `statement` is what the record says was signed."""
        kind, who = vote.get("proof"), str(vote["reviewer"])
        if kind not in proof.KINDS:
            self._report.problem("proofs", f"{kind!r} is not a kind of proof", seq)
        if kind != "personal" and "signed" not in vote:
            return None
        if "signed" not in vote:
            self._report.problem("proofs", f"the answer of {who} is not signed as it says: there is no signature", seq)
            return None
        if not isinstance(statement, str):
            message = f"the signature of {who} can't be checked: what was signed is missing"
            self._report.problem("proofs", message, seq, incomplete=True)
            return None
        try:
            public = proof.check(vote, statement)
        except (proof.UnprovenError, MalformedError) as error:
            self._report.problem("proofs", f"the answer of {who} is not signed as it says: {error}", seq)
            return None
        key = proof.fingerprint(public)
        if self._reviewers is not None and who not in self._reviewers.get(key, frozenset()):
            self._report.problem("proofs", f"{who} signed with {key}, which your list of reviewers does not give to them", seq)
            return None
        self.proven += 1
        return public

    def _answer(self, event: dict[str, Any], vote: dict[str, Any], reviewer: str, request: Request) -> None:
        """One approval: about this request and in time, or what gave the grant and was still in force."""
        seq, ident = event["seq"], str(event["request"])
        if not request.grant:
            if vote["digest"] != request.digest:
                self._bad(f"{reviewer}'s answer to {ident} is about something else", seq)
            if request.expires is not None and datetime.fromisoformat(vote["at"]) > request.expires:
                self._bad(f"{reviewer} answered {ident} after it had expired", seq)
            return
        if vote["scope"] not in ("exact", "rule_in_session"):
            self._bad(f"{reviewer} approved once, and {ident} was released under a grant", seq)
        if "valid_until" in vote and datetime.fromisoformat(event["ts"]) > datetime.fromisoformat(vote["valid_until"]):
            self._bad(f"{ident} was released after the grant of {reviewer} had ended", seq)
        first, given = self._by_digest.get(str(vote["digest"]), ("", None))
        if given is not None and (given.grant or given.verdict not in ("", "approve", "lapsed") or given.rule != request.rule):
            self._bad(f"{ident} was released under a grant that {first} can't have given", seq)
        elif vote["scope"] == "exact" and given is not None:
            if given.match != request.match:
                self._bad(f"{ident} is not exactly what {reviewer} approved in {first}", seq)
        elif vote["scope"] == "exact":
            self._note(f"{ident} ran under the grant {request.grant}: the request that it was given for is in another transcript")
        elif given is None:
            self._report.problem(
                "approvals", f"{ident} ran under a grant of this session, and this session never asked for it", seq
            )
        elif not given.verdict:  # handed back to the agent before it was answered
            self._note(f"{ident} ran under the grant {request.grant}: the answer to {first} is in the node's journal")

    def _bad(self, message: str, seq: int) -> None:
        self._report.problem("approvals", message, seq)

    def _note(self, message: str) -> None:
        if message not in self._report.notes:
            self._report.notes.append(message)


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
