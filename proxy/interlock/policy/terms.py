"""Merging the terms of several reviews into one request that satisfies all of them.

Two reviews that some group may answer for both become one need of the groups they share, with the larger quorum. Where no
group may answer for both, each stays a need of its own, met by people of its own: the request then waits for both sides.
Every other term is the stricter one. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interlock.policy.model import Need, ReviewTerms, Risk, StepUp

_RISKS = (Risk.LOW, Risk.HIGH, Risk.CRITICAL)
_STEPS = (StepUp.NONE, StepUp.REAUTH, StepUp.PASSKEY)


def merge(terms: Sequence[ReviewTerms]) -> ReviewTerms:
    """Return terms that satisfy every one of `terms` (at least one)."""
    merged = terms[0]
    for other in terms[1:]:
        first, *also = _needs(merged.needs, other.needs)
        merged = ReviewTerms(
            groups=first.groups,
            quorum=first.quorum,
            expires=min(merged.expires, other.expires),
            hold=min(merged.hold, other.hold),
            returns=merged.returns and other.returns,
            step_up=max(merged.step_up, other.step_up, key=_STEPS.index),
            risk=max(merged.risk, other.risk, key=_RISKS.index),
            scopes=tuple(scope for scope in merged.scopes if scope in other.scopes),
            also=tuple(also),
            escalate=min((after for after in (merged.escalate, other.escalate) if after), default=0),
        )
    if merged.critical and merged.scopes != ("once",):
        merged = replace(merged, scopes=("once",))
    return merged


def severity(terms: ReviewTerms) -> int:
    """Order reviews by risk, for choosing the rule that is named."""
    return _RISKS.index(terms.risk)


def _needs(known: Sequence[Need], more: Sequence[Need]) -> list[Need]:
    merged = list(known)
    for need in more:
        for place, other in enumerate(merged):
            shared = tuple(group for group in other.groups if group in need.groups)
            if shared:
                merged[place] = Need(shared, max(other.quorum, need.quorum))
                break
        else:
            merged.append(need)
    return merged
