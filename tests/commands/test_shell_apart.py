"""Wrappers that run a command as somebody else, apart, recorded or again and again: told exactly, or opaque."""

from __future__ import annotations

import pytest

from interlock.commands.model import Stdin, Wire
from interlock.commands.wording import sentences

SEEN_THROUGH = [
    # text, wrappers around `rm`
    ("runuser -u bob -- rm x", ("runuser",)),
    ("runuser -u bob rm x", ("runuser",)),
    ("runuser --user=bob -g app -w TZ -- rm x", ("runuser",)),
    ("pkexec --keep-cwd rm x", ("pkexec",)),
    ("gosu app:app rm x", ("gosu",)),
    ("su-exec app rm x", ("su-exec",)),
    ("setpriv --reuid=app --regid app --clear-groups --no-new-privs rm x", ("setpriv",)),
    ("setpriv --nnp --bounding-set -all -- rm x", ("setpriv",)),
    ("capsh --drop=cap_net_raw --user=bob -- -c 'rm x'", ("capsh",)),
    ("capsh --print -- -ec 'cd /srv && rm x' n", ("capsh",)),
    ("nsenter -t 4711 -n rm x", ("nsenter",)),
    ("nsenter --target 1 --net=/srv/ns -S 0 -- rm x", ("nsenter",)),
    ("unshare -mrpf --mount-proc rm x", ("unshare",)),
    ("unshare --net --map-users 0,1000,1 --propagation slave rm x", ("unshare",)),
    ("firejail --noprofile --net=none --private-tmp -- rm x", ("firejail",)),
    ("systemd-run --scope -p MemoryMax=1G --slice=batch rm x", ("systemd-run",)),
    ("systemd-run --user -d --wait -P -E TZ=UTC rm x", ("systemd-run",)),
    ("strace -f -tt -e trace=%file,openat -o /dev/null rm x", ("strace",)),
    ("strace -ffc -s 200 -e '!read' -E TZ=UTC rm x", ("strace",)),
    ("ltrace -S -e malloc+free -n 2 rm x", ("ltrace",)),
    ("setarch x86_64 -R rm x", ("setarch",)),
    ("setarch -R --3gb rm x", ("setarch",)),
    ("linux32 rm x", ("linux32",)),
    ("linux64 --verbose rm x", ("linux64",)),
    ("numactl --cpunodebind=0 -m 0 -l rm x", ("numactl",)),
    ("prlimit --nofile=1024:2048 -c rm x", ("prlimit",)),
    ("tini -s -e 143 -- rm x", ("tini",)),
    ("dumb-init --rewrite 15:2 rm x", ("dumb-init",)),
    ("dbus-run-session -- rm x", ("dbus-run-session",)),
    ("chronic -ev rm x", ("chronic",)),
    ("catchsegv rm x", ("catchsegv",)),
    ("ls | entr -nr rm x", ("entr",)),
    ("sudo nsenter -t 1 -n strace -f rm x", ("sudo", "nsenter", "strace")),
]


@pytest.mark.parametrize(("text", "via"), SEEN_THROUGH)
def test_the_command_inside_is_known(analyse, text: str, via: tuple[str, ...]) -> None:
    analysis = analyse(text)
    assert analysis.opaque == ()
    assert [e for e in analysis.effects if (e.verb, e.via, e.program) == ("delete", via, "rm") and e.object.endswith("x")]
    assert analysis.sent


