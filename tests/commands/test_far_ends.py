"""What the far ends of scp, rsync and git say of themselves, and what a push does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.commands.model import Analysis, Stdin
from interlock.commands.programs.loader import programs, sensitive_paths
from interlock.commands.programs.rules import Rules
from interlock.commands.pushes import Push, RefChange, analyze_push, is_ref, parse

Analyse = Callable[..., Analysis]

RULES = Rules(programs(), sensitive_paths())
A, B, NOTHING = "a" * 40, "b" * 40, "0" * 40


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("scp -t /srv/x", {("write", "/srv/x", False)}),
        ("scp -v -r -p -d -t -- /srv/x", {("write", "/srv/x", True)}),
        ("scp -qrf '/srv/a b' /srv/c", {("read", "/srv/a b", True), ("read", "/srv/c", True)}),
        ("rsync --server -vlogDtpre.iLsfxCIvu . /srv/app/", {("write", "/srv/app", True)}),
        ("rsync --server -e.LsfxCIvu . /srv/x", {("write", "/srv/x", True)}),
        ("rsync --server -logDtpre.iLsfxCIvu --delete --force . /srv/x", {("write", "/srv/x", True), ("delete", "/srv/x", True)}),
        ("rsync --server --sender -logDtpre.iLsfxCIvu . /srv/a /srv/b", {("read", "/srv/a", True), ("read", "/srv/b", True)}),
        ("rsync --server --sender -e.L --remove-source-files . /s/a", {("read", "/s/a", False), ("delete", "/s/a", False)}),
        ("rsync --server -re.L --backup-dir=/srv/old . /srv/x", {("write", "/srv/old", True), ("write", "/srv/x", True)}),
        ("rsync --server -re.LsfxCIvu --link-dest /srv/last . /srv/x", {("read", "/srv/last", True), ("write", "/srv/x", True)}),
        ("git-upload-pack '/srv/x.git'", {("read", "/srv/x.git", True)}),
        ("git upload-pack --strict --timeout=5 /srv/x.git", {("read", "/srv/x.git", True)}),
        ("git-upload-pack '/srv/x'", {("read", "/srv/x", True), ("read", "/srv/x.git", True)}),
        ("git-receive-pack '~/x.git'", {("read", "x.git", True)}),
        ("git-upload-archive '/srv/x.git'", {("interpret", "git", True), ("read", "/srv/x.git", True)}),
    ],
)  # fmt: skip
def test_a_known_form_is_static_and_speaks_its_protocol(analyse: Analyse, text: str, effects: set[tuple[str, str, bool]]) -> None:
    found = analyse(text)
    assert found.opaque == ()
    assert found.stdin is Stdin.PROTOCOL
    assert {(e.verb, e.object, e.recursive or e.verb == "interpret") for e in found.effects} == effects


@pytest.mark.parametrize(
    "text",
    [
        "scp -t", "scp -t a b", "scp -t -f a", "scp -S prog -t x", "scp -t $x", "scp -o ProxyCommand=x -t y",
        "rsync --server", "rsync --server . ", "rsync --server --daemon .", "rsync --server -e sh . /srv/x",
        "rsync --server -ltpre.iLsfxCIvu --log-file=/x . /srv/x", "rsync --server -ltprse.iLsfxCIvu . ",
        "rsync --server -re.L --write-devices . /srv/x", "rsync --server -re.L . /srv/x /srv/y", "rsync --server -re.L /srv/x",
        "rsync -re.L --server . /srv/x", "rsync --server -re.L --files-from=/x . /srv", "rsync --server -re.L . /",
        "rsync --server -re.L . .", "rsync --server -re.L --copy-as=root . /srv/x", "rsync --server -re.iLs -M--x . /srv/x",
        "git-upload-pack", "git-upload-pack --advertise-refs /x", "git-receive-pack /a /b", "git-receive-pack '~bob/x.git'",
        "git -c core.hooksPath=x receive-pack /x.git", "git --exec-path=/x upload-pack /x.git", "git-receive-pack --x /x.git",
        "nice scp -t /srv/x", "cd /srv; scp -t x", "scp -t /srv/x; ls", "ls | scp -t /srv/x", "scp -t /srv/x < y",
        "scp -t /srv/x > y", "X=1 scp -t /srv/x", "sh -c 'scp -t /srv/x'", "sudo rsync --server -re.L . /srv/x",
        "git-receive-pack /x.git &", "/opt/scp -t /srv/x", "cd /srv && git-receive-pack '~/x.git'",
    ],
)  # fmt: skip
def test_any_other_form_is_opaque(analyse: Analyse, text: str) -> None:
    found = analyse(text)
    assert found.opaque
    assert found.sent is None


def test_what_is_put_into_a_home_is_more_than_a_file(analyse: Analyse) -> None:
    for text in ("scp -t .", "scp -r -t /home/deploy", "rsync --server -re.L . /root", "scp -t .ssh"):
        found = analyse(text)
        assert {e.verb for e in found.effects} & {"interpret", "identity"}, text
    found = analyse("scp -r -f /root")
    assert "secret" in {e.verb for e in found.effects}


@pytest.mark.parametrize(
    ("text", "static"),
    [
        ('mkdir -p "` echo /srv/x `"', True), ('mkdir "$(echo /srv/x)"', True), ('mkdir "$(echo -n /srv/x)"', False),
        ('mkdir "$(echo /srv/*)"', False), ("mkdir $(echo /srv/x)", False), ('mkdir "$(echo /srv/x; rm y)"', False),
        ('mkdir "$(echo /srv/x >y)"', False), ('mkdir "$(A=1 echo /srv/x)"', False), ('mkdir "$(! echo /srv/x)"', False),
        ('mkdir "$(echo /srv/x &)"', False), ('mkdir "$(echo ~/x)"', False), ('mkdir "`echo /srv/\\\\x`"', False),
        ('mkdir "$(printf /srv/x)"', False), ('mkdir "$(echo /srv/x y)"', False),
        ('echo() { rm y; }; mkdir "$(echo /srv/x)"', False),
    ],
)  # fmt: skip
def test_an_echo_of_one_plain_word_is_that_word(analyse: Analyse, text: str, static: bool) -> None:
    found = analyse(text)
    assert found.static is static
    if static:
        assert found.sent in ("'mkdir' '-p' '/srv/x'", "'mkdir' '/srv/x'")


MAKES = (
    """/bin/sh -c '( umask 77 && mkdir -p "` echo /tmp/.a `"&& mkdir "` echo /tmp/.a/t-1-2 `" && """
    """echo t-1-2="` echo /tmp/.a/t-1-2 `" ) && sleep 0'"""
)


