"""Somebody acts for somebody (RFC 8693 §1.1, §4.1): who that makes of two principals. Pure.

The one who acts is the principal; the other, and whoever that one acts for already, are its chain. All of them are excluded
from approving, with all their accounts and owners, and what any of them may not do is not done. Must not know tokens.
"""

from __future__ import annotations

from dataclasses import replace

from interlock.errors import AuthenticationError, Reason
from interlock.identity.principal import MAX_CHAIN, Authority, Credential, Kind, Principal


def acting(actor: Principal, subject: Principal, credential: Credential) -> Principal:
    """Return `actor` as it acts for `subject`. Raise AuthenticationError."""
    if actor.kind is Kind.HUMAN:
        raise AuthenticationError("the actor of the token is not a registered agent", reason=Reason.UNKNOWN_PRINCIPAL)
    if actor.acting_for:
        raise AuthenticationError("an actor comes as itself, with a token that names nobody else", reason=Reason.TOKEN_REJECTED)
    chain = (subject.identity, *subject.acting_for)
    if actor.identity in chain or actor.linked & frozenset(chain):
        raise AuthenticationError("the chain names somebody twice", reason=Reason.TOKEN_REJECTED)
    if len(chain) > MAX_CHAIN:
        raise AuthenticationError(f"the chain is longer than {MAX_CHAIN}", reason=Reason.TOKEN_REJECTED)
    return replace(
        actor,
        credential=credential,
        acting_for=chain,
        acting_for_handles=(subject.handle, *subject.acting_for_handles),
        behind=(Authority(subject.identity, subject.handle, subject.kind, subject.groups), *subject.behind),
        linked=(actor.linked | subject.excluded()) - {actor.identity},
        assurance=subject.assurance,
    )
