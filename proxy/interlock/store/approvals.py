"""Rows of requests and votes, and the one compare-and-swap that changes a state.

Knows columns, forms and transactions. Must not know which change is allowed: the desk says that, inside the transaction,
of the row as it is there. The ledger's generation counts every write; `high_water` is the latest instant that the desk
ever reckoned (approvals.md, "Model"; architecture.md, "Where state lives").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, case, insert, select, update

from interlock.approvals.digest import checked
from interlock.approvals.model import ApprovalRequest, Presence, State, Vote
from interlock.approvals.portable import FormError, read_request, read_vote, request_form, vote_form
from interlock.errors import NotFoundError, StoreError
from interlock.store.database import Database
from interlock.store.schema import Moment, ledger, requests, votes

Change = Callable[[ApprovalRequest], ApprovalRequest]
"""The desk's answer to the row as it is: the next value, or a VoteError that ends the transaction."""

Beside = Callable[[Connection, ApprovalRequest], None]
"""What else is written in the same transaction, once the request has its new value. An error ends the transaction."""

OPEN = (State.PENDING, State.APPROVED)


@dataclass(frozen=True, slots=True)
class Ledger:
    """`generation` counts writes; a store older than what the log mirrors of it was restored from a backup."""

    generation: int
    high_water: datetime
    match_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction left behind."""

    request: ApprovalRequest
    generation: int


class ApprovalRows:
    """The desk's memory. Each method is one transaction; each raises StoreError, and then nothing was written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ledger(self) -> Ledger:
        def read(connection: Connection) -> Ledger:
            row = connection.execute(select(ledger)).one()
            return Ledger(row.generation, row.high_water, row.match_key)

        return await self._database.run(read)

    async def advance(self, now: datetime, *, at_least: int = 0) -> int:
        """Write the high-water mark alone; return the generation, which is then above `at_least`."""

        def write(connection: Connection) -> int:
            return _advance(connection, now, at_least)

        return await self._database.run(write)

    async def insert(
        self, request: ApprovalRequest, *, now: datetime, superseding: ApprovalRequest | None = None, beside: Beside | None = None
    ) -> Written:
        """Write a new request with its votes, and in the same transaction end the one it takes the place of.

        `superseding` is that older request in its new state. Raise StoreError also when the older one changed meanwhile.
        """

        def write(connection: Connection) -> Written:
            if superseding is not None:
                _swap(connection, superseding, State.PENDING, in_time=None)
            if beside is not None:
                beside(connection, request)
            connection.execute(insert(requests).values(_columns(request)))
            _insert_votes(connection, request, 0)
            return Written(request, _advance(connection, now))

        return await self._database.run(write)

    async def apply(
        self, known: ApprovalRequest, change: Change, *, now: datetime, in_time: bool = False, beside: Beside | None = None
    ) -> Written:
        """Change one request by compare-and-swap, its new votes with it.

        `known` gives the frozen part; state and votes are read anew, in the transaction. With `in_time` the swap also
        asks that the deadline of the state lies after `now`. Whatever `change` raises ends the transaction.
        """

        def write(connection: Connection) -> Written:
            # FOR UPDATE serialises voters on PostgreSQL; SQLite's BEGIN IMMEDIATE did already.
            row = connection.execute(_STATE_OF, {"ident": known.id}).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no request {known.id}")
            if row.digest != known.digest:
                raise FormError(f"the row of {known.id} was changed from outside")
            before = _thawed(known, row, {known.id: tuple(map(_vote, connection.execute(_VOTES_ON, {"ident": known.id})))})
            after = change(before)
            if after == before:
                return Written(before, _generation(connection))
            _swap(connection, after, before.state, in_time=now if in_time else None)
            _insert_votes(connection, after, len(before.votes))
            if beside is not None:
                beside(connection, after)
            return Written(after, _advance(connection, now))

        return await self._database.run(write)

    async def get(self, request_id: str) -> ApprovalRequest | None:
        found = await self._select(requests.c.id == request_id)
        return found[0] if found else None

    async def open_requests(self) -> Sequence[ApprovalRequest]:
        """Return everything pending or approved, oldest first."""
        return await self._select(requests.c.state.in_([str(s) for s in OPEN]))

    async def with_match(self, match: str, states: Sequence[State], limit: int) -> Sequence[ApprovalRequest]:
        """Return at most `limit` requests for the same thing, the newest ones, oldest first."""
        named = requests.c.state.in_([str(s) for s in states])
        return await self._select(and_(requests.c.match_hmac == match, named), limit)

    async def recent(self, state: State | None, limit: int, before: str = "") -> Sequence[ApprovalRequest]:
        """Return at most `limit` requests, the newest ones (of those with a smaller id than `before`), oldest first."""
        conditions = [*([requests.c.state == str(state)] if state else []), *([requests.c.id < before] if before else [])]
        return await self._select(and_(*conditions) if conditions else None, limit)

    async def last_approved(self, request: ApprovalRequest) -> ApprovalRequest | None:
        """Return what the same requester was last granted at the same target under the same rule."""
        identity = request.draft.principal.identity
        found = await self._select(
            and_(
                requests.c.issuer == identity.issuer, requests.c.subject == identity.subject,
                requests.c.target == request.draft.target.name, requests.c.rule == request.draft.decision.rule,
                requests.c.state.in_((str(State.APPROVED), str(State.CONSUMED))), requests.c.id < request.id,
            ), 1,
        )  # fmt: skip
        return found[0] if found else None

    async def _select(self, condition: Any, limit: int | None = None) -> Sequence[ApprovalRequest]:
        def read(connection: Connection) -> Sequence[ApprovalRequest]:
            query = select(requests).order_by(requests.c.created.desc(), requests.c.id.desc())
            query = query if condition is None else query.where(condition)
            rows = connection.execute(query if limit is None else query.limit(limit)).all()
            given = _votes_of(connection, [row.id for row in rows])
            return [_read(row, given) for row in reversed(rows)]

        return await self._database.run(read)


