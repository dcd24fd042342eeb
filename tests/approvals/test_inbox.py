"""The inbox over a real SQLite file: votes, races, restarts, clocks and failures."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.inbox import ALICE_AT_IDP, DAVE, Desk, Someone, waiting
from harness.people import ALICE, BOB, CAROL, CLAUDE, agent, person
from harness.requests import SHELL, TERMS, draft
from interlock.approvals.model import ApprovalRequest, Presence, Proof, State, VoteVerdict
from interlock.approvals.place import Place
from interlock.errors import EvidenceError, InterlockError, NotFoundError, Reason, StoreError, VoteError
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import StepUp


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    await made.open()
    yield made
    await made.close()


# -- the straight way -------------------------------------------------------------------------------------------------


async def test_an_approval_wakes_the_waiter_and_is_used_once(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    async with waiting(place) as waiter:
        await desk.vote(place.request, reason="go on", event="e1")
        request = await waiter
    assert request.state is State.APPROVED
    assert request.votes[0].reviewer_handle == "bob"
    consumed = await place.consume()
    assert consumed is not None
    assert consumed.state is State.CONSUMED
    assert await place.consume() is None
    assert (await desk.stored(request)).state is State.CONSUMED
    assert [r.state for r in desk.seen] == [State.PENDING, State.APPROVED, State.CONSUMED]
    (vote,) = desk.journal.of("vote")
    assert vote.fields["counted"] is True
    assert vote.secret == {"said": "go on"}
    assert desk.journal.of("approval.response")[0].fields["state"] == "consumed"
    assert desk.inbox.link(request) == f"https://proxy/console/approvals/{request.id}"


async def test_a_denial_stands_for_the_same_thing_until_it_expires(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request, verdict=VoteVerdict.DENY, reason="not at night")
    again = await desk.inbox.submit(draft(session="another"))
    assert again.request.id == place.request.id
    assert again.request.state is State.DENIED
    other = await desk.inbox.submit(draft(replace(SHELL, text=b"rm -rf /")))
    assert other.request.state is State.PENDING
    desk.clock.advance(901)
    anew = await desk.inbox.submit(draft())
    assert (anew.request.state, anew.request.id != place.request.id) == (State.PENDING, True)


async def test_the_same_thing_attaches_to_the_pending_request(desk: Desk) -> None:
    first, second = await asyncio.gather(desk.inbox.submit(draft()), desk.inbox.submit(draft(session="another")))
    assert first.request.id == second.request.id
    await first.give_back()
    assert second.request.presence is Presence.HELD  # the other one still waits
    await second.give_back()
    assert second.request.presence is Presence.RETURNED
    third = await desk.inbox.submit(draft())
    assert (third.request.id, third.request.presence) == (first.request.id, Presence.HELD)


async def test_two_waiters_and_one_approval_give_one_release(desk: Desk) -> None:
    places = [await desk.inbox.submit(draft()) for _ in range(2)]
    await desk.vote(places[0].request)
    results = await asyncio.gather(*(place.consume() for place in places))
    assert sum(result is not None for result in results) == 1


async def test_another_principal_never_finds_the_approval(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request)
    thief = replace(agent(), identity=Identity("local", "robot"))
    assert (await desk.inbox.submit(draft(principal=thief))).request.state is State.PENDING
    longer = agent(acting_for=(BOB,))
    assert (await desk.inbox.submit(draft(principal=longer))).request.state is State.PENDING


async def test_a_re_run_after_the_hold_uses_the_approval(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    assert (await place.give_back()).presence is Presence.RETURNED
    await desk.vote(place.request)
    rerun = await desk.inbox.submit(draft(session="later"))
    assert rerun.request.state is State.APPROVED
    assert await rerun.consume() is not None
    assert (await desk.inbox.submit(draft())).request.state is State.PENDING


async def test_other_terms_supersede_the_old_question(desk: Desk) -> None:
    old = await desk.inbox.submit(draft())
    async with waiting(old) as waiter:
        new = await desk.inbox.submit(draft(terms=replace(TERMS, groups=("dba",))))
        assert (await waiter).state is State.SUPERSEDED
    assert new.request.state is State.PENDING
    with pytest.raises(VoteError) as caught:
        await desk.vote(old.request)
    assert caught.value.code is Reason.ALREADY_DECIDED
    await desk.vote(new.request, DAVE)
    # An approval under terms that are not in force any more is taken back, and asked for again.
    newest = await desk.inbox.submit(draft())
    assert (newest.request.state, new.request.state) == (State.PENDING, State.REVOKED)


# -- who may answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (CLAUDE, Reason.NOT_A_PERSON),
        (ALICE, Reason.SELF_APPROVAL),  # owns the agent
        (CAROL, Reason.SELF_APPROVAL),  # is Alice
        (ALICE_AT_IDP, Reason.UNMAPPED_ACTOR),
        (DAVE, Reason.NOT_A_REVIEWER),
        (Identity("local", "robot"), Reason.NOT_A_PERSON),
        (Identity("idp", "bob"), Reason.UNMAPPED_ACTOR),  # the same name from another issuer
    ],
    ids=str,
)
@pytest.mark.parametrize("verdict", VoteVerdict)
async def test_whoever_may_not_answer_is_refused_and_recorded(
    desk: Desk, who: Identity, reason: Reason, verdict: VoteVerdict
) -> None:
    place = await desk.inbox.submit(draft())
    with pytest.raises(VoteError) as caught:
        await desk.vote(place.request, who, verdict)
    assert caught.value.code is reason
    assert desk.refusals() == [str(reason)]
    assert await desk.stored(place.request) == place.request
    assert place.request.state is State.PENDING


async def test_the_requester_the_chain_and_their_owners_are_refused_even_as_the_only_reviewers(desk: Desk) -> None:
    human = person(BOB)
    own = await desk.inbox.submit(draft(principal=human))
    with pytest.raises(VoteError) as caught:
        await desk.vote(own.request, BOB)
    assert caught.value.code is Reason.SELF_APPROVAL

    chained = await desk.inbox.submit(draft(principal=replace(agent(acting_for=(BOB,)), owner=None)))
    for who in (BOB, ALICE):  # Alice owns the agent by the directory, whatever the connection said
        with pytest.raises(VoteError) as caught:
            await desk.vote(chained.request, who)
        assert caught.value.code is Reason.SELF_APPROVAL


async def test_a_link_made_after_the_request_still_excludes(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    desk.people.put(Someone(BOB, linked=frozenset((ALICE,))))
    with pytest.raises(VoteError) as caught:
        await desk.vote(place.request)
    assert caught.value.code is Reason.SELF_APPROVAL


async def test_groups_are_looked_up_at_the_decision(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    desk.people.put(Someone(BOB, groups=frozenset()))
    with pytest.raises(VoteError) as caught:
        await desk.vote(place.request)
    assert caught.value.code is Reason.NOT_A_REVIEWER
    desk.people.put(Someone(DAVE, groups=frozenset(("sre",))))
    assert (await desk.vote(place.request, DAVE)).state is State.APPROVED


async def test_a_voter_disabled_before_the_release_is_not_enough(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request)
    desk.people.put(Someone(BOB, disabled=True))
    assert await place.consume() is None
    assert (await desk.stored(place.request)).state is State.REVOKED
    desk.people.put(Someone(BOB))
    assert await place.consume() is None


@pytest.mark.parametrize("gone", ["removed", "linked", "requester"])
async def test_what_changed_in_the_directory_before_the_release_counts(desk: Desk, gone: str) -> None:
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request)
    match gone:
        case "removed":
            del desk.people.entries[BOB]
        case "linked":
            desk.people.put(Someone(BOB, linked=frozenset((ALICE,))))
        case "requester":
            desk.people.put(Someone(CLAUDE, kind=Kind.AGENT, owner=ALICE, disabled=True))
    assert await place.consume() is None
    assert place.request.state is State.REVOKED


async def test_a_voter_disabled_while_the_journal_is_written_does_not_count(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    synced = desk.journal.sync

    async def sync() -> None:
        desk.people.put(Someone(BOB, disabled=True))
        await synced()

    desk.journal.sync = sync  # type: ignore[method-assign]  # the moment between the journal and the store
    with pytest.raises(VoteError) as caught:
        await desk.vote(place.request)
    assert caught.value.code is Reason.DISABLED_PRINCIPAL
    assert place.request.state is State.PENDING
    assert [event.fields["counted"] for event in desk.journal.of("vote")] == [True, False]


async def test_a_chat_click_is_too_weak_where_the_rule_asks_for_a_step_up(desk: Desk) -> None:
    place = await desk.inbox.submit(draft(terms=replace(TERMS, step_up=StepUp.REAUTH)))
    with pytest.raises(VoteError) as caught:
        await desk.vote(place.request, channel="teams", proof=Proof.CHANNEL)
    assert caught.value.code is Reason.STEP_UP_TOO_WEAK
    assert (await desk.vote(place.request, channel="console")).state is State.APPROVED


# -- binding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", ["", "sha256:00", "SHA256"])
async def test_an_answer_to_another_text_does_not_count(desk: Desk, digest: str) -> None:
    place = await desk.inbox.submit(draft())
    with pytest.raises(VoteError) as caught:
        await desk.vote(place.request, digest=digest)
    assert caught.value.code is Reason.DIGEST_MISMATCH


async def test_the_digest_of_another_request_does_not_count(desk: Desk) -> None:
    one = await desk.inbox.submit(draft())
    other = await desk.inbox.submit(draft(replace(SHELL, text=b"ls")))
    with pytest.raises(VoteError) as caught:
        await desk.vote(one.request, digest=other.request.digest)
    assert caught.value.code is Reason.DIGEST_MISMATCH


async def test_an_unknown_request_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFoundError):
        await desk.inbox.vote(
            "req_nothing", voter=BOB, channel="cli", channel_actor="", verdict=VoteVerdict.DENY, digest=""
        )  # fmt: skip
    with pytest.raises(NotFoundError):
        await desk.inbox.get("req_nothing")


async def test_hostile_text_in_an_answer_is_recorded_bounded_and_counts_as_text(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    request = await desk.vote(
        place.request, verdict=VoteVerdict.DENY, reason="\ud800\x1b[2J" + "x" * 100_000, event="\udfff" * 999
    )
    assert request.state is State.DENIED
    assert len(request.votes[0].reason) == 2000
    assert len(request.votes[0].event) == 255
    assert (await desk.stored(request)) == request


# -- races ------------------------------------------------------------------------------------------------------------


async def test_a_hundred_concurrent_approvals_by_one_person_are_one_vote_and_one_release(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    results = await asyncio.gather(*(desk.vote(place.request, event=f"e{n}") for n in range(100)), return_exceptions=True)
    counted = [r for r in results if isinstance(r, ApprovalRequest)]
    assert len(counted) == 1
    assert Counter(e.code for e in results if isinstance(e, VoteError)) == {Reason.ALREADY_DECIDED: 99}
    assert len((await desk.stored(place.request)).votes) == 1
    released = await asyncio.gather(*(place.consume() for _ in range(100)))
    assert sum(r is not None for r in released) == 1


async def test_approve_and_deny_at_once_give_one_final_state(desk: Desk) -> None:
    desk.people.put(Someone(DAVE))
    outcomes: Counter[State] = Counter()
    for number in range(10):
        place = await desk.inbox.submit(draft(replace(SHELL, text=b"rm %d" % number)))
        votes = [desk.vote(place.request, BOB), desk.vote(place.request, DAVE, VoteVerdict.DENY)]
        results = await asyncio.gather(*(votes if number % 2 else votes[::-1]), return_exceptions=True)
        # Whoever is first: nothing was released yet, so the one who says no is heard.
        late = [r for r in results if isinstance(r, VoteError)]
        assert [(error.code, str(place.request.state) in str(error)) for error in late] in ([], [(Reason.ALREADY_DECIDED, True)])
        outcomes[(await desk.stored(place.request)).state] += 1
        assert await place.consume() is None
    assert set(outcomes) == {State.REVOKED, State.DENIED}


async def test_a_deny_after_the_release_is_told_the_final_state(desk: Desk) -> None:
    desk.people.put(Someone(DAVE))
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request, BOB)
    assert await place.consume() is not None
    with pytest.raises(VoteError, match="consumed") as late:
        await desk.vote(place.request, DAVE, VoteVerdict.DENY)
    assert late.value.code is Reason.ALREADY_DECIDED


async def test_the_same_delivery_twice_counts_once(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    first = await desk.vote(place.request, event="evt-1")
    second = await desk.vote(place.request, event="evt-1")
    assert first == second
    assert len(desk.journal.of("vote")) == 1
    with pytest.raises(VoteError):
        await desk.vote(place.request, verdict=VoteVerdict.APPROVE, event="evt-2")


async def test_a_quorum_is_distinct_people(desk: Desk) -> None:
    erin, second = Identity("local", "erin"), Identity("local", "bob-2")
    desk.people.put(Someone(BOB, linked=frozenset((second,))))
    desk.people.put(Someone(second, linked=frozenset((BOB,))))
    desk.people.put(Someone(erin))
    place = await desk.inbox.submit(draft(terms=replace(TERMS, quorum=2)))
    assert (await desk.vote(place.request)).state is State.PENDING
    with pytest.raises(VoteError) as caught:
        await desk.vote(place.request, second, channel="teams")
    assert caught.value.code is Reason.ALREADY_VOTED
    assert (await desk.vote(place.request, erin)).state is State.APPROVED


async def test_whoever_approved_may_still_deny_while_it_is_pending(desk: Desk) -> None:
    place = await desk.inbox.submit(draft(terms=replace(TERMS, quorum=2)))
    await desk.vote(place.request)
    assert (await desk.vote(place.request, verdict=VoteVerdict.DENY)).state is State.DENIED
    assert len((await desk.stored(place.request)).votes) == 2


# -- time -------------------------------------------------------------------------------------------------------------


async def test_silence_expires_and_wakes_the_waiter(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    async with waiting(place, timeout=10_000) as waiter:
        desk.clock.advance(899)
        await desk.inbox.tick()
        assert not waiter.done()
        desk.clock.advance(1)
        await desk.inbox.tick()
        assert (await waiter).state is State.EXPIRED
    with pytest.raises(VoteError) as caught:
        await desk.vote(place.request)
    assert caught.value.code is Reason.ALREADY_DECIDED


async def test_a_vote_at_the_deadline_is_late_even_before_anybody_looked(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    desk.clock.advance(900)
    with pytest.raises(VoteError, match="expired"):
        await desk.vote(place.request)


@pytest.mark.parametrize("step", [-86_400.0, -901.0, 0.0])
async def test_a_clock_set_back_prolongs_nothing(desk: Desk, step: float) -> None:
    place = await desk.inbox.submit(draft())
    desk.clock.step(step)
    desk.clock.advance(900)
    await desk.inbox.tick()
    assert place.request.state is State.EXPIRED

    used = await desk.inbox.submit(draft())
    await desk.vote(used.request)
    desk.clock.step(step)
    desk.clock.advance(600)
    assert await used.consume() is None
    await desk.inbox.tick()
    assert used.request.state is State.LAPSED


async def test_a_clock_set_back_over_a_restart_prolongs_nothing(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    desk.clock.advance(800)
    await desk.inbox.submit(draft(replace(SHELL, text=b"ls")))  # any write keeps the mark
    desk.clock.step(-3600)
    await desk.restart(crash=True)
    desk.clock.advance(100)
    await desk.inbox.tick()
    assert (await desk.stored(place.request)).state is State.EXPIRED


async def test_a_clock_set_forward_ends_what_its_time_ends(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    desk.clock.step(901)
    with pytest.raises(VoteError):
        await desk.vote(place.request)
    desk.clock.step(-901)
    with pytest.raises(VoteError):
        await desk.vote(place.request)


async def test_an_approval_lapses_after_its_validity(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request)
    desk.clock.advance(600)
    assert await place.consume() is None
    rerun = await desk.inbox.submit(draft())
    assert rerun.request.id != place.request.id
    assert place.request.state is State.LAPSED


async def test_the_waiter_goes_on_after_its_own_timeout(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    async with waiting(place, timeout=60) as waiter:
        desk.clock.advance(60)
        await desk.inbox.tick()
        assert (await waiter).state is State.PENDING


async def test_time_is_kept_without_anybody_asking(tmp_path: Path) -> None:
    """With the machine's own clock: the keeper wakes by itself."""
    from interlock.clock import SystemClock

    made = Desk(tmp_path)
    made.clock = SystemClock()  # type: ignore[assignment]  # the one test on real time
    await made.open()
    place = await made.inbox.submit(draft(terms=replace(TERMS, expires=1)))
    assert (await place.settled(30)).state is State.EXPIRED
    await made.close()


