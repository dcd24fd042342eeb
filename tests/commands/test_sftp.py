"""File operations as text: one form each, read back exactly, with the effects of the program that does the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.commands.model import Stdin
from interlock.commands.programs.loader import programs, sensitive_paths
from interlock.commands.programs.rules import Rules
from interlock.commands.sftp import FileOperation, analyze_sftp, parse
from interlock.errors import Reason

RULES = Rules(programs(), sensitive_paths())
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
VERBS = st.sampled_from("get put append ls stat lstat readlink realpath statvfs rm rmdir mkdir setstat lsetstat".split())
OPTIONS = st.fixed_dictionaries(
    {}, optional={"create": st.just("yes"), "mode": st.just("4755"), "owner": st.just("0:0"), "resolved": PATHS}
)


def effects(text: str) -> set[tuple[str, str, str]]:
    analysis = analyze_sftp(text.encode(), RULES)
    assert analysis.static, (text, analysis)
    assert analysis.sent == text
    return {(effect.verb, effect.object, effect.detail) for effect in analysis.effects}


@given(VERBS, PATHS, OPTIONS)
def test_an_operation_is_read_back_as_itself(verb: str, path: str, options: dict[str, str]) -> None:
    operation = FileOperation(verb, (path,)).with_options(**options)
    assert parse(operation.text.decode()) == operation


@given(st.text(max_size=60))
def test_a_text_is_either_the_one_form_of_an_operation_or_nothing(text: str) -> None:
    for candidate in (text, f"sftp {text}", f"sftp get {text}"):
        operation = parse(candidate)
        assert operation is None or operation.text.decode() == candidate
        analyze_sftp(candidate.encode(), RULES)  # never raises


@pytest.mark.parametrize(
    "text",
    [
        "sftp get", "sftp get a b", "sftp  get a", "sftp get 'a'", "sftp get a create=yes create=yes",
        "sftp get a mode=1 create=yes", "sftp fetch a", "get a", "sftp get a unknown=1", "sftp rename a", "sftp get a; rm b",
        "sftp put a mode=zz", "sftp put a mode=", "sftp put a create=no", "sftp setstat a size=-1", "sftp setstat a owner=root:0",
    ],
)  # fmt: skip
def test_any_other_text_is_refused(text: str) -> None:
    analysis = analyze_sftp(text.encode(), RULES)
    assert analysis.unreadable is not None
    assert analysis.unreadable.reason is Reason.SYNTAX_ERROR


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sftp get /var/log/app.log", ("read", "/var/log/app.log", "")),
        ("sftp get /etc/shadow", ("secret", "/etc/shadow", "")),
        ("sftp put /etc/cron.d/x create=yes truncate=yes mode=0644", ("schedule", "/etc/cron.d/x", "cron")),
        ("sftp append .ssh/authorized_keys", ("identity", ".ssh/authorized_keys", "keys")),
        ("sftp put /tmp/x read=yes", ("read", "/tmp/x", "")),
        ("sftp put /tmp/x create=yes mode=4755", ("privilege", "/tmp/x", "set-id")),
        ("sftp setstat /tmp/x mode=4755", ("privilege", "/tmp/x", "set-id")),
        ("sftp setstat /tmp/x owner=0:0 size=0", ("write", "/tmp/x", "truncate")),
        ("sftp rm /srv/data", ("delete", "/srv/data", "")),
        ("sftp rename /srv/a /etc/b replace=yes", ("delete", "/srv/a", "moved")),
        ("sftp symlink /etc/shadow /tmp/x", ("secret", "/etc/shadow", "")),
        ("sftp hardlink /etc/shadow /tmp/x", ("secret", "/etc/shadow", "")),
        ("sftp ls /root", ("read", "/root", "metadata")),
        ("sftp get /tmp/x resolved=/etc/shadow", ("secret", "/etc/shadow", "")),
        ("sftp rename /tmp/a /tmp/b resolved-to=/etc/cron.d/b", ("schedule", "/etc/cron.d/b", "cron")),
    ],
)
def test_effects_are_those_of_the_program_that_does_the_same(text: str, found: tuple[str, str, str]) -> None:
    assert found in effects(text)


def test_what_a_path_leads_to_adds_to_the_path_and_never_replaces_it() -> None:
    both = effects("sftp get /etc/shadow resolved=/tmp/harmless")
    assert ("secret", "/etc/shadow", "") in both
    assert ("read", "/tmp/harmless", "") in both


@pytest.mark.parametrize("path", ["/tmp/a\u202eb", "/tmp/\x1b[2K", "/tmp/a\u200bb", "/tmp/\x7f", "/tmp/\ue000"])
def test_a_path_that_would_deceive_is_refused(path: str) -> None:
    analysis = analyze_sftp(FileOperation("get", (path,)).text, RULES)
    assert analysis.unreadable is not None
    assert analysis.unreadable.reason is Reason.DECEPTIVE_TEXT


def test_a_path_that_is_no_text_or_too_long_is_refused() -> None:
    broken = FileOperation("get", (b"/tmp/\xff".decode("utf-8", "surrogateescape"),))
    assert (found := analyze_sftp(broken.text, RULES).unreadable) is not None and found.reason is Reason.NOT_UTF8
    long = FileOperation("get", ("/" + "a" * 4096,))
    assert (found := analyze_sftp(long.text, RULES).unreadable) is not None and found.reason is Reason.TOO_LARGE


def test_an_upload_has_content_that_a_reviewer_must_see() -> None:
    assert analyze_sftp(b"sftp put /tmp/x create=yes", RULES).stdin is Stdin.DATA
    assert analyze_sftp(b"sftp rm /tmp/x", RULES).stdin is Stdin.IGNORED