def _columns(request: ApprovalRequest) -> dict[str, Any]:
    identity = request.draft.principal.identity
    return {
        "id": request.id, "digest": request.digest, "match_hmac": request.match,
        "issuer": identity.issuer, "subject": identity.subject,
        "created": request.created, "expires": request.expires,
        "target": request.draft.target.name, "rule": request.draft.decision.rule,
        "form": checked(request_form(request), request.digest),
        **_mutable(request),
    }  # fmt: skip


_MUTABLE = ("state", "presence", "decided_at", "valid_until", "successor", "escalated_at")


def _mutable(request: ApprovalRequest) -> dict[str, Any]:
    return {
        "state": str(request.state),
        "presence": str(request.presence),
        "decided_at": request.decided_at,
        "valid_until": request.valid_until,
        "successor": request.successor,
        "escalated_at": request.escalated_at,
    }


_STATE = [column for column in requests.c if column.name != "form"]
"""What a change needs to know of the row: not the form, which may hold 256 KiB of input and never changes."""


def _thawed(frozen: ApprovalRequest, row: Row[Any], given: dict[str, tuple[Vote, ...]]) -> ApprovalRequest:
    return replace(
        frozen,
        state=State(row.state),
        presence=Presence(row.presence),
        decided_at=row.decided_at,
        valid_until=row.valid_until,
        successor=row.successor,
        escalated_at=row.escalated_at,
        votes=given.get(row.id, ()),
    )


def _read(row: Row[Any], given: dict[str, tuple[Vote, ...]]) -> ApprovalRequest:
    frozen = read_request(checked(row.form, row.digest), row.digest)
    if (frozen.id, frozen.match, frozen.expires) != (row.id, row.match_hmac, row.expires):
        raise FormError(f"the row of {row.id} was changed from outside")
    return _thawed(frozen, row, given)


_IN = 500
"""Ids in one IN list: well below SQLite's and PostgreSQL's limits on parameters."""


def _votes_of(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[Vote, ...]]:
    found: dict[str, tuple[Vote, ...]] = {}
    for start in range(0, len(ids), _IN):
        part = votes.c.request.in_(ids[start : start + _IN])
        for row in connection.execute(select(votes).where(part).order_by(votes.c.request, votes.c.place)):
            found[row.request] = (*found.get(row.request, ()), _vote(row))
    return found


def _vote(row: Row[Any]) -> Vote:
    vote = read_vote(row.form)
    if (vote.reviewer.issuer, vote.reviewer.subject, str(vote.verdict)) != (row.issuer, row.subject, row.verdict):
        raise FormError(f"a vote on {row.request} was changed from outside")
    return vote


def _insert_votes(connection: Connection, request: ApprovalRequest, known: int) -> None:
    """Write the votes of a request beyond the first `known` ones."""
    for place, vote in enumerate(request.votes[known:], start=known):
        row = {
            "request": request.id, "issuer": vote.reviewer.issuer, "subject": vote.reviewer.subject,
            "verdict": str(vote.verdict), "place": place, "event": vote.event, "form": vote_form(vote),
        }  # fmt: skip
        connection.execute(_INSERT_VOTE, row)


def _swap(connection: Connection, after: ApprovalRequest, before: State, *, in_time: datetime | None) -> None:
    named = {"ident": after.id, "was": str(before), "same": after.digest, **{f"new_{k}": v for k, v in _mutable(after).items()}}
    if in_time is None:
        result = connection.execute(_SWAP, named)
    else:
        result = connection.execute(_SWAP_IN_TIME[before], {**named, "moment": in_time})
    if result.rowcount != 1:
        raise StoreError(f"{after.id} changed in the meantime, so nothing was written")


def _advance(connection: Connection, now: datetime, at_least: int = 0) -> int:
    """Count one write and raise the high-water mark, never lower it. Return the generation."""
    return int(connection.execute(_ADVANCE, {"moment": now, "at_least": at_least}).scalar_one())


def _generation(connection: Connection) -> int:
    return int(connection.execute(_GENERATION).scalar_one())


# -- statements of the way from a click to a release: built once, for building one takes longer than running it ------------

_STATE_OF = select(*_STATE).where(requests.c.id == bindparam("ident")).with_for_update()
_VOTES_ON = select(votes).where(votes.c.request == bindparam("ident")).order_by(votes.c.place)
_INSERT_VOTE = insert(votes)
_SWAP = (
    update(requests)
    .where(requests.c.id == bindparam("ident"), requests.c.state == bindparam("was"), requests.c.digest == bindparam("same"))
    .values({name: bindparam(f"new_{name}") for name in _MUTABLE})
)
_SWAP_IN_TIME = {
    State.PENDING: _SWAP.where(requests.c.expires > bindparam("moment")),
    State.APPROVED: _SWAP.where(requests.c.valid_until > bindparam("moment")),
}
_GENERATION = select(ledger.c.generation)
_MOMENT = bindparam("moment", type_=Moment())
_ADVANCE = (
    update(ledger)
    .values(
        generation=case((ledger.c.generation < bindparam("at_least"), bindparam("at_least")), else_=ledger.c.generation) + 1,
        high_water=case((ledger.c.high_water < _MOMENT, _MOMENT), else_=ledger.c.high_water),
    )
    .returning(ledger.c.generation)
)
