"""What must hold between events: that nothing was released without its permission, and nothing twice.

One pass; remembers only what is still open. Knows the meaning of events, not files, hashes or signatures. Time and order are
timeline.py's, people's answers approvals.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interlock.verify.approvals import Approvals
from interlock.verify.finding import Released, Report
from interlock.verify.pending import Command, Decision
from interlock.verify.timeline import Timeline

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


class Rules:
    """Feed every event in order, then call `finish` with the status of the seal."""

    def __init__(self, report: Report, kind: str, reviewers: Mapping[str, frozenset[str]] | None = None) -> None:
        """`reviewers` are the people whose keys the auditor lists, by fingerprint."""
        self._report = report
        self._live = kind == "session"  # a journal keeps the desk's minutes: its answers are of other transcripts
        self._timeline = Timeline(report, kind)
        self._approvals = Approvals(report, reviewers)
        self._commands: dict[int, Command] = {}
        self._decisions: dict[int, Decision] = {}
        self.policies: set[str] = set()
        self.observe = False
        self.forwards = 0
        self.decided = 0

    @property
    def proven(self) -> int:
        """How many answers were signed by a key of the person who gave them."""
        return self._approvals.proven

    def feed(self, event: dict[str, Any], texts: dict[str, Any]) -> None:
        """Check one event against all before it. Its common keys have been checked for presence and type."""
        kind, seq = event["type"], event["seq"]
        if kind not in TYPES:
            self._report.problem("types", f"nobody has said what an event of type {kind!r} means", seq)
        self._timeline.feed(event)
        try:
            match kind:
                case "session.open":
                    self._approvals.opened(event)
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
                    self._approvals.request(event, texts, self._decisions.get(event["ref"]))
                case "approval.response" if self._live:
                    self._approvals.response(event, texts)
                case "vote":
                    if event["counted"] is True:
                        self._approvals.proven_key(event, texts.get("statement"), seq)
                case "forward":
                    self._forward(event, texts)
                case "block":
                    self._block(event)
                case _ if kind in COMMANDS:
                    text = texts.get("text")
                    self._commands[seq] = Command(seq, kind, text if isinstance(text, str) else None, event, texts)
                case _:
                    ref = event.get("ref")
                    if ref is not None and (type(ref) is not int or not 0 <= ref <= seq):
                        self._report.problem("references", "the event refers to one that is not before it", seq)
        except (KeyError, TypeError, ValueError, AttributeError):
            self._report.problem("events", f"a field of {kind} is missing or has the wrong form", seq)

    def finish(self, status: str) -> None:
        self._timeline.finish(status)

    def _decision(self, event: dict[str, Any]) -> None:
        seq, verdict = event["seq"], event["verdict"]
        command = self._commands.pop(event["ref"], None)
        if command is None:
            self._report.problem("decisions", "the decision refers to no command, or to one that was decided already", seq)
            return
        if verdict not in ("allow", "deny", "review"):
            self._report.problem("decisions", f"{verdict!r} is not a verdict", seq)
        if verdict != "review":
            command.texts = {}
        self.decided += 1
        self.policies.add(str(event["policy"]))
        self.observe = self.observe or bool(event.get("observed"))
        self._decisions[seq] = Decision(command, str(verdict), str(event["rule"]))

    def _forward(self, event: dict[str, Any], texts: dict[str, Any]) -> None:
        seq, sent = event["seq"], event["sent"]
        self.forwards += 1
        decision = self._decisions.get(event["ref"])
        if decision is None:
            self._report.problem("releases", "a command was released without a decision", seq)
            return
        command = decision.command
        ident: str | None = None
        people: tuple[str, ...] = ()
        if decision.forwarded or decision.blocked:
            self._report.problem("releases", "a command was released a second time, or after it was refused", seq)
        if sent not in ("exact", "rendered"):
            self._report.problem("releases", f"{sent!r} does not say what was sent", seq)
        match decision.verdict:
            case "allow":
                pass
            case "review":
                if (approval := self._approvals.spend(decision)) is None:
                    self._report.problem("releases", "a command that needed an approval was released without one", seq)
                else:
                    ident, people = approval
                if sent != "exact":
                    self._report.problem("releases", "what was released is not what was approved", seq)
            case _:
                self._report.problem("releases", "a denied command was released", seq)
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
            self._report.problem("decisions", "a refusal refers to no decision", event["seq"])
        else:
            decision.blocked = True
