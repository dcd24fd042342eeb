"""What a session's own statements change about how its next text is read."""

from __future__ import annotations

import pytest

from interlock.commands.model import NameAction
from interlock.postgres.reading import array
from interlock.postgres.statements import SessionNames
from interlock.postgres.wire.names import OUTSIDE


def names() -> SessionNames:
    return SessionNames(("public", "pg_temp"), lambda: None)


def apply(session: SessionNames, *actions: NameAction, idle: bool = True, succeed: bool = True) -> None:
    for change in session.apply(actions, text=b"", release=1, stretch=OUTSIDE, idle=idle):
        change.settle() if succeed else change.undo()


SET = NameAction("set", "search_path", "evil")
TEMP = NameAction("temp-ddl", "orders")
RESET = NameAction("reset", "")
DISCARD = NameAction("discard", "all")


@pytest.mark.parametrize("action", [SET, TEMP])
def test_unqualified_names_are_not_trusted_after(action: NameAction) -> None:
    session = names()
    apply(session, action, succeed=False)  # it may have worked: the taint does not wait for the answer
    assert session.context().tainted


@pytest.mark.parametrize(
    ("taint", "undo", "idle", "trusted"),
    [
        (SET, RESET, True, True),
        (SET, RESET, False, False),  # a ROLLBACK could take the RESET back
        (TEMP, RESET, True, False),
        (TEMP, DISCARD, True, True),
        (SET, NameAction("discard", "temp"), True, False),
    ],
)
def test_trust_comes_back_only_by_an_undo_that_lasts(taint: NameAction, undo: NameAction, idle: bool, trusted: bool) -> None:
    session = names()
    apply(session, taint)
    apply(session, undo, idle=idle)
    assert session.context().tainted is not trusted


def test_an_undo_followed_by_a_taint_in_one_string_or_behind_it_in_flight() -> None:
    session = names()
    apply(session, RESET, SET)
    assert session.context().tainted
    session = names()
    pending = session.apply([RESET], text=b"", release=1, stretch=OUTSIDE, idle=True)
    apply(session, SET, idle=False)
    for change in pending:
        change.settle()
    assert session.context().tainted


def test_a_reset_inside_a_transaction_of_its_own_string_is_not_believed() -> None:
    session = names()
    apply(session, SET)
    apply(session, NameAction("begin"), RESET, NameAction("rollback"))
    assert session.context().tainted


def test_prepare_and_deallocate_change_the_context() -> None:
    session = names()
    before = session.context()
    assert session.context() is before
    apply(session, NameAction("prepare", "a", "PREPARE a AS SELECT 1"))
    assert session.context().prepared == {"a": "PREPARE a AS SELECT 1"}
    apply(session, NameAction("deallocate", ""))
    assert session.context().prepared == {}


@pytest.mark.parametrize(
    ("text", "values"),
    [("{}", []), ("{a,b}", ["a", "b"]), ('{"a,b","c\\"d",NULL,"NULL"}', ["a,b", 'c"d', "NULL"]), ('{""}', [""])],
)
def test_arrays_in_text_form(text: str, values: list[str]) -> None:
    assert array(text) == values