@pytest.mark.parametrize(
    "text",
    [
        MAKES,
        "/bin/sh -c 'chmod u+rwx /tmp/.a/t-1-2/ /tmp/.a/t-1-2/AnsiballZ_copy.py && sleep 0'",
        "/bin/sh -c 'rm -f -r /tmp/.a/t-1-2/ > /dev/null 2>&1 && sleep 0'",
    ],
)
def test_what_ansible_writes_itself_is_known_to_the_end(analyse: Analyse, text: str) -> None:
    """Its commands as ansible-core 2.19 writes them. It leaves their input open, so none may need its end."""
    found = analyse(text)
    assert found.static
    assert found.stdin is Stdin.IGNORED


# -- pushes ------------------------------------------------------------------------------------------------------------

PUSH = Push("/srv/a b.git", (RefChange("refs/heads/main", A, B), RefChange("refs/tags/v1", NOTHING, B)), options=("x y",))


def test_a_push_reads_back_to_itself_and_says_what_it_changes() -> None:
    text = PUSH.text.decode()
    assert text == f"git-push '/srv/a b.git' update=refs/heads/main:{A}..{B} create=refs/tags/v1:{B} 'option=x y'"
    assert parse(text) == PUSH
    found = analyze_push(PUSH.text, RULES)
    assert found.sent == text
    assert [(e.verb, e.object, e.detail, e.force) for e in found.effects] == [
        ("write", "/srv/a b.git", "repository", False), ("write", "refs/heads/main", "ref-update", True),
        ("write", "refs/tags/v1", "ref-create", False), ("interpret", "x y", "push-option", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "git-push /x", "git-push", f"git-push /x update=HEAD:{A}..{B}", f"git-push /x create=refs/heads/a..b:{A}",
        f"git-push /x create=refs/heads/x:{A}..{B}", f"git-push /x update=refs/heads/x:{A}",
        f"git-push  /x create=refs/heads/x:{A}",
        f"git-push /x create=refs/heads/x:{A} atomic=no", f"git-push /x option=y create=refs/heads/x:{A}",
        f"git-push /x update=refs/heads/x:{A}..{A}", f"git-push /x create=refs/heads/x:{NOTHING}",
        f"git-push /x rewrite=refs/x/y:{A}",
        f"git-push /x create=refs/heads/\u202ex:{A}", "git-push '",
    ],
)  # fmt: skip
def test_any_other_text_is_no_push(text: str) -> None:
    assert analyze_push(text.encode(), RULES).unreadable is not None


def test_letters_of_other_scripts_in_a_ref_are_never_let_through_unseen() -> None:
    found = analyze_push(Push("/srv/x.git", (RefChange("refs/heads/m\u0430in", NOTHING, A),)).text, RULES)
    assert [one.reason for one in found.opaque] == ["look-alike"]
    assert found.sent is None


@given(st.text(max_size=60))
def test_no_text_makes_it_raise_and_what_reads_back_is_in_its_one_form(text: str) -> None:
    found = parse(f"git-push {text}")
    if found is not None:
        assert found.text.decode("utf-8", "surrogateescape") == f"git-push {text}"
    analyze_push(text.encode("utf-8", "surrogatepass"), RULES)
    if is_ref(text):
        assert not set(text) & set(" ~^:?*[\\\n\t\x7f")