TOLD = [
    # text, reason: what is inside is told all the same
    ("runuser -u bob rm -- x", "unknown-option"),  # it takes options from behind the command, and this for the end of its own
    ("runuser -u bob rm -m x", "unknown-option"),
    ("runuser -u bob -l -- rm x", "unknown-option"),
    ("runuser -u bob --nosuch -- rm x", "unknown-option"),
    ("runuser -l bob -c 'rm x'", "foreign-shell"),
    ("runuser bob -s /srv/shell -c 'rm x'", "foreign-shell"),
    ("su - bob --session-command 'rm x'", "foreign-shell"),
    ("pkexec rm x", "working-directory"),
    ("pkexec --keep-cwd --nosuch rm x", "unknown-option"),
    ("gosu --nosuch bob rm x", "unknown-option"),
    ("su-exec -x bob rm x", "unknown-option"),
    ("setpriv --ruid=a --euid=b rm x", "unknown-operand"),
    ("setpriv --apparmor-profile=p rm x", "unknown-option"),
    ("setpriv --selinux-label=l rm x", "unknown-option"),
    ("capsh --shell=/srv/shell -- -c 'rm x'", "unknown-option"),
    ("capsh --chroot=/srv/root -- -c 'rm x'", "unknown-option"),
    ("capsh == -- -c 'rm x'", "unknown-option"),
    ("nsenter -t 1 -m rm x", "unknown-program"),
    ("nsenter -t 1 -a rm x", "unknown-program"),
    ("nsenter -t 1 -r/srv/root rm x", "unknown-program"),
    ("nsenter -t 1 -w/srv -n rm x", "unknown-option"),
    ("nsenter -Zn -t 1 rm x", "unknown-option"),
    ("unshare --mount=/srv/ns rm x", "unexpected-value"),
    ("unshare --mount-proc=/srv/proc rm x", "unexpected-value"),
    ("unshare --root=/srv/root rm x", "unknown-option"),
    ("unshare --wd=/srv rm x", "unknown-option"),
    ("bwrap --ro-bind / / --dev /dev --unshare-net rm x", "working-directory"),
    ("bwrap --bind /srv/other /srv --die-with-parent -- rm x", "unknown-program"),
    ("bwrap --ro-bind / / --setenv LD_PRELOAD /srv/x.so rm x", "assignment"),
    ("bwrap --nosuch rm x", "unknown-option"),
    ("firejail rm x", "option-runs-code"),
    ("firejail --noprofile --profile=/srv/p rm x", "unknown-option"),
    ("firejail --noprofile --private=/srv/home rm x", "unknown-option"),
    ("systemd-run rm x", "working-directory"),
    ("systemd-run -d -p ExecStartPre=/srv/x rm x", "option-runs-code"),
    ("systemd-run -d --property=RootDirectory=/srv rm x", "option-runs-code"),
    ("systemd-run -d rm x '$HOME'", "parameter"),
    ("systemd-run -d -E PATH=/srv rm x", "assignment"),
    ("systemd-run -Hdb1 rm x", "unknown-option"),
    ("systemd-run --working-directory=/srv rm x", "unknown-option"),
    ("strace -e inject=unlink:retval=0 rm x", "option-runs-code"),
    ("strace -e fault=unlink rm x", "option-runs-code"),
    ("strace --inject=unlink:retval=0 rm x", "unknown-option"),
    ("strace -o '|sh' rm x", "option-runs-code"),
    ("strace -o'!sh' rm x", "option-runs-code"),
    ("strace -ff -o /srv/t rm x", "unknown-operand"),
    ("strace -E LD_PRELOAD=/srv/x.so rm x", "assignment"),
    ("strace -E PATH rm x", "assignment"),
    ("ltrace --config=/srv/conf rm x", "unknown-option"),
    ("setarch nosuch rm x", "unknown-operand"),
    ("setarch -Q rm x", "unknown-option"),
    ("linux32 -Q rm x", "unknown-option"),
    ("numactl --shm=/srv/s rm x", "unknown-option"),
    ("prlimit --pid=4711 rm x", "unknown-option"),
    ("tini -x rm x", "unknown-option"),
    ("dumb-init --nosuch rm x", "unknown-option"),
    ("dbus-run-session --dbus-daemon=/srv/d -- rm x", "unknown-option"),
    ("dbus-run-session --config-file=/srv/c -- rm x", "unknown-option"),
    ("chronic -x rm x", "unknown-option"),
    ("catchsegv -x rm x", "unknown-option"),
    ("script -qc 'rm x' /dev/null", "foreign-shell"),
    ("ls | entr rm x /_", "placeholder-in-word"),
    ("ls | entr -s 'rm x'", "foreign-shell"),
    ("ls | entr -y rm x", "unknown-option"),
    ("gdb -q --args rm x", "interpreter-code"),
    ("gdb -ex run --args rm x", "interpreter-code"),
]