# -- leaving, restarting, shutting down -------------------------------------------------------------------------------


async def test_a_hold_only_request_is_cancelled_when_its_client_leaves(desk: Desk) -> None:
    place = await desk.inbox.submit(draft(terms=replace(TERMS, returns=False)))
    assert (await place.give_back()).state is State.CANCELLED
    assert (await place.give_back()).state is State.CANCELLED


async def test_a_client_that_leaves_after_the_deadline_leaves_an_expired_request(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    desk.clock.advance(900)
    assert (await place.give_back()).state is State.EXPIRED


async def test_a_client_that_leaves_in_the_middle_of_asking_leaves_a_returned_request(desk: Desk) -> None:
    task = asyncio.create_task(desk.inbox.submit(draft()))
    await asyncio.sleep(0)  # it has begun to write
    assert desk.inbox._register._tasks
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while desk.inbox._register._tasks:
        await asyncio.wait(set(desk.inbox._register._tasks))
    (request,) = await desk.inbox.list(State.PENDING)
    assert request.presence is Presence.RETURNED


@pytest.mark.parametrize("crash", [False, True])
async def test_a_restart_returns_what_was_held_and_cancels_what_can_not_be_returned(desk: Desk, crash: bool) -> None:
    held = await desk.inbox.submit(draft())
    only = await desk.inbox.submit(draft(replace(SHELL, text=b"a"), terms=replace(TERMS, returns=False)))
    approved = await desk.inbox.submit(draft(replace(SHELL, text=b"b")))
    await desk.vote(approved.request)
    late = await desk.inbox.submit(draft(replace(SHELL, text=b"c"), terms=replace(TERMS, expires=10)))
    desk.clock.advance(10)
    await desk.restart(crash=crash)
    assert (await desk.inbox.get(held.request.id)).presence is Presence.RETURNED
    assert (await desk.inbox.get(held.request.id)).state is State.PENDING
    assert (await desk.inbox.get(only.request.id)).state is State.CANCELLED
    assert (await desk.inbox.get(late.request.id)).state is State.EXPIRED
    # What was approved stays so until its validity is over, and a re-run uses it: the exact bytes survived.
    rerun = await desk.inbox.submit(draft(replace(SHELL, text=b"b")))
    assert rerun.request.state is State.APPROVED
    assert rerun.request.draft == replace(draft(replace(SHELL, text=b"b")))
    assert await rerun.consume() is not None
    # And what is pending can be answered, and its re-run finds the answer.
    await desk.vote(held.request)
    assert (await desk.inbox.submit(draft())).request.state is State.APPROVED


async def test_shutting_down_ends_the_wait_and_takes_nothing_new(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    async with waiting(place, timeout=10_000) as waiter:
        await desk.inbox.close()
        assert (await waiter).state is State.PENDING
    assert place.request.presence is Presence.RETURNED
    with pytest.raises(InterlockError) as caught:
        await desk.inbox.submit(draft(replace(SHELL, text=b"ls")))
    assert caught.value.code is Reason.SHUTTING_DOWN


async def test_a_restored_backup_cancels_everything_that_is_open(desk: Desk) -> None:
    pending = await desk.inbox.submit(draft())
    approved = await desk.inbox.submit(draft(replace(SHELL, text=b"b")))
    await desk.vote(approved.request)
    backup = {path.name: path.read_bytes() for path in desk.path.iterdir()}
    assert await approved.consume() is not None
    mirrored = max(int(str(e.fields.get("generation", 0))) for e in desk.journal.events)
    await desk.close()
    for name, content in backup.items():
        (desk.path / name).write_bytes(content)
    await desk.open(mirrored)
    assert (await desk.stored(pending.request)).state is State.CANCELLED
    assert (await desk.stored(approved.request)).state is State.REVOKED
    # Only once: the store is ahead of the log again.
    fresh = await desk.inbox.submit(draft())
    await desk.restart(mirrored)
    assert (await desk.stored(fresh.request)).state is State.PENDING


async def test_a_stopped_principal_has_nothing_open(desk: Desk) -> None:
    pending = await desk.inbox.submit(draft())
    approved = await desk.inbox.submit(draft(replace(SHELL, text=b"b")))
    await desk.vote(approved.request)
    other = await desk.inbox.submit(draft(principal=person(DAVE)))
    await desk.inbox.withdraw([ALICE], "the owner was disabled")
    assert (pending.request.state, approved.request.state) == (State.CANCELLED, State.REVOKED)
    assert other.request.state is State.PENDING


async def test_an_operator_takes_an_approval_back(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    with pytest.raises(VoteError):
        await desk.inbox.revoke(place.request.id, "not yet an approval")
    await desk.vote(place.request)
    assert (await desk.inbox.revoke(place.request.id, "a mistake")).state is State.REVOKED
    assert await place.consume() is None
    assert desk.journal.of("approval.response")[-1].fields["why"] == "a mistake"
    await place.revoke("again")


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_a_vote_that_can_not_be_recorded_does_not_count(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    desk.journal.fail_sync = True
    with pytest.raises(EvidenceError):
        await desk.vote(place.request)
    assert (await desk.stored(place.request)).state is State.PENDING
    assert place.request.votes == ()


async def test_an_approval_that_can_not_be_recorded_as_used_is_not_used(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request)
    desk.journal.fail_append = True
    with pytest.raises(EvidenceError):
        await place.consume()
    assert await place.consume() is None


STEPS: dict[str, Callable[[Desk, Place], Any]] = {
    "submit": lambda desk, place: desk.inbox.submit(draft(replace(SHELL, text=b"other"))),
    "vote": lambda desk, place: desk.vote(place.request),
    "deny": lambda desk, place: desk.vote(place.request, verdict=VoteVerdict.DENY),
    "give_back": lambda desk, place: place.give_back(),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_store_that_fails_changes_nothing(desk: Desk, step: str) -> None:
    place = await desk.inbox.submit(draft())
    await desk.store.close()
    with pytest.raises(StoreError):
        await STEPS[step](desk, place)
    assert place.request.state is State.PENDING
    await desk.open()
    assert (await desk.stored(place.request)).state is State.PENDING
    assert (await desk.stored(place.request)).votes == ()


async def test_nothing_is_consumed_when_the_store_fails(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    await desk.vote(place.request)
    await desk.store.close()
    with pytest.raises(StoreError):
        await place.consume()
    await desk.open()
    assert (await desk.stored(place.request)).state is State.APPROVED


async def test_a_row_changed_from_outside_is_not_answered(desk: Desk) -> None:
    from sqlalchemy import Connection, update

    from interlock.store.schema import requests

    place = await desk.inbox.submit(draft())

    def edit(connection: Connection) -> None:
        connection.execute(update(requests).values(digest="sha256:" + "0" * 64))

    await desk.store.approvals._database.run(edit)
    with pytest.raises(StoreError):
        await desk.vote(place.request)
    assert await place.consume() is None


async def test_a_subscriber_that_fails_harms_nobody(desk: Desk) -> None:
    def broken(_: ApprovalRequest) -> None:
        raise RuntimeError("a channel's defect")

    unsubscribe = desk.inbox.subscribe(broken)
    place = await desk.inbox.submit(draft())
    assert (await desk.vote(place.request)).state is State.APPROVED
    unsubscribe()
    unsubscribe()


# -- many -------------------------------------------------------------------------------------------------------------


async def test_ten_thousand_pending_requests_come_back_over_a_restart_and_one_is_answered(desk: Desk) -> None:
    from interlock.approvals import desk as machine

    made = [
        machine.open_request(
            draft(replace(SHELL, text=b"rm %d" % n)), request_id=f"req_{n:05}", nonce="00", match=f"m{n}", now=desk.clock.now()
        )
        for n in range(10_000)
    ]
    from sqlalchemy import Connection, insert

    from interlock.store.approvals import _columns
    from interlock.store.schema import requests

    def fill(connection: Connection) -> None:
        connection.execute(insert(requests), [_columns(replace(r, presence=Presence.RETURNED)) for r in made])

    await desk.store.approvals._database.run(fill)
    await desk.restart()
    assert len(await desk.inbox.list(State.PENDING)) == desk.inbox.pending_count() == 10_000
    assert (await desk.vote(made[77])).state is State.APPROVED
    assert desk.inbox.pending_count() == 9_999
