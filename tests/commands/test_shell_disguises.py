"""Commands that look like reading and are more: an option, a file name or an order of words that does something else.

Each was allowed without a person once. The shipped packs decide, so a gap in the table or in a rule shows here.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from interlock.cli.asker import parse_who
from interlock.commands.model import Analysis, Command, Kind, ShellContext, Wire
from interlock.commands.shell.analysis import Asked, analyze_shell
from interlock.commands.shell.grammars import Parse, Parsed
from interlock.policy import packs
from interlock.policy.engine import PolicySet
from interlock.policy.loader import load
from interlock.policy.model import Verdict
from interlock.policy.question import EXAMPLES, decide

NOW = datetime(2026, 1, 5, 14, 0, tzinfo=UTC)
Analyse = Callable[..., Analysis]

MORE_THAN_READING = """
mount -L data
mount -U 1234
mount --label data
rpm -i x.rpm
rpm -ivh https://example.com/x.rpm
rpm -v -h -i x.rpm
curl file:///etc/%73hadow
curl 'file:///etc/shado{w,x}'
curl file://127.0.0.1/etc/shadow
curl -w '%output{/tmp/x}hi' file:///etc/hostname
diff -N /etc /tmp/empty
grep -d recurse '' /etc
grep --directories=recurse root /etc
cd /usr/bin; find env -exec cat '/srv/app/.{}' ';'
find /etc/pam.d -maxdepth 0 -exec cat '{}/../shadow' ';'
gawk '{print $1}' /inet/tcp/0/example.com/80
jq -n 'import "config" as $x {search:"/root/.docker"}; $x'
jq -n 'include "x" {search:"/tmp"}; .'
cd /etc; POSIXLY_CORRECT=1 head hostname -n shadow
POSIXLY_CORRECT=1 uniq /srv/in -z
env POSIXLY_CORRECT=1 head hostname -n shadow
for i in a b; do cat shadow; cd /etc; done
while true; do cat shadow; cd /etc; done
sh -c 'for i in a b; do cat shadow; cd /etc; done'
if true; then for i in a b; do { cat shadow; cd /etc; }; done; fi
cat etc/shadow
cat /dev/disk/by-uuid/x
cat /dev/mmcblk0
cat /dev/md0
cat /dev/input/event0
cat /dev/vcs1
cat /var/backups/shadow.bak
cat terraform.tfstate
cat /etc/rancher/k3s/k3s.yaml
cat /etc/mysql/debian.cnf
cat .git/config
docker top web axe
kubectl get -k github.com/example/x
kubectl get -f http://example.com/x
ps -e -o environ
printf '%d' 'a[$(touch /tmp/x)]'
printf '%s %i' x 'a[$(touch /tmp/x)]'
printf '%*s' 'a[$(touch /tmp/x)]' x
exit 'a[$(touch /tmp/x)]'
test -t 'a[$(touch /tmp/x)]'
[ -t 'a[$(touch /tmp/x)]' ]
""".strip().splitlines()

ONLY_READING = """
rpm -qa
rpm -qi bash
mount
mount -l -t nfs
diff /srv/a /srv/b
grep -r x /var/log
find /var/log -name '*.log' -exec tail -n 1 '{}' ';'
jq .import /srv/app/x.json
for i in a b; do cat /etc/hostname; done
cd /srv/app && ls -la
docker top web
kubectl get pods
printf '%s\\n' 'a[0]'
printf '%d%%' 5
exit 1
[ -t 1 ]
""".strip().splitlines()


@lru_cache
def policy() -> PolicySet:
    return load([packs.shipped()])


def verdict(text: str, analysis: Analysis) -> Verdict:
    command = Command(Wire.SSH, Kind.EXEC, text.encode(), context=ShellContext("bash"))
    return decide(policy(), parse_who("agent"), EXAMPLES["ssh"], command, analysis, NOW).verdict


@pytest.mark.parametrize("text", MORE_THAN_READING)
def test_what_only_looks_like_reading_goes_to_a_person(text: str, analyse: Analyse) -> None:
    assert verdict(text, analyse(text)) is Verdict.REVIEW


@pytest.mark.parametrize("text", ONLY_READING)
def test_reading_still_passes(text: str, analyse: Analyse) -> None:
    assert verdict(text, analyse(text)) is Verdict.ALLOW


def test_a_text_that_bash_reads_otherwise_is_opaque(grammars: Any) -> None:
    """The two grammars are made to disagree: bash's reading of `ls` is that of another command."""

    def parse(request: Parse) -> Parsed:
        other = grammars.parse(Parse(b"ls; touch /tmp/x"))
        return replace(grammars.parse(request), printed_tree=other.printed_tree, printed=other.printed)

    asking = analyze_shell(Asked(b"ls", ShellContext("bash")), grammars.rules)
    try:
        request = next(asking)
        while True:
            request = asking.send(parse(request))
    except StopIteration as done:
        analysis: Analysis = done.value
    assert [o.reason for o in analysis.opaque] == ["grammars-disagree"]
    assert analysis.sent is None


@pytest.mark.parametrize("word", ["'$(touch made)'", "'`touch made`'", "'$x'2", "'~/x'", "'*'", "'a b'", "'{a,b}'", "~/x", "o5-"])
def test_what_bash_expands_a_second_time_behind_a_doubled_redirection_is_not_taken_by_its_quotes(
    analyse: Analyse, tmp_path: Path, word: str
) -> None:
    for text in (f"echo hi >&{word}", f"echo hi 1>& {word}", f"{{ uptime; }} >&{word}"):
        analysis = analyse(text)
        assert "redirection" in {hidden.reason for hidden in analysis.opaque}, text
        assert analysis.sent is None
    if "touch" in word:  # the truth: what stands in quotes runs
        subprocess.run(["bash", "-c", f"echo hi >&{word}"], cwd=tmp_path, check=False, capture_output=True)
        assert (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["echo hi >& log.txt", "echo hi >&'log.txt'", "ls >&2", "ls >&-", "echo hi &>'$(touch made)'"])
def test_what_is_expanded_once_is_known(analyse: Analyse, text: str) -> None:
    assert analyse(text).static, text


def test_a_word_is_never_sent_as_the_script_of_another_that_is_gone(analyse: Analyse) -> None:
    text = "ash -ec 'dash -c '\\''echo'\\'' n' n # it's\nsh -c -- 'cat if % <>o8 ='"
    for _ in range(20):
        sent = analyse(text).sent
        assert sent is not None
        inner = shlex.split(sent.splitlines()[1])[-1]
        assert shlex.split(inner)[:4] == ["cat", "if", "%", "="]
