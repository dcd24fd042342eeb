"""The reviewer at a terminal: who answers, with which passphrase, and the decision session that it opens.

A session decides for five minutes; within them nobody is asked twice. The passphrase is forgotten as soon as it was sent.
"""

from __future__ import annotations

import getpass
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from interlock.cli.asker import UsageError
from interlock.cli.client import Client
from interlock.clock import Clock, SystemClock, rfc3339
from interlock.errors import AuthenticationError, InterlockError, Reason

MARGIN_S = 5.0
"""Seconds before its end at which a decision session is not used any more."""

ENDED = frozenset(
    (Reason.NOT_AUTHENTICATED, Reason.TOKEN_REJECTED, Reason.TOKEN_EXPIRED, Reason.CREDENTIAL_REVOKED, Reason.STEP_UP_REQUIRED)
)

_DURATION = re.compile(r"([1-9]\d{0,5})([smhd])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reviewer answers. `valid_until` is the end of a scope wider than once."""

    verdict: str
    reason: str = ""
    scope: str = "once"
    valid_until: datetime | None = None


class Desk:
    """The daemon's desk for one reviewer."""

    def __init__(self, client: Client, reviewer: str) -> None:
        self._client = client
        self.reviewer = reviewer
        self._token = ""
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Whether a decision session is open, so that no passphrase is needed."""
        return self._token != "" and time.monotonic() < self._until

    def step_up(self, passphrase: str) -> None:
        """Open a decision session. Raise what the daemon answers."""
        opened = self._client.post("/v1/step-up", {"handle": self.reviewer, "passphrase": passphrase})
        self._token = opened["token"]
        self._until = time.monotonic() + float(opened["expires_in"]) - MARGIN_S

    def request(self, request: str) -> dict[str, Any]:
        """Return a request as a decider sees it: with the nonce that a signature is over."""
        return self._while_open(lambda: self._client.get(f"/v1/approvals/{request}", token=self._token))

    def decide(self, row: dict[str, Any], answer: Answer, proof: dict[str, str] | None = None) -> dict[str, Any]:
        """Answer the request exactly as it was shown in `row`."""
        body: dict[str, Any] = {
            "verdict": answer.verdict, "digest": row["digest"], "scope": answer.scope, "reason": answer.reason,
        }  # fmt: skip
        if answer.valid_until is not None:
            body["valid_until"] = rfc3339(answer.valid_until)
        if proof is not None:
            body["proof"] = proof
        return self._while_open(lambda: self._client.post(f"/v1/approvals/{row['id']}/decision", body, token=self._token))

    def edit(self, row: dict[str, Any], text: str, reason: str) -> dict[str, Any]:
        body = {"text": text, "digest": row["digest"], "reason": reason}
        return self._while_open(lambda: self._client.post(f"/v1/approvals/{row['id']}/edit", body, token=self._token))

    def _while_open(self, call: Callable[[], Any]) -> dict[str, Any]:
        """Call with the session's token; when the daemon does not know it any more, the next answer asks anew."""
        try:
            return dict(call())
        except InterlockError as error:
            if error.code in ENDED:
                self._token = ""
            raise


def ask_passphrase(reviewer: str, file: Path | None) -> str:
    """Read the passphrase from a file, or ask at the terminal. Raise AuthenticationError where there is none."""
    if file is not None:
        return file.read_text().rstrip("\n")
    if not sys.stdin.isatty():
        raise AuthenticationError(
            "there is no terminal to ask for the passphrase; use --passphrase-file", reason=Reason.STEP_UP_REQUIRED
        )
    return getpass.getpass(f"passphrase of {reviewer}: ")


def end_of(scope: str, duration: str, clock: Callable[[], Clock] = SystemClock) -> datetime | None:
    """Return when a scope ends: a duration from now such as 30m. Raise UsageError for one that makes no sense."""
    if scope == "once":
        if duration:
            raise UsageError("--for is for --scope exact or rule_in_session; an approval of once is used once")
        return None
    if not duration:
        if scope == "exact":
            raise UsageError("--scope exact needs --for, such as --for 30m")
        return None
    found = _DURATION.match(duration)
    if found is None:
        raise UsageError(f"--for {duration}: write a number and s, m, h or d, such as 30m")
    return clock().now() + timedelta(seconds=int(found[1]) * _UNITS[found[2]])
