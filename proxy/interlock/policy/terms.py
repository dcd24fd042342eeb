"""Merging the terms of several reviews into one request that satisfies all of them, or none.

A request has one list of groups, of which any member may answer, and one quorum. Two reviews are both satisfied by
votes of people who count for both, so the merged groups are the intersection, the quorum the larger one, and every
other term the stricter one. When no group counts for both there is no such request: the caller denies. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interlock.policy.model import ReviewTerms, Risk, StepUp

_RISKS = (Risk.LOW, Risk.HIGH, Risk.CRITICAL)
_STEPS = (StepUp.NONE, StepUp.REAUTH, StepUp.PASSKEY)


def merge(terms: Sequence[ReviewTerms]) -> ReviewTerms | None:
    """Return terms that satisfy every one of `terms` (at least one), or None when there are none."""
    merged = terms[0]
    for other in terms[1:]:
        groups = tuple(group for group in merged.groups if group in other.groups)
        if not groups:
            return None
        merged = ReviewTerms(
            groups=groups,
            quorum=max(merged.quorum, other.quorum),
            expires=min(merged.expires, other.expires),
            hold=min(merged.hold, other.hold),
            returns=merged.returns and other.returns,
            step_up=max(merged.step_up, other.step_up, key=_STEPS.index),
            risk=max(merged.risk, other.risk, key=_RISKS.index),
            scopes=tuple(scope for scope in merged.scopes if scope in other.scopes),
        )
    if merged.risk is Risk.CRITICAL and merged.scopes != ("once",):
        merged = replace(merged, scopes=("once",))
    return merged


def severity(terms: ReviewTerms) -> int:
    """Order reviews by risk, for choosing the rule that is named."""
    return _RISKS.index(terms.risk)
