"""A node that lies: chain, seal and signature are perfect, and the events themselves break a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.authenticator import authenticator
from harness.clock import ManualClock
from harness.people import ALICE, BOB, CAROL, CLAUDE
from harness.transcripts import (
    allowed,
    analysis,
    approved,
    command,
    decision,
    make_store,
    one_of_everything,
    open_session,
    redigested,
    request,
    vote,
)
from interlock import record
from interlock.approvals.model import ApprovalRequest, Proof, State, Vote, VoteVerdict
from interlock.approvals.proof import challenge_of, signed_scope, statement
from interlock.commands.model import BindValue, Command, HeldInput, Kind
from interlock.evidence import transcript
from interlock.evidence.events import TYPES, EventDraft, Recorder
from interlock.policy.model import Need, ReviewTerms, StepUp, Verdict
from interlock.verify import Report, verify_bundle

Lie = Callable[[Recorder, ManualClock], None]


async def told(tmp_path: Path, lie: Lie) -> Report:
    """Record and seal a session that holds this, and verify it."""
    clock = ManualClock()
    store = make_store(tmp_path / "data", clock)
    await store.start()
    recorder = await open_session(store)
    lie(recorder, clock)
    await recorder.close({"reason": "client-left"})
    await store.close()
    return verify_bundle(tmp_path / "data/sessions" / recorder.session, tmp_path / "data/trust")


def asked(recorder: Recorder, verdict: Verdict = Verdict.REVIEW) -> int:
    """Record a command and its decision; return the decision's seq."""
    seq = recorder.next_seq
    recorder.append(
        record.described(command("rm x"), analysis("rm x")), record.decided(decision(verdict), seq)
    )  # fmt: skip
    return seq + 1


def answer(recorder: Recorder, clock: ManualClock, change: Callable[[ApprovalRequest], ApprovalRequest]) -> None:
    """Record a review whose consumed approval is changed by `change`, and release the command."""
    seq = asked(recorder)
    waiting = request(command("rm x"), clock.now())
    recorder.append(record.requested(seq, waiting))
    consumed = change(replace(waiting, state=State.CONSUMED, votes=(vote(waiting, clock.now()),)))
    recorder.append(record.answered(consumed), record.forwarded(seq, command("rm x"), b"rm x"))


def forward(seq: int, sent: str = "exact") -> EventDraft:
    return EventDraft("forward", {"ref": seq, "sent": sent})


async def test_what_the_gate_writes_verifies(tmp_path: Path) -> None:
    report = await told(tmp_path, one_of_everything)
    assert report.problems == []


async def test_the_honest_answer_verifies(tmp_path: Path) -> None:
    report = await told(tmp_path, lambda r, c: answer(r, c, lambda consumed: consumed))
    assert report.problems == [], "or the tests below prove nothing"


def _do(seq: int) -> None:
    assert seq >= 0


def _voted(answered: ApprovalRequest, reviewer: object) -> ApprovalRequest:
    return replace(answered, votes=(replace(answered.votes[0], reviewer=reviewer),))


def _denied_too(answered: ApprovalRequest) -> ApprovalRequest:
    return replace(answered, votes=(*answered.votes, replace(answered.votes[0], verdict=VoteVerdict.DENY, reviewer=CAROL)))


def _after_refusal(recorder: Recorder) -> None:
    seq = asked(recorder, Verdict.ALLOW)
    recorder.append(EventDraft("block", {"ref": seq, "reason": "shutting-down", "request": None}), forward(seq))


def _other_request(recorder: Recorder, clock: ManualClock) -> None:
    """The approval is of the first command; the second is released."""
    first = asked(recorder)
    waiting = request(command("rm x"), clock.now())
    recorder.append(record.requested(first, waiting))
    second = asked(recorder)
    consumed = replace(waiting, state=State.CONSUMED, votes=(vote(waiting, clock.now()),))
    recorder.append(record.answered(consumed), forward(second))


def _twice(recorder: Recorder, clock: ManualClock) -> None:
    approved(recorder, "rm x", clock.now(), "req_1")
    approved(recorder, "rm x", clock.now(), "req_1")


