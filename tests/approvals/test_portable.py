"""The stored form: whatever goes in comes back equal, and nothing else is read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.people import ALICE, BOB
from harness.requests import ANALYSIS, SHELL, SQL, START, draft
from interlock.approvals.desk import open_request
from interlock.approvals.digest import checked, form_digest
from interlock.approvals.model import ApprovalRequest, Proof, Vote, VoteVerdict
from interlock.approvals.portable import FormError, read_request, read_vote, request_form, vote_form
from interlock.commands.model import BindValue, Command, HeldInput, SqlContext, Unreadable
from interlock.errors import Reason


def opened(command: Command = SHELL, **changes: object) -> ApprovalRequest:
    return open_request(draft(command, **changes), request_id="req_1", nonce="00ff", match="hmac-sha256:00", now=START)


@pytest.mark.parametrize("command", [SHELL, SQL], ids=["shell", "sql"])
def test_a_request_survives(command: Command) -> None:
    request = opened(command)
    kept = read_request(request_form(request), request.digest)
    if isinstance(command.context, SqlContext):
        # The catalog is ours, not the client's, and is not kept.
        context = replace(command.context, catalog=None)
        request = replace(request, draft=replace(request.draft, command=replace(command, context=context)))
    assert kept == request


@given(
    text=st.binary(max_size=200),
    stdin=st.none() | st.binary(max_size=50),
    raws=st.lists(st.none() | st.binary(max_size=20), max_size=3),
    env=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
    session=st.text(max_size=10),
)
def test_any_bytes_survive(
    text: bytes, stdin: bytes | None, raws: list[bytes | None], env: list[tuple[str, str]], session: str
) -> None:
    command = replace(
        SHELL, text=text, stdin=None if stdin is None else HeldInput(stdin),
        binds=tuple(BindValue(raw) for raw in raws), env=tuple(env),
    )  # fmt: skip
    request = opened(command, session=session)
    assert read_request(request_form(request), request.digest) == request


def test_an_unreadable_analysis_survives() -> None:
    request = opened(analysis=replace(ANALYSIS, unreadable=Unreadable(Reason.SYNTAX_ERROR, "no", 3), sent="x"))
    assert read_request(request_form(request), request.digest) == request


def test_a_vote_survives() -> None:
    vote = Vote(BOB, "bob", "console", "bob", VoteVerdict.DENY, "sha256:00", START, proof=Proof.CHANNEL, reason="no\n", event="e")
    assert read_vote(vote_form(vote)) == vote


def mangled() -> list[tuple[str, object]]:
    plain = json.loads(request_form(opened()))

    def at(path: str, value: object) -> object:
        copy = json.loads(json.dumps(plain))
        *way, last = path.split(".")
        place = copy
        for step in way:
            place = place[step]
        if value is ...:
            del place[last]
        else:
            place[last] = value
        return copy

    return [
        ("version", at("v", 2)),
        ("version-bool", at("v", True)),
        ("no-version", at("v", ...)),
        ("unknown-field", at("request.extra", 1)),
        ("missing-field", at("request.nonce", ...)),
        ("deep-unknown", at("request.draft.terms.extra", 1)),
        ("deep-missing", at("request.draft.target.name", ...)),
        ("bool-for-int", at("request.draft.terms.quorum", True)),
        ("text-for-int", at("request.draft.terms.quorum", "1")),
        ("int-for-text", at("request.id", 1)),
        ("null", at("request.id", None)),
        ("base64", at("request.draft.command.text", "?")),
        ("enum", at("request.draft.decision.verdict", "perhaps")),
        ("kind", at("request.draft.command.context.is", "PrintContext")),
        ("time", at("request.expires", "soon")),
        ("naive-time", at("request.expires", "2026-01-02T03:04:05")),
        ("no-list", at("request.draft.terms.groups", "sre")),
        ("pair", at("request.draft.target.labels", [["env"]])),
        ("list", []),
    ]


@pytest.mark.parametrize(("name", "plain"), mangled(), ids=[name for name, _ in mangled()])
def test_a_form_that_is_not_exactly_ours_is_refused(name: str, plain: object) -> None:
    with pytest.raises(FormError):
        read_request(json.dumps(plain).encode(), "sha256:00")


@pytest.mark.parametrize("form", [b"", b"\xff", b"{", b"[" * 100_000, b'{"v":1,"v":1,"request":{}}', b'{"v":1.0}', b'{"v":NaN}'])
def test_what_is_not_json_is_refused(form: bytes) -> None:
    with pytest.raises(FormError):
        read_request(form, "sha256:00")


def test_a_changed_form_does_not_have_the_digest_any_more() -> None:
    request = opened()
    form = request_form(request)
    assert form_digest(form) == request.digest
    assert checked(form, request.digest) == form
    for place in range(0, len(form), 7):
        with pytest.raises(FormError):
            checked(form[:place] + bytes([form[place] ^ 1]) + form[place + 1 :], request.digest)


def test_no_error_repeats_what_it_met() -> None:
    plain = json.loads(request_form(opened()))
    plain["request"]["draft"]["command"]["text"] = "hunter2 is no base64"
    with pytest.raises(FormError) as caught:
        read_request(json.dumps(plain).encode(), "sha256:00")
    assert "hunter2" not in str(caught.value)
    assert ALICE in opened().excluded