@pytest.mark.parametrize(("text", "reason"), TOLD)
def test_what_stays_opaque_tells_what_is_inside(analyse, text: str, reason: str) -> None:
    analysis = analyse(text)
    assert reason in {o.reason for o in analysis.opaque}, analysis.opaque
    assert [e for e in analysis.effects if (e.verb, e.object) == ("delete", "x")]
    assert analysis.sent is None


NOTHING_INSIDE = [
    "runuser -u bob", "runuser bob", "pkexec", "pkexec --user bob", "gosu bob", "su-exec bob", "setpriv -d", "capsh --print",
    "capsh -- -i", "nsenter -t 1 -n", "unshare -r", "bwrap", "firejail", "systemd-run --on-calendar=daily --unit=x",
    "strace -p 4711", "ltrace -p 4711", "setarch x86_64", "linux32", "numactl -H", "prlimit -p 4711", "tini", "dumb-init",
    "dbus-run-session", "chronic", "catchsegv", "entr", "gdb", "gdb /srv/x", "gdb -x /srv/x", "gdb -p 4711", "parallel",
    "expect /srv/x", "expect -c 'spawn ls'", "expect", "run-parts /srv/d", "run-parts -a x --regex=^x /srv/d", "run-parts",
    "run-parts --list --nosuch /srv/d",
    "unshare -m/srv/ns rm x", "bwrap --args 3 rm x", "systemd-run -H db1 rm x", "numactl --shm /srv/s rm x", "script",
    "script /srv/x",
]  # fmt: skip


@pytest.mark.parametrize("text", NOTHING_INSIDE)
def test_without_a_command_to_tell_it_is_opaque(analyse, text: str) -> None:
    analysis = analyse(text)
    assert analysis.opaque
    assert analysis.sent is None


PRIVILEGES = [
    ("runuser -u bob -- ls", {("bob", "")}),
    ("runuser -u a -u bob -- ls", {("bob", "")}),
    ("runuser -c ls", {("root", "")}),
    ("runuser - bob -c ls", {("bob", "")}),
    ("pkexec ls", {("root", "")}),
    ("pkexec --user bob ls", {("bob", "")}),
    ("gosu bob:app ls", {("bob", "")}),
    ("su-exec 0 ls", {("0", "")}),
    ("setpriv --reuid bob ls", {("bob", ""), ("capabilities and groups", "rights")}),
    ("setpriv --ambient-caps +net_raw --inh-caps +net_raw ls", {("capabilities and groups", "rights")}),
    ("capsh --user=bob -- -c ls", {("bob", ""), ("capabilities and groups", "rights")}),
    ("nsenter -t 4711 -n -u ls", {("net uts of process 4711", "namespace")}),
    ("nsenter --net=/srv/ns ls", {("net=/srv/ns", "namespace")}),
    ("nsenter -t 1 -a -S 0 ls", {("all as user 0 of process 1", "namespace")}),
    ("unshare -rm ls", {("new mount", "namespace")}),
    ("unshare -r ls", {("new user", "namespace")}),
    ("bwrap --ro-bind / / ls", {("new mount", "namespace")}),
    ("firejail --noprofile ls", {("new mount", "namespace")}),
    ("systemd-run ls", {("root", "")}),
    ("systemd-run --uid=bob ls", {("bob", "")}),
    ("systemd-run --scope --uid=bob ls", {("bob", "")}),
    ("systemd-run --user ls", set()),
    ("strace -u bob ls", {("bob", "")}),
    ("ltrace -u bob ls", {("bob", "")}),
]


@pytest.mark.parametrize(("text", "wanted"), PRIVILEGES)
def test_who_it_runs_as_and_where_is_a_fact(analyse, text: str, wanted: set[tuple[str, str]]) -> None:
    assert {(e.object, e.detail) for e in analyse(text).effects if e.verb == "privilege"} == wanted