def _rendered(recorder: Recorder, clock: ManualClock) -> None:
    seq = asked(recorder)
    waiting = request(command("rm x"), clock.now())
    recorder.append(record.requested(seq, waiting))
    consumed = replace(waiting, state=State.CONSUMED, votes=(vote(waiting, clock.now()),))
    recorder.append(record.answered(consumed), record.forwarded(seq, command("rm x"), b"rm y"))


def _quorum(recorder: Recorder, clock: ManualClock, people: tuple[object, ...], quorum: int = 2) -> None:
    seq = asked(recorder)
    waiting = request(command("rm x"), clock.now())
    waiting = redigested(replace(waiting, draft=replace(waiting.draft, terms=ReviewTerms(("sre",), quorum=quorum))))
    recorder.append(record.requested(seq, waiting))
    votes = tuple(replace(vote(waiting, clock.now()), reviewer=person) for person in people)
    recorder.append(record.answered(replace(waiting, state=State.CONSUMED, votes=votes)), forward(seq))


def _forgotten(recorder: Recorder, clock: ManualClock) -> None:
    forgot = redigested(replace(request(command("rm x"), clock.now()), excluded=frozenset()))
    recorder.append(record.requested(asked(recorder), forgot))


def _silence(recorder: Recorder, clock: ManualClock) -> None:
    clock.advance(120)
    recorder.append(EventDraft("heartbeat"))


GLASS = {"break_glass": True, "proof": Proof.PERSONAL}
GRANTED = {"scope": "exact", "digest": "sha256:first"}
BOTH = ReviewTerms(("sre",), also=(Need(("dba",)),))


def _approvers(
    recorder: Recorder, clock: ManualClock, terms: ReviewTerms, *votes: dict[str, Any], grant: str = "", **changes: Any
) -> None:
    """Record a release under these terms with one approval for each of `votes`."""
    seq = asked(recorder)
    waiting = request(command("rm x"), clock.now())
    waiting = redigested(replace(waiting, draft=replace(waiting.draft, terms=terms), grant=grant, **changes))
    recorder.append(record.requested(seq, waiting))
    given = tuple(_proven(waiting, replace(vote(waiting, clock.now()), **changed)) for changed in votes)
    recorder.append(record.answered(replace(waiting, state=State.CONSUMED, votes=given)), forward(seq))


def _proven(waiting: ApprovalRequest, given: Vote) -> Vote:
    """Sign a vote that says it is personal; what becomes of other signatures is test_proof.py's."""
    if given.proof is not Proof.PERSONAL:
        return given
    phone = authenticator()
    scope = signed_scope(given.scope, break_glass=given.break_glass)
    message = statement(given.digest, waiting.nonce, given.verdict, scope, given.valid_until)
    return replace(given, signed=replace(phone.assertion(challenge_of(message)), public=phone.cose, statement=message))


CRITICAL = ReviewTerms(("sre",), step_up=StepUp.PASSKEY)
IN_SESSION = {"scope": "rule_in_session"}


def _substituted(
    recorder: Recorder, clock: ManualClock, change: Callable[[ApprovalRequest], ApprovalRequest], ran: Command | None = None,
    event: Callable[[EventDraft], EventDraft] = lambda e: e,
) -> None:  # fmt: skip
    """Bob signs the digest of one request, and beside it the node writes and releases `ran`."""
    ran = ran or command("rm x")
    seq = recorder.next_seq
    recorder.append(record.described(ran, analysis("rm x")), record.decided(decision(Verdict.REVIEW), seq))
    waiting = redigested(change(request(ran, clock.now())))
    recorder.append(event(record.requested(seq + 1, waiting)))
    given = _proven(waiting, replace(vote(waiting, clock.now()), proof=Proof.PERSONAL))
    recorder.append(record.answered(replace(waiting, state=State.CONSUMED, votes=(given,))), forward(seq + 1))


def _drafted(**changes: Any) -> Callable[[ApprovalRequest], ApprovalRequest]:
    return lambda asked: replace(asked, draft=replace(asked.draft, **changes))


def _with(fields: dict[str, Any]) -> Callable[[EventDraft], EventDraft]:
    return lambda event: replace(event, fields={**event.fields, **fields})


