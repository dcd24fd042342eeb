"""docs/ssh.md says what the code does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from interlock.ssh import credentials, requests
from interlock.ssh.limits import Limits
from interlock.ssh.requests import TABLE, Told

PAGE = (Path(__file__).parents[2] / "docs" / "ssh.md").read_text()

HOW = {
    Told.STDERR: "a line on stderr",
    Told.EXIT: "a line on stderr, exit 126",
    Told.OPEN_FAILURE: "the text of the open failure",
    Told.NEXT_CHANNEL: "a line on the next channel's stderr",
    Told.SILENT: "the protocol's failure, no text",
    Told.HANDLED: "served",
}


def test_every_request_is_there_with_what_becomes_of_it_and_no_other() -> None:
    table = PAGE.partition("<!-- table")[2].partition("<!-- end -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| level")]
    assert rows == [f"| {row.scope} | `{row.name}` | {HOW[row.told]} | {row.sentence} |" for row in TABLE]


def test_the_bounds_are_those_of_the_code() -> None:
    limits = Limits()
    text = " ".join(PAGE.split())
    for said in (
        f"Handshake {limits.handshake:g} s (each key exchange later on too), login {limits.login:g} s",
        f"{limits.login_failures} failed attempts, {limits.login_offers} keys shown",
        f"{limits.unsent // 1024**2} MB of our answers",
        f"packets of less than {limits.packet // 1024} KB",
        f"{limits.connections} connections, {limits.connections_per_source} of one source",
        f"{limits.strangers_per_source} unauthenticated ones of one source",
        f"at most {limits.channels} channels at once",
        f"After {limits.refusals} refused requests",
        f"{limits.stdin // 1024} KB, and never {limits.stdin_idle:g} seconds without data",
        f"more than {credentials.MAX_FORCED // 1024} KB",
    ):
        assert said in text, said
    assert credentials.VALID.total_seconds() == 300
    assert "at most five minutes" in text


def test_nothing_is_bounded_by_nothing() -> None:
    assert all(getattr(Limits(), field.name) > 0 for field in dataclasses.fields(Limits))
    assert Limits().env_count >= len(requests.ENV_NAMES)  # a client may send each of them once
