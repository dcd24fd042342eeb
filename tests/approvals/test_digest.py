"""The two hashes: one byte changed anywhere is another match or another digest (property 9)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.people import BOB, CAROL, agent
from harness.requests import SHELL, SQL, START, draft
from interlock.approvals.desk import open_request
from interlock.approvals.digest import match, request_digest
from interlock.approvals.model import ApprovalRequest, Presence, RequestDraft, State, Vote, VoteVerdict
from interlock.approvals.portable import request_form
from interlock.commands.model import BindValue, Command, HeldInput, Kind, ShellContext, Wire
from interlock.identity.principal import Credential, CredentialKind, Identity
from interlock.identity.principal import Kind as Who

KEY = b"k" * 32


def context(command: Command, **changes: Any) -> Command:
    return replace(command, context=replace(command.context, **changes))


def bind(**changes: Any) -> tuple[BindValue, ...]:
    return (replace(SQL.binds[0], **changes), SQL.binds[1])


def who(**changes: Any) -> RequestDraft:
    return draft(principal=replace(agent(acting_for=(BOB,)), **changes))


def where(**changes: Any) -> RequestDraft:
    return draft(target=replace(draft().target, **changes))


EXECUTE = context(replace(SQL, text=b"eXecute p"), prepared={"p": "SELECT 1"})

OTHERS: dict[str, tuple[RequestDraft, RequestDraft]] = {
    "text": (draft(SHELL), draft(replace(SHELL, text=SHELL.text + b" "))),
    "text-bit": (draft(SHELL), draft(replace(SHELL, text=SHELL.text[:-1] + b"h"))),
    "text-not-utf8": (draft(replace(SHELL, text=b"\xff")), draft(replace(SHELL, text=b"\xfe"))),
    "wire": (draft(SHELL), draft(replace(SHELL, wire=Wire.POSTGRES))),
    "kind": (draft(SQL), draft(replace(SQL, kind=Kind.QUERY))),
    "stdin": (draft(SHELL), draft(replace(SHELL, stdin=HeldInput(b"no\n")))),
    "stdin-none": (draft(replace(SHELL, stdin=None)), draft(replace(SHELL, stdin=HeldInput(b"")))),
    "bind-value": (draft(SQL), draft(replace(SQL, binds=bind(raw=b"\x00\x00\x00\x08")))),
    "bind-null": (draft(replace(SQL, binds=bind(raw=b""))), draft(replace(SQL, binds=bind(raw=None)))),
    "bind-format": (draft(SQL), draft(replace(SQL, binds=bind(format=0)))),
    "bind-type": (draft(SQL), draft(replace(SQL, binds=bind(type_oid=20)))),
    "bind-order": (draft(SQL), draft(replace(SQL, binds=SQL.binds[::-1]))),
    "bind-count": (draft(SQL), draft(replace(SQL, binds=SQL.binds[:1]))),
    "env-value": (draft(SHELL), draft(replace(SHELL, env=(("LANG", "C"),)))),
    "env-more": (draft(SHELL), draft(replace(SHELL, env=(*SHELL.env, ("LC_ALL", "C"))))),
    "env-shifted": (draft(replace(SHELL, env=(("A", "BC"),))), draft(replace(SHELL, env=(("AB", "C"),)))),
    "cwd": (draft(SHELL), draft(replace(SHELL, cwd="/tmp"))),
    "pty": (draft(SHELL), draft(replace(SHELL, pty=True))),
    "settings": (draft(SQL), draft(replace(SQL, settings=(("standard_conforming_strings", "off"),)))),
    "shell": (draft(SHELL), draft(context(SHELL, shell="posix"))),
    "locale": (draft(SHELL), draft(context(SHELL, utf8_locale=False))),
    "search-path": (draft(SQL), draft(context(SQL, search_path=("evil", "public")))),
    "tainted": (draft(SQL), draft(context(SQL, tainted=True))),
    "prepared": (draft(EXECUTE), draft(context(EXECUTE, prepared={"p": "DROP TABLE t"}))),
    "cursor": (
        draft(replace(SQL, text=b"FETCH c")),
        draft(context(replace(SQL, text=b"FETCH c"), cursors={"c": "SELECT secret"})),
    ),
    "issuer": (who(), who(identity=Identity("idp", "claude-ci"))),
    "subject": (who(), who(identity=Identity("local", "claude"))),
    "identity-shifted": (who(identity=Identity("a:b", "c")), who(identity=Identity("a", "b:c"))),
    "principal-kind": (who(), who(kind=Who.SERVICE)),
    "owner": (who(), who(owner=CAROL)),
    "no-owner": (who(), who(owner=None)),
    "chain": (who(), who(acting_for=(CAROL,))),
    "chain-longer": (who(), who(acting_for=(BOB, CAROL))),
    "chain-order": (who(acting_for=(BOB, CAROL)), who(acting_for=(CAROL, BOB))),
    "target": (where(), where(name="web-2")),
    "protocol": (where(), where(protocol="postgres")),
    "account": (where(), where(account="root")),
    "role": (where(), where(role="app_rw")),
    "database": (where(), where(database="orders")),
    "account-is-not-role": (where(account="x", role=""), where(account="", role="x")),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_change_of_what_would_run_is_another_match(name: str) -> None:
    one, other = OTHERS[name]
    assert match(one, KEY) != match(other, KEY)


def test_every_field_of_a_command_is_covered() -> None:
    covered = {"text", "wire", "kind", "stdin", "binds", "env", "cwd", "pty", "settings", "context"}
    assert {field.name for field in dataclasses.fields(Command)} == covered


SAME = {
    "session": draft(session="another"),
    "client": draft(client="198.51.100.1"),
    "credential": who(credential=Credential(CredentialKind.TOKEN, "fresh"), acting_for=()),
    "groups": who(groups=frozenset(("agents", "more")), acting_for=()),
    "labels": where(labels={"env": "test"}),
    "analysis": draft(analysis=replace(draft().analysis, parser="shfmt 3.13")),
    "policy": draft(decision=replace(draft().decision, policy="sha256:other")),
}


@pytest.mark.parametrize("name", SAME)
def test_a_re_run_in_another_session_has_the_same_match(name: str) -> None:
    assert match(SAME[name], KEY) == match(draft(), KEY)


def test_names_that_the_text_can_not_mean_do_not_disturb_a_re_run() -> None:
    assert match(draft(SQL), KEY) == match(draft(context(SQL, prepared={"q": "SELECT 9"}, catalog=object())), KEY)


def test_a_match_is_keyed_and_says_so() -> None:
    assert match(draft(), KEY) != match(draft(), b"l" * 32)
    assert match(draft(), KEY).startswith("hmac-sha256:")


PARTS = st.tuples(
    st.binary(max_size=6), st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=3), st.text(max_size=4)
)


@given(PARTS, PARTS)
def test_equal_things_and_only_they_have_equal_matches(one: Any, other: Any) -> None:
    def asked(parts: Any) -> RequestDraft:
        text, env, cwd = parts
        return draft(replace(SHELL, text=text, env=tuple(env), cwd=cwd))

    assert (match(asked(one), KEY) == match(asked(other), KEY)) == (one == other)


# -- the digest -------------------------------------------------------------------------------------------------------


def opened(**changes: Any) -> ApprovalRequest:
    request = open_request(draft(), request_id="req_1", nonce="00", match="hmac-sha256:00", now=START)
    return replace(request, **changes)


def fields_left_out(value: Any, plain: Any, path: str = "draft") -> Iterator[str]:
    """Name every field of every dataclass inside that the form does not carry."""
    if dataclasses.is_dataclass(value):
        inner = plain["value"] if set(plain) == {"is", "value"} else plain
        for field in dataclasses.fields(value):
            if field.name not in inner:
                yield f"{path}.{field.name}"
            else:
                yield from fields_left_out(getattr(value, field.name), inner[field.name], f"{path}.{field.name}")
    elif isinstance(value, tuple):
        for item, shown in zip(value, plain, strict=True):
            yield from fields_left_out(item, shown, path)


@pytest.mark.parametrize(("command", "left_out"), [(SHELL, []), (SQL, ["draft.command.context.catalog"])], ids=["shell", "sql"])
def test_everything_that_is_shown_is_in_the_digest(command: Command, left_out: list[str]) -> None:
    # The form comes back whole (test_portable.py), so what is in it can't change without changing the digest.
    request = opened(draft=draft(command))
    form = json.loads(request_form(request))
    assert list(fields_left_out(request.draft, form["request"]["draft"])) == left_out
    never = {"digest", "state", "presence", "votes", "decided_at", "valid_until", "successor", "escalated_at"}
    assert {field.name for field in dataclasses.fields(request)} == {*form["request"], *never}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "req_2"}, {"nonce": "01"}, {"match": "hmac-sha256:01"}, {"excluded": frozenset((BOB,))},
        {"created": START + timedelta(microseconds=1)}, {"expires": START + timedelta(hours=1)},
        {"grant": "grt_1"}, {"edited_from": "req_0"}, {"author": BOB},
    ],
    ids=str,
)  # fmt: skip
def test_the_request_itself_is_in_the_digest(changes: dict[str, Any]) -> None:
    assert request_digest(opened(**changes)) != opened().digest


def test_state_and_votes_are_not_in_the_digest() -> None:
    vote = Vote(BOB, "bob", "cli", "bob", VoteVerdict.DENY, opened().digest, START)
    later = opened(state=State.DENIED, presence=Presence.RETURNED, votes=(vote,), decided_at=START, valid_until=START)
    assert request_digest(later) == opened().digest


def test_context_kinds_are_told_apart() -> None:
    assert match(draft(replace(SHELL, context=ShellContext())), KEY) != match(draft(replace(SHELL, context=SQL.context)), KEY)