def test_another_tree_has_a_name(analyse) -> None:
    inside = [e for e in analyse("nsenter -t 4711 -m -- rm /srv/x").effects if e.verb == "delete"]
    assert [(e.object, e.host, e.origin) for e in inside] == [("/srv/x", "namespace:4711", "remote")]
    net = [e for e in analyse("nsenter -t 4711 -n -- rm /srv/x").effects if e.verb == "delete"]
    assert [(e.object, e.host, e.origin) for e in net] == [("/srv/x", "", "direct")]


def test_what_the_wrapper_itself_writes_is_a_write(analyse) -> None:
    def written(text: str) -> set[tuple[str, str]]:
        return {(e.verb, e.object) for e in analyse(text).effects} - {("execute", "strace"), ("execute", "script")}

    assert ("write", "/srv/t") in written("strace -o /srv/t ls")
    assert ("schedule", "/etc/cron.d/t") in written("ltrace --output=/etc/cron.d/t ls")
    assert ("write", "typescript") in written("script -c ls")
    assert ("write", "/srv/rec") in written("script -c ls /srv/rec")
    assert {("write", "/srv/in"), ("write", "/srv/t")} <= written("script -I /srv/in -T /srv/t -c ls")


def test_a_unit_is_a_service_and_one_with_a_timer_is_for_later(analyse) -> None:
    def unit(text: str) -> list[tuple[str, str]]:
        return [(e.verb, e.object) for e in analyse(text).effects if e.detail == "unit"]

    assert unit("systemd-run -d --unit=job ls") == [("service", "job")]
    assert unit("systemd-run -d --on-calendar=daily ls") == [("schedule", "systemd-run")]
    assert unit("systemd-run -d --on-clock-change ls") == [("schedule", "systemd-run")]


def test_input_reaches_what_is_inside_or_does_not(analyse) -> None:
    assert analyse("strace cat").stdin is Stdin.DATA
    assert analyse("systemd-run -d cat").stdin is Stdin.IGNORED
    assert analyse("systemd-run -dP cat").stdin is Stdin.DATA
    assert analyse("entr -n uptime").stdin is Stdin.DATA
    assert "stdin-code" in {o.reason for o in analyse("nsenter -t 1 -n sh").opaque}


def test_many_arguments_of_one_command(analyse) -> None:
    analysis = analyse("parallel -j 4 rm ::: /srv/a /srv/b")
    assert {"/srv/a", "/srv/b"} <= {e.object for e in analysis.effects if e.verb == "delete"}
    assert {"arguments-from-stdin", "foreign-shell"} <= {o.reason for o in analysis.opaque}
    unnamed = analyse("cat list | parallel rm {}")
    assert "what parallel reads" in {e.object for e in unnamed.effects if e.verb == "delete"}
    assert unnamed.sent is None
    for text in ("parallel --sshlogin db1 rm ::: /srv/a", "parallel -a list rm"):
        assert "unknown-option" in {o.reason for o in analyse(text).opaque}


def test_parts_that_are_only_listed_are_read(analyse) -> None:
    assert [(e.verb, e.object) for e in analyse("run-parts --list /srv/d").effects] == [("read", "/srv/d")]
    assert ("execute", "/srv/d") in {(e.verb, e.object) for e in analyse("run-parts /srv/d").effects}


def test_builtins_are_no_programs_behind_them(analyse) -> None:
    for text in ("strace eval 'rm x'", "runuser -u bob -- command ls", "nsenter -t 1 -n eval ls", "ls | entr eval ls"):
        assert "unknown-program" in {o.reason for o in analyse(text).opaque}
    assert analyse("capsh -- -c 'eval ls'").opaque == ()


def test_a_reviewer_reads_whom_and_where(analyse) -> None:
    assert sentences(analyse("runuser -u bob -- rm -r /srv/x"), Wire.SSH)[0] == "deletes /srv/x and everything below it, as bob"
    told = sentences(analyse("nsenter -t 4711 -n ls /srv"), Wire.SSH)
    assert "runs something in namespaces of its own or of others: net of process 4711, through nsenter" in told
    told = sentences(analyse("setpriv --inh-caps +net_raw ls"), Wire.SSH)
    assert "changes with which rights something runs: capabilities and groups, through setpriv" in told
