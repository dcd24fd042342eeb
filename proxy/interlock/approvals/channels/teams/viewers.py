"""What one viewer of a card may do, in words. Pure: the desk itself is asked, so that card and desk can't disagree.

Knows the desk's refusals. Must not know Teams, the directory or the store. A view changes what is shown, never what counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from interlock.approvals import desk
from interlock.approvals.authority import House, Voter
from interlock.approvals.model import ApprovalRequest, Proof, State, Vote, VoteVerdict
from interlock.approvals.wording import one_line
from interlock.errors import SENTENCES, Reason, VoteError
from interlock.identity.principal import Identity


class Stance(StrEnum):
    ANYBODY = "anybody"  # a message that many people read
    MAY_ANSWER = "may-answer"
    ANSWERED = "answered"
    BARRED = "barred"


@dataclass(frozen=True, slots=True)
class View:
    """`sentence` is for this viewer alone. `approve` and `deny` say which buttons they are shown."""

    stance: Stance
    sentence: str = ""
    approve: bool = False
    deny: bool = False


ANYBODY = View(Stance.ANYBODY, approve=True, deny=True)
STRANGER = View(Stance.BARRED, SENTENCES[Reason.UNMAPPED_ACTOR])


def view(request: ApprovalRequest, voter: Voter, *, now: datetime, house: House, excluded: Iterable[Identity] = ()) -> View:
    """Return what this person sees of a request as it is now."""
    open_still = request.state is State.PENDING or desk.usable(request, now)
    mine = [vote for vote in request.votes if vote.reviewer in voter.person]
    try:
        _try(request, VoteVerdict.DENY, voter, now, house, excluded)
        deny = open_still
    except VoteError as error:
        if not mine and open_still:
            return View(Stance.BARRED, _why(request, voter, error))
        deny = False
    if mine:
        verb = "approved" if mine[-1].verdict is VoteVerdict.APPROVE else "denied"
        after = " You can still deny." if deny else ""
        return View(Stance.ANSWERED, f"You {verb} this.{after}", deny=deny)
    if not open_still:
        return View(Stance.BARRED)
    return View(Stance.MAY_ANSWER, "You may answer.", approve=request.state is State.PENDING, deny=deny)


def refused(shown: View, error: VoteError) -> View:
    """Return the view of somebody whose answer just did not count."""
    return View(shown.stance, f"Your answer did not count: {one_line(str(error))}", shown.approve, shown.deny)


def _try(
    request: ApprovalRequest, verdict: VoteVerdict, voter: Voter, now: datetime, house: House, excluded: Iterable[Identity]
) -> None:
    ballot = Vote(voter.identity, voter.handle, "", "", verdict, request.digest, now, proof=Proof.NONE)
    desk.vote(request, ballot, voter, now=now, house=house, excluded=excluded)


def _why(request: ApprovalRequest, voter: Voter, error: VoteError) -> str:
    who = request.draft.principal
    if error.code is not Reason.SELF_APPROVAL:
        groups = f" It takes: {request.reviewers}." if error.code is Reason.NOT_A_REVIEWER else ""
        return f"You can't answer: {one_line(str(error))}{groups}"
    if who.identity in voter.person:
        because = "you asked for it"
    elif who.owner is not None and who.owner in voter.person:
        because = f"{who.handle} is yours"
    elif any(one in voter.person for one in who.acting_for):
        because = f"{who.handle} acts for you"
    elif request.author is not None and request.author in voter.person:
        because = "you edited it"
    else:
        because = "you stand behind whoever asks"
    return f"You can't answer: {because}. Somebody else has to."
