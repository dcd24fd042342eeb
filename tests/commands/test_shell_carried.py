"""Texts that programs are handed in an option or a crontab: what they would do is told, and nothing becomes known by it."""

from __future__ import annotations

import pytest

CARRIED = [
    ("tar --to-command='rm x' -xf a.tar", "option-runs-code"),
    ("tar -cf a.tar --checkpoint-action=exec='sh -c \"rm x\"' d", "option-runs-code"),
    ("tar -cf a.tar --checkpoint-action 'exec=rm x' d", "option-runs-code"),
    ("tar -I 'rm x' -cf a.tar d", "option-runs-code"),
    ("tar '-Irm x' -cf a.tar d", "option-runs-code"),
    ("tar -F 'rm x' -cf a.tar d", "option-runs-code"),
    ("git -c core.pager='rm x' log", "option-runs-code"),
    ("git -c core.sshCommand='rm x' fetch", "option-runs-code"),
    ("git -C /srv/y -c filter.f.smudge='rm x' status", "option-runs-code"),
    ("git -c alias.z='!rm x' z", "option-runs-code"),
    ("tmux new-session -d -s n 'rm x'", "foreign-shell"),
    ("tmux -L s new -dn w rm x", "interpreter-code"),
    ("tmux neww -t n 'ls; rm x'", "foreign-shell"),
    ("tmux split-window -h rm x", "interpreter-code"),
    ("screen -dmS n rm x", "interpreter-code"),
    ("sudo tar --to-command='rm x' -xf a.tar", "option-runs-code"),
]


@pytest.mark.parametrize(("text", "reason"), CARRIED)
def test_what_an_option_runs_is_told_and_stays_opaque(analyse, text: str, reason: str) -> None:
    analysis = analyse(text)
    assert [e for e in analysis.effects if (e.verb, e.object) == ("delete", "x")], [(e.verb, e.object) for e in analysis.effects]
    assert reason in {o.reason for o in analysis.opaque}
    assert analysis.sent is None


@pytest.mark.parametrize(
    "text",
    [
        "tar -cf a.tar --checkpoint-action=dot 'rm x'",
        "git -c user.name='rm x' log",
        "git -c alias.z='rm x' z",
        "tmux kill-session -t 'rm x'",
        "tmux send-keys -t n 'rm x' Enter",
        "screen -S 'rm x' -X stuff",
    ],
)
def test_what_is_no_command_is_not_told_as_one(analyse, text: str) -> None:
    analysis = analyse(text)
    assert not [e for e in analysis.effects if e.verb == "delete"]
    assert analysis.opaque


def test_a_crontab_that_is_given_is_read(analyse) -> None:
    text = "# jobs\nMAILTO=\n*/5 * * * 1-5 rm -r /srv/x\n@daily cd /srv && rm y\n"
    for analysis in (
        analyse(f"crontab - <<'E'\n{text}E"),
        analyse("crontab -", stdin=text.encode()),
        analyse(f"crontab <<'E'\n{text}E"),
    ):
        told = {(e.verb, e.object, e.via) for e in analysis.effects}
        assert {("delete", "/srv/x", ("crontab",)), ("delete", "/srv/y", ("crontab",)), ("schedule", "crontab", ())} <= told
    assert "delete" not in {e.verb for e in analyse("crontab /srv/file").effects}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("* * * * * cat $(ls)", "command-substitution"),
        ("* * * * * sh%rm x", "stdin-code"),
        ("SHELL=/srv/shell", "assignment"),
        ("PATH=/srv", "assignment"),
        ("* * * rm x", "unknown-operand"),
        ("* * * * * rm (", "nested-syntax-error"),
        ("* * * * * ls <<<x", "dialect"),
    ],
)
def test_lines_of_a_crontab_that_are_not_known(analyse, line: str, reason: str) -> None:
    analysis = analyse("crontab -", stdin=f"{line}\n".encode())
    assert reason in {o.reason for o in analysis.opaque}
    assert analysis.sent is None


def test_a_percent_sign_that_is_escaped_is_one(analyse) -> None:
    argv = [e.argv for e in analyse("crontab -", stdin=b"* * * * * date '+\\%F'\n").effects]
    assert ("date", "+%F") in argv