def _asked_as(**changes: Any) -> Callable[[ApprovalRequest], ApprovalRequest]:
    return lambda asked: _drafted(command=replace(asked.draft.command, **changes))(asked)


def _same(asked: ApprovalRequest) -> ApprovalRequest:
    return asked


BOUND: dict[str, tuple[Lie, str]] = {
    "text": (lambda r, c: _substituted(r, c, _asked_as(text=b"ls")), "text"),
    "a text that is shown as another": (
        lambda r, c: _substituted(r, c, _asked_as(text=b"rm \\xff"), replace(command("rm x"), text=b"rm \xff")), "text",
    ),
    "stdin": (lambda r, c: _substituted(r, c, _asked_as(stdin=None), replace(command("rm x"), stdin=HeldInput(b"y"))), "stdin"),
    "stdin that did not come": (lambda r, c: _substituted(r, c, _asked_as(stdin=HeldInput(b"n"))), "stdin"),
    "binds": (lambda r, c: _substituted(r, c, _asked_as(binds=(BindValue(b"1"),)), command("rm x", Kind.BIND)), "binds"),
    "kind": (lambda r, c: _substituted(r, c, _asked_as(kind=Kind.QUERY)), "kind"),
    "env": (
        lambda r, c: _substituted(r, c, _asked_as(env=()), replace(command("rm x"), env=(("LD_PRELOAD", "/tmp/x"),))), "env",
    ),
    "target": (lambda r, c: _substituted(r, c, lambda a: _drafted(target=replace(a.draft.target, name="test-1"))(a)), "target"),
    "account": (lambda r, c: _substituted(r, c, lambda a: _drafted(target=replace(a.draft.target, account="x"))(a)), "account"),
    "role": (lambda r, c: _substituted(r, c, lambda a: _drafted(target=replace(a.draft.target, role="x"))(a)), "role"),
    "database": (
        lambda r, c: _substituted(r, c, lambda a: _drafted(target=replace(a.draft.target, database="x"))(a)), "database",
    ),
    "principal": (
        lambda r, c: _substituted(r, c, lambda a: _drafted(principal=replace(a.draft.principal, identity=CAROL))(a)), "principal",
    ),
    "acting_for": (
        lambda r, c: _substituted(r, c, lambda a: _drafted(principal=replace(a.draft.principal, acting_for=(CAROL,)))(a)),
        "acting_for",
    ),
    "digest": (lambda r, c: _substituted(r, c, _same, event=_with({"digest": "sha256:" + "0" * 64})), "digest"),
    "request": (lambda r, c: _substituted(r, c, _same, event=_with({"request": "req_9"})), "request"),
    "needs": (lambda r, c: _substituted(r, c, _drafted(terms=BOTH), event=_with({"needs": [], "quorum": 1})), "needs"),
    "groups": (lambda r, c: _substituted(r, c, _same, event=_with({"groups": ["everybody"]})), "needs"),
    "critical": (lambda r, c: _substituted(r, c, _drafted(terms=CRITICAL), event=_with({"critical": False})), "critical"),
    "end": (lambda r, c: _substituted(r, c, _same, event=_with({"expires": "2036-01-01T00:00:00.000000Z"})), "end"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUND)
async def test_what_was_signed_is_what_ran(tmp_path: Path, name: str) -> None:
    lie, part = BOUND[name]
    report = await told(tmp_path, lie)
    said = [p.message for p in report.problems if p.check == "approvals" and "is not what the record says" in p.message]
    assert report.result == "failed" and len(said) == 1, report.problems
    assert part in said[0].partition(": ")[2].split(", "), said


async def test_what_is_bound_honestly_verifies(tmp_path: Path) -> None:
    def honest(recorder: Recorder, clock: ManualClock) -> None:
        _substituted(recorder, clock, _same, replace(command("rm x"), text=b"rm \xff", stdin=HeldInput(b"y"), env=(("A", "b"),)))

    report = await told(tmp_path, honest)
    assert report.problems == []
    report = await told(tmp_path / "2", lambda r, c: _substituted(r, c, _same, command("select $1", Kind.BIND)))
    assert report.problems == []


async def test_without_what_was_asked_nothing_ties_the_digest_to_the_command(tmp_path: Path) -> None:
    report = await told(tmp_path, lambda r, c: _substituted(r, c, _same, event=lambda e: replace(e, secret={})))
    assert report.result == "incomplete"
    assert "nothing ties" in report.problems[0].message


@pytest.mark.parametrize("form", ["", "{}", "[]", '{"request":{},"v":1}', '{"request":null,"v":1}', '{"request":{},"v":2}', "x"])
async def test_a_form_that_is_none_is_found(tmp_path: Path, form: str) -> None:
    report = await told(tmp_path, lambda r, c: _substituted(r, c, _same, event=lambda e: replace(e, secret={"form": form})))
    assert "can't be read" in report.problems[0].message


async def test_an_answer_that_waited_is_used_from_another_session_and_the_report_says_so(tmp_path: Path) -> None:
    report = await told(tmp_path, lambda r, c: _substituted(r, c, _drafted(session="01JANOTHER")))
    assert report.problems == []
    assert any("01JANOTHER" in note for note in report.notes)
    report = await told(
        tmp_path / "2", lambda r, c: _substituted(r, c, lambda a: replace(_drafted(session="01JANOTHER")(a), grant="grt_1"))
    )
    assert any("asked in another session" in p.message for p in report.problems)


def _granted(
    recorder: Recorder, clock: ManualClock, scope: str, *, first: VoteVerdict | None = VoteVerdict.APPROVE, **changes: Any
) -> None:
    """The first request is asked here and answered (None: not before the second), and the second runs under its grant."""
    seq = asked(recorder)
    given = request(command("rm x"), clock.now())
    recorder.append(record.requested(seq, given))
    wide = replace(vote(given, clock.now()), scope=scope)
    if first is not None:
        state = State.CONSUMED if first is VoteVerdict.APPROVE else State.DENIED
        recorder.append(record.answered(replace(given, state=state, votes=(replace(wide, verdict=first),))))
    seq = asked(recorder)
    under = redigested(replace(request(command("rm x"), clock.now(), "req_2"), grant="grt_1", **changes))
    recorder.append(record.requested(seq, under))
    recorder.append(record.answered(replace(under, state=State.CONSUMED, votes=(wide,))), forward(seq))


async def test_a_grant_of_this_session_shows_its_request_here(tmp_path: Path) -> None:
    for number, lie in enumerate(
        (lambda r, c: _granted(r, c, "rule_in_session", match="other"), lambda r, c: _granted(r, c, "exact"))
    ):
        assert (await told(tmp_path / str(number), lie)).problems == []
    report = await told(tmp_path / "waited", lambda r, c: _granted(r, c, "rule_in_session", first=None))
    assert report.problems == []
    assert any("req_1 is in the node's journal" in note for note in report.notes)
    report = await told(tmp_path / "exact", lambda r, c: _approvers(r, c, ReviewTerms(("sre",)), GRANTED, grant="grt_1"))
    assert report.problems == []
    assert any("grt_1" in note and "another transcript" in note for note in report.notes)


LIES: dict[str, tuple[Lie, str]] = {
    "glass-without-a-personal-proof": (
        lambda r, c: _approvers(r, c, ReviewTerms(("sre",), 2), GLASS | {"proof": Proof.CHANNEL}),
        "approved by 1 and needs 2",
    ),
    "glass-broken-by-the-owner": (
        lambda r, c: _approvers(r, c, ReviewTerms(("sre",), 2), GLASS | {"reviewer": ALICE}),
        "may not",
    ),
    "two-of-one-group": (
        lambda r, c: _approvers(r, c, BOTH, {"groups": ("sre",)}, {"groups": ("sre",), "reviewer": CAROL}),
        "of every group",
    ),
    "one-person-of-both-groups": (lambda r, c: _approvers(r, c, BOTH, {"groups": ("sre", "dba")}), "approved by 1 and needs 2"),
    "a-grant-of-once": (lambda r, c: _approvers(r, c, ReviewTerms(("sre",)), {"scope": "once"}, grant="grt_1"), "under a grant"),
    "a-grant-that-ended": (
        lambda r, c: _approvers(
            r, c, ReviewTerms(("sre",)), GRANTED | {"valid_until": c.now() - timedelta(seconds=1)}, grant="grt_1"
        ),
        "after the grant",
    ),
    "the-first-digest-without-a-grant": (lambda r, c: _approvers(r, c, ReviewTerms(("sre",)), GRANTED), "about something else"),
    "approved-by-the-author": (
        lambda r, c: _approvers(r, c, ReviewTerms(("sre",)), {}, edited_from="req_0", author=BOB),
        "may not",
    ),
    "approved-by-no-group": (lambda r, c: answer(r, c, lambda a: replace(a, votes=(replace(a.votes[0], groups=()),))), "group"),
    "approved-by-another-group": (
        lambda r, c: answer(r, c, lambda a: replace(a, votes=(replace(a.votes[0], groups=("interns",)),))),
        "of every group",
    ),
    "critical-without-a-personal-proof": (
        lambda r, c: _approvers(r, c, CRITICAL, {"proof": Proof.CHANNEL}),
        "without a personal proof",
    ),
    "critical-with-one-personal-proof-of-two": (
        lambda r, c: _approvers(r, c, replace(CRITICAL, quorum=2), {"proof": Proof.PERSONAL}, {"reviewer": CAROL}),
        "without a personal proof",
    ),
    "a-session-s-grant-of-nothing-asked-here": (
        lambda r, c: _approvers(r, c, ReviewTerms(("sre",)), IN_SESSION | {"digest": "sha256:first"}, grant="grt_1"),
        "never asked for it",
    ),
    "a-grant-of-itself": (lambda r, c: _approvers(r, c, ReviewTerms(("sre",)), IN_SESSION, grant="grt_1"), "can't have given"),
    "a-grant-that-was-denied": (
        lambda r, c: _granted(r, c, "rule_in_session", first=VoteVerdict.DENY),
        "can't have given",
    ),
    "an-exact-grant-of-something-else": (lambda r, c: _granted(r, c, "exact", match="other"), "not exactly what"),
    "another-nonce-was-signed": (
        lambda r, c: _substituted(
            r,
            c,
            lambda a: a,
            event=lambda e: replace(e, secret={"form": e.secret["form"].replace('"nonce":"nonce"', '"nonce":"x"')}),
        ),
        "signed another nonce",
    ),
    "released-without-decision": (lambda r, c: _do(r.append(forward(0))), "without a decision"),
    "released-before-decision": (lambda r, c: _do(r.append(forward(r.next_seq + 1))), "without a decision"),
    "released-although-denied": (lambda r, c: _do(r.append(forward(asked(r, Verdict.DENY)))), "denied command was released"),
    "released-without-approval": (lambda r, c: _do(r.append(forward(asked(r)))), "released without one"),
    "released-twice": (lambda r, c: _do(r.append(forward(allowed(r, "id") - 1))), "second time"),
    "released-after-refusal": (
        lambda r, c: _after_refusal(r),
        "after it was refused",
    ),
    "approval-of-other-request": (_other_request, "released without one"),
    "approval-used-twice": (_twice, "second time"),
    "approved-rendering": (_rendered, "not what was approved"),
    "decision-without-command": (
        lambda r, c: _do(r.append(record.decided(decision(Verdict.ALLOW), 0))),
        "refers to no command",
    ),
    "decided-twice": (
        lambda r, c: _do(r.append(record.decided(decision(Verdict.ALLOW), asked(r, Verdict.DENY) - 1))),
        "decided already",
    ),
    "asked-without-review": (
        lambda r, c: _do(r.append(record.requested(asked(r, Verdict.DENY), request(command("rm x"), c.now())))),
        "did not send to review",
    ),
    "answered-without-asking": (
        lambda r, c: _do(r.append(record.answered(request(command("rm x"), c.now())))),
        "never asked",
    ),
    "approved-by-nobody": (lambda r, c: answer(r, c, lambda a: replace(a, votes=())), "approved by 0 and needs 1"),
    "approved-by-requester": (lambda r, c: answer(r, c, lambda a: _voted(a, CLAUDE)), "may not"),
    "approved-by-owner": (lambda r, c: answer(r, c, lambda a: _voted(a, ALICE)), "may not"),
    "approved-with-a-denial": (
        lambda r, c: answer(
            r, c, lambda a: replace(a, votes=(*a.votes, replace(a.votes[0], verdict=VoteVerdict.DENY, reviewer=CAROL)))
        ),
        "denied it",
    ),
    "one-person-twice": (lambda r, c: _quorum(r, c, (BOB, BOB)), "approved by 1 and needs 2"),
    "too-few": (lambda r, c: _quorum(r, c, (BOB,)), "approved by 1 and needs 2"),
    "answer-to-something-else": (
        lambda r, c: answer(r, c, lambda a: replace(a, votes=(replace(a.votes[0], digest="sha256:other"),))),
        "about something else",
    ),
    "response-to-something-else": (
        lambda r, c: answer(r, c, lambda a: replace(a, digest="sha256:other")),
        "about something else",
    ),
    "after-expiry": (
        lambda r, c: answer(r, c, lambda a: replace(a, votes=(replace(a.votes[0], at=a.expires + timedelta(seconds=1)),))),
        "after it had expired",
    ),
    "quorum-of-none": (lambda r, c: _quorum(r, c, (), 0), "no reviewer at all"),
    "excluded-forgotten": (_forgotten, "does not exclude everybody who asked"),
    "second-opening": (lambda r, c: _do(r.append(EventDraft("session.open", {}))), "a second session.open"),
    "after-the-end": (
        lambda r, c: _do(r.append(EventDraft("session.close", {}), EventDraft("heartbeat"))),
        "after the end",
    ),
    "silence": (_silence, "silent for"),
    "reference-to-the-future": (lambda r, c: _do(r.append(EventDraft("pg.result", {"ref": 999}))), "not before it"),
    "malformed-event": (lambda r, c: _do(r.append(EventDraft("decision", {"ref": "x"}))), "wrong form"),
    "malformed-votes": (
        lambda r, c: _do(r.append(EventDraft("approval.request", {"ref": asked(r), "request": "q"}))),
        "wrong form",
    ),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_is_found(tmp_path: Path, name: str) -> None:
    lie, words = LIES[name]
    report = await told(tmp_path, lie)
    said = "\n".join(p.message for p in report.problems)
    assert report.result == "failed"
    assert words in said, said
    assert not any(p.check in ("chain", "signature", "files") for p in report.problems), "everything else is perfect"


@pytest.mark.parametrize(
    "honest",
    [
        lambda r, c: _approvers(r, c, ReviewTerms(("sre",), 2), GLASS),
        lambda r, c: _approvers(r, c, BOTH, {"groups": ("sre", "dba")}, {"groups": ("sre",), "reviewer": CAROL}),
        lambda r, c: _approvers(
            r, c, ReviewTerms(("sre",)), GRANTED | {"valid_until": c.now() + timedelta(seconds=60)}, grant="grt_1"
        ),
        lambda r, c: _approvers(r, c, ReviewTerms(("sre",)), {}, edited_from="req_0", author=CAROL),
    ],
    ids=["broken glass", "several needs", "under a grant", "edited by another"],
)  # fmt: skip
async def test_other_honest_ways_to_an_approval_verify(tmp_path: Path, honest: Lie) -> None:
    report = await told(tmp_path, honest)
    assert report.problems == []


async def test_two_reviewers_fulfil_a_quorum_of_two(tmp_path: Path) -> None:
    report = await told(tmp_path, lambda r, c: _quorum(r, c, (BOB, CAROL)))
    assert report.problems == []


async def test_an_unknown_type_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TYPES, "invented.type", "nobody knows")
    report = await told(tmp_path, lambda r, c: _do(r.append(EventDraft("invented.type"))))
    assert "nobody has said" in report.problems[0].message


async def test_a_clock_that_jumps_without_saying_so_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "CLOCK_BOUND_US", 10**15)

    def lie(recorder: Recorder, clock: ManualClock) -> None:
        clock.step(-3600)
        recorder.append(EventDraft("heartbeat"))

    report = await told(tmp_path, lie)
    assert any("no clock.step says so" in p.message for p in report.problems)
