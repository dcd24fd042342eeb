"""The request table, the environment rule and the names: pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.ssh import address, requests
from interlock.ssh.requests import TABLE, Scope, Told, accepted_env, find, stated_reason, unoffered


def test_whatever_is_not_listed_is_refused() -> None:
    for scope in Scope:
        assert find(scope, "no-such-request@example.com").refused
        assert find(scope, "*").refused


def test_only_these_are_handled() -> None:
    handled = {(row.scope, row.name) for row in TABLE if not row.refused}
    assert handled == {
        (Scope.GLOBAL, "keepalive@openssh.com"), (Scope.GLOBAL, "no-more-sessions@openssh.com"),
        (Scope.OPEN, "session"), (Scope.OPEN, "direct-tcpip"), (Scope.SESSION, "exec"), (Scope.SESSION, "env"),
        (Scope.SESSION, "signal"), (Scope.SESSION, "eow@openssh.com"), (Scope.SESSION, "keepalive@openssh.com"),
        (Scope.SESSION, "subsystem:sftp"), (Scope.SESSION, "shell"),
    }  # fmt: skip


def test_every_row_has_a_sentence() -> None:
    assert all(row.sentence for row in TABLE)
    assert len({(row.scope, row.name) for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("value", ["C", "POSIX", "C.UTF-8", "C.utf8", "en_US.UTF-8", "de_AT.utf8", "sr_RS.UTF-8"])
def test_utf8_locales_pass(value: str) -> None:
    assert accepted_env(b"LC_ALL", value.encode()) == ("LC_ALL", value)


@pytest.mark.parametrize(
    "value",
    ["", "en_US", "zh_CN.GBK", "ja_JP.SJIS", "en_US.UTF-8\n", "../x.UTF-8", "/tmp/x.UTF-8", "en_US.UTF-8@x", "C.UTF-16",
     "en_US.utf-8x", "x" * 99 + ".UTF-8", "\x00.UTF-8"],
)  # fmt: skip
def test_other_locales_do_not(value: str) -> None:
    assert accepted_env(b"LC_ALL", value.encode()) is None


@pytest.mark.parametrize(
    "name", [b"PATH", b"LD_PRELOAD", b"BASH_ENV", b"LC_EVIL", b"LANGUAGE", b"TERM", b"COLORTERMS", b"lc_all", b""]
)
def test_other_variables_do_not(name: bytes) -> None:
    assert accepted_env(name, b"C") is None


def test_how_many_colors_a_terminal_has_passes_as_one_plain_word() -> None:
    assert accepted_env(b"COLORTERM", b"truecolor") == ("COLORTERM", "truecolor")
    for value in (b"", b"a b", b"$(id)", b"x" * 17, b"true\ncolor", b"\xff"):
        assert accepted_env(b"COLORTERM", value) is None


def test_the_reason_is_read_and_is_not_a_variable_that_passes() -> None:
    assert stated_reason(b"INTERLOCK_REASON", b"disk \xff full") == "disk \ufffd full"
    assert len(stated_reason(b"INTERLOCK_REASON", b"x" * 100_000) or "") == requests.MAX_REASON
    assert stated_reason(b"LANG", b"C") is None
    assert accepted_env(b"INTERLOCK_REASON", b"C") is None


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_no_variable_that_passes_holds_anything_but_a_plain_locale(name: bytes, value: bytes) -> None:
    accepted = accepted_env(name, value)
    if accepted is not None:
        assert accepted[0] in {*requests.ENV_NAMES, "COLORTERM"}
        assert accepted[1].replace("_", "").replace(".", "").replace("-", "").isalnum()


@given(st.binary(max_size=200))
def test_a_name_that_is_recorded_is_printable_and_short(name: bytes) -> None:
    shown = requests.shown_name(name)
    assert len(shown) <= 64
    assert all(0x21 <= ord(c) < 0x7F for c in shown)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        (b"mosh-server new", "exec:mosh"), (b"/usr/bin/mosh-server new -s -c 256", "exec:mosh"),
        (b"/usr/lib/openssh/sftp-server", "exec:sftp-server"), (b" internal-sftp", "exec:sftp-server"),
    ],
)  # fmt: skip
def test_servers_that_are_not_offered_are_recognised(text: bytes, row: str) -> None:
    found = unoffered(text)
    assert found is not None
    assert (found.name, found.told) == (row, Told.EXIT)


@pytest.mark.parametrize(
    "text", [b"scp a b:", b"scpx -t", b"rsync -a a b", b"git status", b"git log", b"echo mosh-server", b"scp -t /tmp/x", b"ls"]
)
def test_ordinary_commands_are_not(text: bytes) -> None:
    assert unoffered(text) is None


def test_user_names_split_at_the_right_most_at() -> None:
    assert address.parse("web-1") == address.Address("web-1")
    assert address.parse("deploy@web-1") == address.Address("web-1", "deploy")


@pytest.mark.parametrize(
    "name", ["", "@", "a@", "@web-1", "a b@web-1", "a,root@web-1", "a@b@web-1", "Web", "web-1\n", "a\n@web-1", "-x@web-1"]
)
def test_names_that_could_not_be_configured_are_no_address(name: str) -> None:
    assert address.parse(name) is None


@given(st.text(max_size=40))
def test_an_account_that_parses_is_safe_as_a_certificate_principal(name: str) -> None:
    found = address.parse(f"{name}@web-1")
    if found is not None:
        assert not set(found.account) & set(", \t\n@:/\\\0")
        assert found.account.isascii()
