"""What protects people: edits by nobody's own hand, escalation, broken glass, newcomers, and agents that keep asking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from harness.inbox import DAVE, Desk, Someone
from harness.people import ALICE, BOB, CAROL, CLAUDE
from harness.requests import SHELL, START, TERMS, draft
from interlock.approvals import proof
from interlock.approvals.authority import House
from interlock.approvals.fatigue import Limits
from interlock.approvals.model import ApprovalRequest, Presence, Proof, RequestDraft, Signed, State, VoteVerdict
from interlock.errors import NotFoundError, Reason, VoteError
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import Need, ReviewTerms, StepUp
from interlock.store.schema import requests

GLASS = "on-call"
HOUSE = House(validity=600, newcomer=3600, glass=frozenset((GLASS,)), glass_validity=120)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path, HOUSE, Limits(pending=3, denials=3, window=600, lock=900))
    made.clock.advance(7200)  # everybody's authority is older than the delay
    await made.open()
    yield made
    await made.close()


def refused(error: pytest.ExceptionInfo[VoteError]) -> Reason:
    return error.value.code


def other(text: bytes = b"rm -rf /var/lib/pg/old") -> RequestDraft:
    return draft(replace(SHELL, text=text))


# -- edits ----------------------------------------------------------------------------------------------------------------


async def edit(
    desk: Desk, request: ApprovalRequest, editor: Identity = BOB, asked: RequestDraft | None = None
) -> ApprovalRequest:
    return await desk.inbox.edit(
        request.id, editor=editor, channel="console", channel_actor=str(editor), digest=request.digest, draft=asked or other()
    )


async def test_an_edit_ends_the_question_and_asks_another_without_its_author(desk: Desk) -> None:
    desk.people.put(Someone(DAVE))
    place = await desk.inbox.submit(draft())
    edited = await edit(desk, place.request)

    assert (place.request.state, place.request.successor) == (State.SUPERSEDED, edited.id)
    assert (edited.state, edited.presence, edited.edited_from) == (State.PENDING, Presence.RETURNED, place.request.id)
    assert (edited.author, edited.author_handle) == (BOB, "bob")
    assert await place.successor() == edited
    for verdict in VoteVerdict:
        with pytest.raises(VoteError) as error:
            await desk.vote(edited, BOB, verdict)
        assert refused(error) is Reason.SELF_APPROVAL
    await desk.vote(edited, DAVE)

    # The agent itself runs the text that it was shown, and nothing else.
    assert (await desk.inbox.submit(draft())).request.state is State.PENDING
    rerun = await desk.inbox.submit(other())
    assert rerun.request.id == edited.id
    assert await rerun.consume() is not None
    (event,) = desk.journal.of("approval.edited")
    assert (event.fields["author"], event.fields["successor"]) == (str(BOB), edited.id)


async def test_the_author_has_no_other_account_either(desk: Desk) -> None:
    second = Identity("local", "bob-2")
    desk.people.put(Someone(BOB, linked=frozenset((second,))))
    desk.people.put(Someone(second, linked=frozenset((BOB,))))
    edited = await edit(desk, (await desk.inbox.submit(draft())).request)
    with pytest.raises(VoteError) as error:
        await desk.vote(edited, second)
    assert refused(error) is Reason.SELF_APPROVAL


async def test_the_author_of_an_earlier_text_does_not_answer_a_later_one(desk: Desk) -> None:
    erin, zoe = Identity("local", "erin"), Identity("local", "zoe")
    for person in (erin, zoe):
        desk.people.put(Someone(person))
    first = await edit(desk, (await desk.inbox.submit(draft())).request, BOB)
    second = await edit(desk, first, erin, other(b"rm -rf  /var/lib/pg/old"))  # Bob's text, with one more blank
    for author in (BOB, erin):
        with pytest.raises(VoteError) as error:
            await desk.vote(second, author)
        assert refused(error) is Reason.SELF_APPROVAL
    assert (await desk.vote(second, zoe)).state is State.APPROVED


@pytest.mark.parametrize(
    ("editor", "reason"),
    [(ALICE, Reason.SELF_APPROVAL), (CLAUDE, Reason.NOT_A_PERSON), (DAVE, Reason.NOT_A_REVIEWER), (CAROL, Reason.SELF_APPROVAL)],
    ids=["the owner", "the agent", "not a reviewer", "the owner's other account"],
)
async def test_only_who_could_answer_may_edit(desk: Desk, editor: Identity, reason: Reason) -> None:
    place = await desk.inbox.submit(draft())
    with pytest.raises(VoteError) as error:
        await edit(desk, place.request, editor)
    assert refused(error) is reason
    assert place.request.state is State.PENDING


async def test_what_can_not_be_edited_says_why(desk: Desk) -> None:
    hold_only = await desk.inbox.submit(draft(terms=replace(TERMS, returns=False)))
    with pytest.raises(VoteError) as error:
        await edit(desk, hold_only.request)
    assert refused(error) is Reason.NOT_EDITABLE

    place = await desk.inbox.submit(draft())
    await desk.inbox.submit(other())
    with pytest.raises(VoteError) as error:
        await edit(desk, place.request)  # that text waits already
    assert refused(error) is Reason.NOT_EDITABLE
    with pytest.raises(VoteError) as error:
        await edit(desk, replace(place.request, digest="sha256:else"))
    assert refused(error) is Reason.DIGEST_MISMATCH
    await desk.vote(place.request)
    with pytest.raises(VoteError) as error:
        await edit(desk, place.request, asked=other(b"rm x"))
    assert refused(error) is Reason.ALREADY_DECIDED


async def test_an_edit_that_can_not_be_recorded_changes_nothing(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    desk.journal.fail_sync = True
    with pytest.raises(Exception, match="transcript"):
        await edit(desk, place.request)
    assert (await desk.stored(place.request)).state is State.PENDING


# -- several needs ------------------------------------------------------------------------------------------------------


async def test_people_of_both_groups_are_needed_and_nobody_counts_twice(desk: Desk) -> None:
    erin = Identity("local", "erin")
    desk.people.put(Someone(BOB, groups=frozenset(("sre", "dba"))))
    desk.people.put(Someone(erin, groups=frozenset(("sre",))))
    place = await desk.inbox.submit(draft(terms=ReviewTerms(("sre",), also=(Need(("dba",)),))))
    await desk.vote(place.request, BOB)
    assert place.request.state is State.PENDING
    with pytest.raises(VoteError) as error:
        await desk.vote(place.request, BOB, channel="teams")
    assert refused(error) is Reason.ALREADY_VOTED
    await desk.vote(place.request, erin)
    assert place.request.state is State.APPROVED
    assert [vote.groups for vote in place.request.votes] == [("sre", "dba"), ("sre",)]


# -- escalation ---------------------------------------------------------------------------------------------------------


async def test_escalation_tells_more_people_and_changes_nothing_else(desk: Desk) -> None:
    place = await desk.inbox.submit(draft(terms=replace(TERMS, quorum=2, escalate=60, expires=900)))
    await desk.vote(place.request)
    desk.clock.advance(61)
    await desk.inbox.tick()
    before, after = desk.seen[-2:]
    assert (before.escalated_at, after.escalated_at is not None) == (None, True)
    assert replace(after, escalated_at=None) == before
    assert len(desk.journal.of("approval.escalated")) == 1
    with pytest.raises(VoteError) as error:
        await desk.vote(place.request, DAVE)  # told or not: still in none of the groups
    assert refused(error) is Reason.NOT_A_REVIEWER
    desk.clock.advance(900)
    await desk.inbox.tick()
    assert place.request.state is State.EXPIRED
    assert len(desk.journal.of("approval.escalated")) == 1


async def test_escalation_is_made_up_for_after_a_restart_and_once(desk: Desk) -> None:
    place = await desk.inbox.submit(draft(terms=replace(TERMS, escalate=60)))
    await desk.close()
    desk.clock.advance(61)
    await desk.open()
    await desk.inbox.tick()
    found = await desk.inbox.get(place.request.id)
    assert (found.state, found.presence, found.escalated_at is not None) == (State.PENDING, Presence.RETURNED, True)
    await desk.restart()
    assert len(desk.journal.of("approval.escalated")) == 1


# -- broken glass -------------------------------------------------------------------------------------------------------


def passkey(request: ApprovalRequest, *, kind: str = "webauthn", scope: str = proof.GLASS) -> Signed:
    signed = proof.statement(request.digest, request.nonce, VoteVerdict.APPROVE, scope, None)
    return Signed(kind, "key", b"public", signed)


async def breaks(desk: Desk, request: ApprovalRequest, who: Identity = BOB, **changes: Any) -> ApprovalRequest:
    answer = {"signed": passkey(request), "reason": "the reviewers do not answer", "break_glass": True, **changes}
    return await desk.vote(request, who, channel="console", **answer)


def critical(**changes: Any) -> RequestDraft:
    return draft(terms=replace(TERMS, groups=("dba",), quorum=2, step_up=StepUp.PASSKEY), **changes)


async def test_one_named_person_may_break_the_glass_for_a_short_time(desk: Desk) -> None:
    desk.people.put(Someone(BOB, groups=frozenset((GLASS,))))
    place = await desk.inbox.submit(critical())
    request = await breaks(desk, place.request)
    assert request.state is State.APPROVED
    assert request.valid_until == desk.clock.now() + timedelta(seconds=120)
    (vote,) = request.votes
    assert (vote.break_glass, vote.proof) == (True, Proof.PERSONAL)
    assert desk.journal.of("vote")[-1].fields["break_glass"] is True
    assert [row.request for row in await desk.inbox.broken_glass()] == [request.id]
    assert await place.consume() is not None


@pytest.mark.parametrize(
    ("who", "changes", "reason"),
    [
        (BOB, {"signed": None}, Reason.BREAK_GLASS_REFUSED),
        (BOB, {"signed": "sshsig"}, Reason.BREAK_GLASS_REFUSED),
        (BOB, {"signed": "other request"}, Reason.PROOF_REJECTED),
        (BOB, {"signed": "an ordinary answer"}, Reason.PROOF_REJECTED),
        (BOB, {"reason": "  now  now "}, Reason.REASON_REQUIRED),
        (BOB, {"scope": "exact"}, Reason.BREAK_GLASS_REFUSED),
        (BOB, {"verdict": VoteVerdict.DENY}, Reason.BREAK_GLASS_REFUSED),
        (DAVE, {}, Reason.PROOF_REJECTED),
        (ALICE, {"signed": None}, Reason.SELF_APPROVAL),
        (CLAUDE, {"signed": None}, Reason.NOT_A_PERSON),
    ],
    ids=[
        "no proof", "not a passkey", "a proof of another", "an ordinary answer", "no reason", "wider", "a denial",
        "another's key", "the owner", "an agent",
    ],
)  # fmt: skip
async def test_nobody_else_and_no_other_way_breaks_it(desk: Desk, who: Identity, changes: dict[str, Any], reason: Reason) -> None:
    for person in (ALICE, BOB, DAVE):
        desk.people.put(Someone(person, groups=frozenset((GLASS,))))
    desk.people.put(Someone(CLAUDE, kind=Kind.AGENT, owner=ALICE, groups=frozenset((GLASS,))))
    place = await desk.inbox.submit(critical())
    match changes:
        case {"signed": "sshsig"}:
            changes = {"signed": passkey(place.request, kind="sshsig")}
        case {"signed": "other request"}:
            changes = {"signed": passkey(replace(place.request, nonce="ff"))}
        case {"signed": "an ordinary answer"}:
            changes = {"signed": passkey(place.request, scope="once")}
        case {"verdict": _}:
            denial = proof.statement(place.request.digest, place.request.nonce, VoteVerdict.DENY, proof.GLASS, None)
            changes = {**changes, "signed": Signed("webauthn", "key", b"public", denial)}
    with pytest.raises(VoteError) as error:
        await breaks(desk, place.request, who, **changes)
    assert refused(error) is reason
    assert place.request.state is State.PENDING
    assert await desk.inbox.broken_glass() == []


@pytest.mark.parametrize("scope", ["once", proof.GLASS])
async def test_a_signature_that_breaks_the_glass_is_no_ordinary_answer(desk: Desk, scope: str) -> None:
    place = await desk.inbox.submit(draft(terms=replace(TERMS, step_up=StepUp.PASSKEY)))
    with pytest.raises(VoteError) as error:
        await desk.vote(place.request, BOB, channel="console", signed=passkey(place.request), scope=scope)
    assert refused(error) is Reason.PROOF_REJECTED
    assert place.request.state is State.PENDING


async def test_where_no_group_is_named_nobody_breaks_it(tmp_path: Path) -> None:
    closed = Desk(tmp_path)
    await closed.open()
    place = await closed.inbox.submit(critical())
    with pytest.raises(VoteError) as error:
        await breaks(closed, place.request)
    assert refused(error) is Reason.BREAK_GLASS_REFUSED
    await closed.close()


async def test_somebody_else_looks_at_it_afterwards(desk: Desk) -> None:
    desk.people.put(Someone(BOB, groups=frozenset((GLASS,))))
    place = await desk.inbox.submit(critical())
    request = await breaks(desk, place.request)
    for involved in (BOB, ALICE, CAROL):
        with pytest.raises(VoteError) as error:
            await desk.inbox.reviewed(request.id, reviewer=involved, note="fine")
        assert refused(error) is Reason.SELF_APPROVAL
    with pytest.raises(VoteError) as error:
        await desk.inbox.reviewed(request.id, reviewer=CLAUDE, note="fine")
    assert refused(error) is Reason.NOT_A_PERSON
    with pytest.raises(VoteError) as error:
        await desk.inbox.reviewed(request.id, reviewer=DAVE, note=" ")
    assert refused(error) is Reason.REASON_REQUIRED

    desk.people.put(Someone(DAVE, changed=desk.clock.now() - timedelta(seconds=3599)))
    with pytest.raises(VoteError) as error:
        await desk.inbox.reviewed(request.id, reviewer=DAVE, note="made for the occasion")
    assert refused(error) is Reason.REVIEWER_TOO_NEW
    assert len(await desk.inbox.broken_glass()) == 1
    desk.clock.advance(1)

    await desk.inbox.reviewed(request.id, reviewer=DAVE, note="the pager was broken")
    assert await desk.inbox.broken_glass() == []
    (row,) = await desk.inbox.broken_glass(waiting=False)
    assert (row.reviewer, row.note) == (str(DAVE), "the pager was broken")
    with pytest.raises(VoteError) as error:
        await desk.inbox.reviewed(request.id, reviewer=DAVE, note="again")
    assert refused(error) is Reason.ALREADY_DECIDED
    plain = await desk.inbox.submit(other())
    with pytest.raises(NotFoundError):
        await desk.inbox.reviewed(plain.request.id, reviewer=DAVE, note="nothing broken here")


async def test_a_personal_proof_follows_from_a_signature_alone(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    request = await desk.vote(place.request, proof=Proof.PERSONAL)
    assert request.votes[0].proof is Proof.NONE


# -- newcomers ------------------------------------------------------------------------------------------------------------


async def test_whoever_became_a_reviewer_lately_waits_or_is_confirmed(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    desk.people.put(Someone(BOB, changed=desk.clock.now() - timedelta(seconds=3599)))
    for verdict in VoteVerdict:
        with pytest.raises(VoteError) as error:
            await desk.vote(place.request, BOB, verdict)
        assert refused(error) is Reason.REVIEWER_TOO_NEW
    with pytest.raises(VoteError):
        await edit(desk, place.request)
    desk.people.put(Someone(BOB, changed=START, confirmed=False))
    await desk.vote(place.request)
    assert place.request.state is State.APPROVED

    second = await desk.inbox.submit(other())
    desk.people.put(Someone(BOB, changed=desk.clock.now(), confirmed=True))
    await desk.vote(second.request)
    assert second.request.state is State.APPROVED


# -- agents that keep asking ----------------------------------------------------------------------------------------------


async def test_whoever_keeps_asking_for_what_was_denied_is_locked(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request, verdict=VoteVerdict.DENY)
    seen = len(desk.seen)
    for _ in range(2):
        again = await desk.inbox.submit(draft())
        assert again.request.id == place.request.id
    assert len(desk.seen) == seen  # no new card
    with pytest.raises(VoteError) as error:
        await desk.inbox.submit(other())
    assert refused(error) is Reason.REQUESTER_LOCKED
    (lock,) = desk.inbox.locks()
    assert (lock.requester, lock.until) == (CLAUDE, desk.clock.now() + timedelta(seconds=900))
    assert desk.journal.of("requester.lock")[0].fields["requester"] == str(CLAUDE)

    await desk.restart(crash=True)
    with pytest.raises(VoteError):
        await desk.inbox.submit(other())
    await desk.inbox.unlock(CLAUDE, by=BOB)
    assert (await desk.inbox.submit(other())).request.state is State.PENDING
    assert desk.journal.of("requester.unlock")[0].fields["by"] == str(BOB)
    await desk.restart()
    assert desk.inbox.locks() == []


async def test_a_deny_after_an_approval_stands_like_any_other(desk: Desk) -> None:
    desk.people.put(Someone(DAVE, groups=frozenset(("sre",))))
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request, BOB)
    await desk.vote(place.request, DAVE, VoteVerdict.DENY)
    again = await desk.inbox.submit(draft())
    assert (again.request.id, again.request.state) == (place.request.id, State.REVOKED)


async def test_whoever_asks_and_withdraws_again_and_again_is_locked(desk: Desk) -> None:
    for number in range(3):
        place = await desk.inbox.submit(other(b"rm %d" % number))
        await desk.inbox.withdraw_request(place.request.id, by=CLAUDE, why="never mind")
    with pytest.raises(VoteError) as error:
        await desk.inbox.submit(other(b"rm 3"))
    assert refused(error) is Reason.REQUESTER_LOCKED
    await desk.inbox.unlock(CLAUDE, by=BOB)
    for number in range(3):
        place = await desk.inbox.submit(other(b"mv %d" % number))
        await desk.inbox.withdraw_request(place.request.id, by=DAVE, why="an administrator tidies up")
    assert (await desk.inbox.submit(other(b"mv 3"))).request.state is State.PENDING


async def test_a_row_that_was_changed_from_outside_stops_nobody_else(desk: Desk) -> None:
    place = await desk.inbox.submit(other())
    bent = update(requests).where(requests.c.id == place.request.id).values(digest="sha256:bent")
    await desk.store.approvals._database.run(lambda connection: connection.execute(bent).rowcount)
    desk.clock.advance(901)
    assert (await desk.inbox.submit(draft())).request.state is State.PENDING
    assert desk.inbox.pending_count() == 1


async def test_a_lock_ends_by_itself_and_old_denials_are_forgotten(desk: Desk) -> None:
    for number in range(3):
        place = await desk.inbox.submit(other(b"rm %d" % number))
        await desk.vote(place.request, verdict=VoteVerdict.DENY)
        desk.clock.advance(301)
    assert (await desk.inbox.submit(other(b"rm more"))).request.state is State.PENDING  # three, but never within ten minutes
    for number in range(3, 6):
        place = await desk.inbox.submit(other(b"rm %d" % number))
        await desk.vote(place.request, verdict=VoteVerdict.DENY)
        if desk.inbox.locks():
            break
    with pytest.raises(VoteError):
        await desk.inbox.submit(other(b"rm even more"))
    desk.clock.advance(901)
    assert (await desk.inbox.submit(other(b"rm even more"))).request.state is State.PENDING


async def test_one_requester_does_not_fill_the_inbox(desk: Desk) -> None:
    places = [await desk.inbox.submit(other(b"rm %d" % number)) for number in range(3)]
    with pytest.raises(VoteError) as error:
        await desk.inbox.submit(other(b"rm 3"))
    assert refused(error) is Reason.TOO_MANY_REQUESTS
    assert (await desk.inbox.submit(other(b"rm 0"))).request.id == places[0].request.id  # asking again adds nothing
    await desk.vote(places[1].request)
    assert (await desk.inbox.submit(other(b"rm 3"))).request.state is State.PENDING
    await desk.restart()
    with pytest.raises(VoteError):
        await desk.inbox.submit(other(b"rm 4"))  # counted anew from the store


# -- for whoever reads -------------------------------------------------------------------------------------------------------


async def test_the_last_approved_of_the_same_rule_is_found(desk: Desk) -> None:
    first = await desk.inbox.submit(draft())
    assert await desk.inbox.previous(first.request) is None
    await desk.vote(first.request)
    await first.consume()
    desk.clock.advance(1)
    denied = await desk.inbox.submit(other(b"rm denied"))
    await desk.vote(denied.request, verdict=VoteVerdict.DENY)
    desk.clock.advance(1)
    second = await desk.inbox.submit(other())
    found = await desk.inbox.previous(second.request)
    assert found is not None
    assert found.id == first.request.id
    elsewhere = replace(other(b"rm x"), decision=replace(other().decision, rule="linux/other"))
    assert await desk.inbox.previous((await desk.inbox.submit(elsewhere)).request) is None


async def test_pages_go_back_in_time_without_a_gap(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.open()
    made = []
    for number in range(7):
        made.append((await desk.inbox.submit(other(b"rm %d" % number))).request.id)
        desk.clock.advance(1)
    await desk.vote(await desk.inbox.get(made[3]), verdict=VoteVerdict.DENY)

    async def walk(state: State | None) -> list[str]:
        found: list[str] = []
        while page := await desk.inbox.page(state, limit=2, before=found[-1] if found else ""):
            found += [request.id for request in page]
        return found

    assert await walk(None) == made[::-1]
    assert await walk(State.PENDING) == [ident for ident in made[::-1] if ident != made[3]]
    assert await walk(State.DENIED) == [made[3]]
    assert desk.inbox.pending_count() == 6
    await desk.close()
