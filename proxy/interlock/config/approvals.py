"""`approvals:`: how long requests wait and answers hold, and who may answer alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from interlock.config.channels import Channels
from interlock.config.values import Seconds, Strict


class BreakGlassConfig(Strict):
    """Who may answer alone, in place of a rule's groups and quorum, with a passkey and a written reason."""

    groups: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    validity: Annotated[Seconds, Field(gt=0, le=3600)] = 300


class FatigueConfig(Strict):
    """`pending`: requests of one requester that may wait at once. After `denials` within `window`, a lock of `lock`."""

    pending: Annotated[int, Field(ge=1, le=10_000)] = 50
    denials: Annotated[int, Field(ge=1, le=1_000)] = 10
    window: Annotated[Seconds, Field(gt=0)] = 600
    lock: Annotated[Seconds, Field(gt=0)] = 900


class ApprovalsConfig(Strict):
    hold: Seconds = 60
    expires: Seconds = 900
    max_hold_in_transaction: Seconds = 60
    validity: Seconds = 900
    grants: Annotated[Seconds, Field(gt=0, le=86400)] = 3600
    new_reviewer_delay: Seconds | None = None
    break_glass: BreakGlassConfig | None = None
    fatigue: FatigueConfig = FatigueConfig()
    channels: Channels = Channels()
