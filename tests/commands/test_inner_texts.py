"""Texts inside of shell commands that a second grammar reads: another machine's shell, PostgreSQL, a shell later on.

Reviewers and deny rules see what is inside; nothing of it becomes a machine's decision because it reads well.
"""

from __future__ import annotations

import pytest

from interlock.commands.analyzer import Analyzer
from interlock.commands.model import Analysis, Command, Effect, Kind, ShellContext, Stdin, Wire
from interlock.commands.pool import ShellPool
from interlock.commands.sql_child import SqlChild
from interlock.commands.wording import sentences


def _seen(analysis: Analysis, verb: str, name: str) -> Effect:
    found = [e for e in analysis.effects if (e.verb, e.object) == (verb, name)]
    assert found, [(e.verb, e.object) for e in analysis.effects]
    return found[0]


def _reasons(analysis: Analysis) -> set[str]:
    return {o.reason for o in analysis.opaque}


OVER_SSH = [
    # text, host, via, argv
    ("ssh db1 'rm -rf /srv/x'", "db1", ("ssh",), ("rm", "-rf", "/srv/x")),
    ("ssh db1 rm -rf /srv/x", "db1", ("ssh",), ("rm", "-rf", "/srv/x")),
    ("ssh -- db1 rm x", "db1", ("ssh",), ("rm", "x")),
    ("ssh db1 -p 22 -- rm x", "db1", ("ssh",), ("rm", "x")),
    ("ssh -p 22 db1 -l root -tt rm x", "db1", ("ssh",), ("rm", "x")),
    ("ssh -oBatchMode=yes -4Cp22 bob@db1 rm x", "db1", ("ssh",), ("rm", "x")),
    ("ssh ssh://bob@db1:22 rm x", "db1", ("ssh",), ("rm", "x")),
    ("ssh bob@::1 rm x", "bob@::1", ("ssh",), ("rm", "x")),
    ("ssh db1 true '&&' rm x", "db1", ("ssh",), ("rm", "x")),
    ("ssh db1 echo 'a;' rm x", "db1", ("ssh",), ("rm", "x")),
    ('ssh db1 "echo \'a" "\'; rm x"', "db1", ("ssh",), ("rm", "x")),
    ("sudo ssh db1 sudo rm x", "db1", ("sudo", "ssh", "sudo"), ("rm", "x")),
    ('ssh -tt jump ssh -p 22 db "rm x; ls"', "db", ("ssh", "ssh"), ("rm", "x")),
    ("ssh db1 sh <<'E'\nrm x\nE", "db1", ("ssh", "sh"), ("rm", "x")),
    ("ssh db1 eval 'rm x'", "db1", ("ssh", "eval"), ("rm", "x")),
    ("ssh -o ProxyCommand=id db1 rm x", "db1", ("ssh",), ("rm", "x")),
]


@pytest.mark.parametrize(("text", "host", "via", "argv"), OVER_SSH)
def test_what_another_machine_runs_is_seen_and_stays_a_persons_matter(
    analyse, text: str, host: str, via: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    analysis = analyse(text)
    assert [e for e in analysis.effects if (e.argv, e.via, e.origin, e.host) == (argv, via, e.origin, host)]
    assert any(e.verb == "network" for e in analysis.effects)
    assert _reasons(analysis) >= {"remote-session", "foreign-shell"}
    assert analysis.sent is None


def test_the_effect_says_where(analyse) -> None:
    analysis = analyse("ssh db1 'rm -rf /srv/x'")
    effect = _seen(analysis, "delete", "/srv/x")
    assert (effect.host, effect.origin, effect.recursive) == ("db1", "remote", True)
    assert _seen(analysis, "network", "db1").host == "db1"
    assert sentences(analysis, Wire.SSH)[0] == "deletes /srv/x and everything below it, by force, on db1, through ssh"


AT_THIS_END = [
    ("ssh -E /etc/cron.d/x h ls", ("schedule", "/etc/cron.d/x"), ""),
    ("ssh -i /root/.ssh/id_rsa h ls", ("secret", "/root/.ssh/id_rsa"), ""),
    ("ssh -A h ls", ("identity", "agent"), ""),
    ("ssh -L 5432:db:5432 h ls", ("network", "5432:db:5432"), ""),
    ("ssh h -R 22:localhost:22", ("network", "22:localhost:22"), ""),
    ("ssh -D 1080 -N h", ("network", "1080"), ""),
    ("ssh -W db:22 h", ("network", "db:22"), ""),
    ("ssh -J a,b h ls", ("network", "b"), ""),
    ("ssh -oProxyCommand='rm x' h ls", ("network", "h"), "option-runs-code"),
    ("ssh -o 'localcommand rm x' h ls", ("network", "h"), "option-runs-code"),
    ("ssh -o HostName=other h ls", ("network", "h"), "option-runs-code"),
    ("ssh h -F /tmp/c ls", ("network", "h"), "option-runs-code"),
    ("ssh -I /tmp/x.so h ls", ("network", "h"), "option-runs-code"),
    ("ssh -S /tmp/s h ls", ("network", "h"), "option-runs-code"),
    ("ssh -O exit h", ("network", "h"), "option-runs-code"),
    ("ssh -Z h ls", ("network", "h"), "unknown-option"),
]


@pytest.mark.parametrize(("text", "effect", "reason"), AT_THIS_END)
def test_what_options_of_ssh_do_here(analyse, text: str, effect: tuple[str, str], reason: str) -> None:
    analysis = analyse(text)
    _seen(analysis, *effect)
    assert _reasons(analysis) >= {"remote-session"} | ({reason} if reason else set())


@pytest.mark.parametrize("text", ["ssh h", "ssh -N h", "ssh -s h sftp", "ssh -tt bob@h"])
def test_a_session_without_a_command_stays_one(analyse, text: str) -> None:
    analysis = analyse(text)
    assert {e.verb for e in analysis.effects} == {"network"}
    assert "remote-session" in _reasons(analysis)


def test_words_behind_two_dashes_are_the_command(analyse) -> None:
    """`ssh -- host -p x` runs `-p` there: what looks like an option is none."""
    _seen(analyse("ssh -- h -rf x"), "execute", "-rf")


def test_a_remote_path_does_not_begin_in_a_directory_of_this_machine(analyse) -> None:
    analysis = analyse("cd /srv && ssh h 'rm x'; rm y", cwd="/home/a")
    assert {e.object for e in analysis.effects if e.host == "h" and e.verb == "delete"} == {"x"}
    assert {e.object for e in analysis.effects if not e.host and e.verb == "delete"} == {"/home/a/y", "/srv/y"}


def test_what_is_not_known_inside_stays_so(analyse) -> None:
    assert "eval" in _reasons(analyse('ssh h "rm $x"'))
    assert "parameter" in _reasons(analyse("ssh h 'rm $x'"))
    assert "tilde" in _reasons(analyse("ssh h 'rm ~/x'"))
    assert "placeholder-in-code" in _reasons(analyse("find /srv -exec ssh h rm {} ';'"))
    assert "nested-syntax-error" in _reasons(analyse("ssh h 'rm ('"))


def test_input_that_goes_over_is_held_unless_none_goes(analyse) -> None:
    assert analyse("ssh h cat").stdin is Stdin.DATA
    assert _reasons(analyse("ssh -n h sh")) == {"remote-session", "foreign-shell"}
    assert "stdin-code" in _reasons(analyse("ssh h sh"))


# -- PostgreSQL ---------------------------------------------------------------------------------------------------------

IN_SQL = [
    ("psql -c 'delete from orders'", "delete", "public.orders", "wrapper"),
    ("psql -h db -U app -qAtc 'delete from orders'", "delete", "public.orders", "wrapper"),
    ("psql --command='truncate app.orders'", "truncate", "app.orders", "wrapper"),
    ("psql --comm 'drop table app.orders'", "drop", "app.orders", "wrapper"),
    ("psql -c 'select 1' -c 'drop table t' db", "drop", "public.t", "wrapper"),
    ("psql -c 'drop table t' \"$db drop table t\"", "drop", "public.t", "wrapper"),
    ("sudo -u postgres psql -c 'drop database app'", "drop", "app", "wrapper"),
    ("psql -c \"copy t from program 'rm x'\"", "copy_program", "rm x", "wrapper"),
    ("psql <<'E'\ndelete from orders;\nE", "delete", "public.orders", "here-doc"),
    ("psql <<< 'delete from orders'", "delete", "public.orders", "here-doc"),
    ("psql -f - <<< \"update t set a = '12:30'::time\"", "update", "public.t", "here-doc"),
    ("psql -1 -c 'select 1' -f - <<< 'drop table t'", "drop", "public.t", "here-doc"),
    ("ssh db1 \"psql -c 'drop table t'\"", "drop", "public.t", "remote"),
    ("psql -c 'with x as (delete from t returning *) select * from x'", "delete", "public.t", "wrapper"),
    ("kubectl exec p -- psql -c 'drop table t'", "drop", "public.t", "remote"),
]


@pytest.mark.parametrize(("text", "verb", "name", "origin"), IN_SQL)
def test_sql_is_seen_and_stays_a_persons_matter(analyse, text: str, verb: str, name: str, origin: str) -> None:
    analysis = analyse(text)
    effect = _seen(analysis, verb, name)
    assert "psql" in effect.via
    assert (effect.program, effect.origin) == ("psql", origin)
    _seen(analysis, "interpret", "database")
    assert _reasons(analysis) & {"sql-inline", "stdin-code"}
    assert analysis.sent is None


def test_a_reviewer_reads_that_every_row_goes(analyse) -> None:
    analysis = analyse("psql -c 'delete from orders'")
    assert not _seen(analysis, "delete", "public.orders").filtered
    assert analysis.assumed == ("public.orders",)
    told = sentences(analysis, Wire.SSH)
    assert told[0] == "deletes every row of public.orders (no WHERE that leaves any out), through psql"
    assert "with" not in sentences(analyse("psql -c 'with x as (delete from t returning *) select * from x'"), Wire.SSH)[0]


def test_held_input_is_read_too(analyse) -> None:
    _seen(analyse("psql db", stdin=b"drop table t;\n"), "drop", "public.t")
    assert "stdin-code" in _reasons(analyse("psql db", stdin=b"drop table t;\n"))


def test_a_block_inside_is_opened(analyse) -> None:
    analysis = analyse("psql -c 'do $$ begin delete from orders; end $$'")
    assert _seen(analysis, "delete", "public.orders").via == ("psql", "do")
    many = "; ".join("psql -c 'do $$ begin delete from orders; end $$'" for _ in range(20))
    assert "nesting" in _reasons(analyse(many))


@pytest.mark.parametrize("padding", ["", " " + "x" * 600], ids=["on the event loop", "in a thread"])
async def test_a_child_opens_it_for_the_gate(padding: str) -> None:
    """The parser of PL/pgSQL was made for text that a server has accepted: a crash of it must not be one of the proxy."""
    analyzer = Analyzer(ShellPool(1, wall=10))
    analyzer._sql = SqlChild(wall=60)
    await analyzer.start()
    text = f"psql -c 'do $$ begin delete from orders; end $$'{padding}".encode()
    try:
        _seen(
            await analyzer.classify(Command(Wire.SSH, Kind.EXEC, text, context=ShellContext("bash"))), "delete", "public.orders"
        )
        await analyzer._sql.close()
        again = await analyzer.classify(Command(Wire.SSH, Kind.EXEC, text + b" y", context=ShellContext("bash")))
        assert "pool-closed" in _reasons(again)
        assert again.sent is None
    finally:
        await analyzer.close()


NOT_READ = [
    (r"psql -c '\! rm x'", "psql-command"),
    (r"psql -c '\copy t from program $$rm x$$'", "psql-command"),
    (r"psql <<< '\o |sh'", "psql-command"),
    ("psql <<'E'\nselect 1;\n\\i /tmp/x\nE", "psql-command"),
    ("psql <<'E'\nselect 1 \\g |sh\nE", "psql-command"),
    ("psql <<'E'\nselect '\\'; \\! rm x; --'\nE", "psql-command"),
    ("psql -v t=orders <<< 'delete from :t'", "psql-variable"),
    ("psql -v t=orders <<< 'delete from :\"t\"'", "psql-variable"),
    ("psql -v t=1 <<< \"select 'a' where 'b' = :'t'\"", "psql-variable"),
    ("psql <<< 'select :{?x}'", "psql-variable"),
    ("psql -c 'delete from'", "nested-syntax-error"),
    ("psql <<'E'\ncopy t from stdin;\n1\t2\nE", "nested-syntax-error"),
    ('psql -c "delete from $t"', "parameter"),
    ("psql -o '|sh' -c 'select 1'", "option-runs-code"),
    ("psql -v PROMPT1='%`id`' -c 'select 1'", "option-runs-code"),
    ("PGOPTIONS='-c search_path=x' psql -c 'select 1'", "assignment"),
    ("psql -f /tmp/x.sql", "script-file"),
    ("psql -S -c 'select 1'", "unknown-option"),
    ("find /srv -exec psql -c \"delete from t where p = '{}'\" ';'", "placeholder-in-code"),
    ("mysql -e 'drop table t'", "sql-inline"),
]


@pytest.mark.parametrize(("text", "reason"), NOT_READ)
def test_what_psql_itself_would_do_is_not_taken_for_sql(analyse, text: str, reason: str) -> None:
    analysis = analyse(text)
    assert reason in _reasons(analysis)
    assert analysis.sent is None
    if reason in ("psql-command", "psql-variable", "nested-syntax-error", "parameter"):
        assert not [e for e in analysis.effects if "psql" in e.via]


def test_what_psql_writes_here(analyse) -> None:
    _seen(analyse("psql -o /etc/cron.d/x -c 'select 1'"), "schedule", "/etc/cron.d/x")
    _seen(analyse("psql -L /tmp/log -c 'select 1'"), "write", "/tmp/log")
    assert analyse("psql -f - </dev/null").stdin is not Stdin.CODE
    assert analyse("psql -f -").stdin is Stdin.CODE


# -- locks, later, elsewhere --------------------------------------------------------------------------------------------

STARTED = [
    ("flock -n /run/lock/x rm y", ("flock",), ("rm", "y"), None),
    ("flock -w 5 -E 3 /run/lock/x -- rm y", ("flock",), ("--", "rm", "y"), None),
    ("flock /run/lock/x -c 'rm y'", ("flock",), ("rm", "y"), "foreign-shell"),
    ("flock /run/lock/x --command 'ls; rm y'", ("flock",), ("rm", "y"), "foreign-shell"),
    ("script -qc 'rm y' /dev/null", ("script",), ("rm", "y"), "foreign-shell"),
    ("chroot /srv/root rm y", ("chroot",), ("rm", "y"), "unknown-program"),
    ("at now <<< 'rm y'", ("at",), ("rm", "y"), None),
    ("batch <<'E'\nls\nrm y\nE", ("batch",), ("rm", "y"), None),
    ("at now <<< 'eval \"rm y\"'", ("at", "eval"), ("rm", "y"), None),
    ("taskset -c 0-3 rm y", ("taskset",), ("rm", "y"), None),
    ("chrt -b 0 rm y", ("chrt",), ("rm", "y"), None),
    ("prlimit --nofile=10 -c=1 rm y", ("prlimit",), ("rm", "y"), None),
    ("systemd-inhibit --why=x rm y", ("systemd-inhibit",), ("rm", "y"), None),
    ("tini -g -- rm y", ("tini",), ("rm", "y"), None),
    ("dumb-init -c rm y", ("dumb-init",), ("rm", "y"), None),
]


@pytest.mark.parametrize(("text", "via", "argv", "reason"), STARTED)
def test_the_command_inside_is_seen(analyse, text: str, via: tuple[str, ...], argv: tuple[str, ...], reason: str | None) -> None:
    analysis = analyse(text)
    assert [e for e in analysis.effects if (e.via, e.argv) == (via, argv)], [(e.via, e.argv) for e in analysis.effects]
    assert reason is None or reason in _reasons(analysis)


REFUSED = [
    ("flock /run/lock/x -c 'rm y' more", "no-command"),
    ("flock -c 'rm y'", "unknown-option"),
    ("flock -Z /run/lock/x ls", "unknown-option"),
    ("flock /run/lock/x", "no-command"),
    ("flock /run/lock/x eval 'rm y'", "unknown-program"),
    ("at -f /tmp/x now", "script-file"),
    ("at now", "stdin-code"),
    ("echo rm y | at now", "stdin-code"),
    ("at now <<< 'cat <<< x'", "dialect"),
    ("chroot /srv/root", "no-command"),
    ("taskset -p 1 rm", "unknown-option"),
    ("taskset rm y", "no-command"),
    ("chrt rm y", "no-command"),
    ("prlimit --pid 1 rm y", "unknown-option"),
    ("script -qc 'rm y'", "foreign-shell"),
    ("script -c 'ls' /srv/x /srv/y", "unknown-operand"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_can_not_be_said_exactly_is_opaque(analyse, text: str, reason: str) -> None:
    analysis = analyse(text)
    assert reason in _reasons(analysis)
    assert analysis.sent is None


def test_the_file_of_a_lock_is_made(analyse) -> None:
    _seen(analyse("flock /etc/cron.d/x true"), "schedule", "/etc/cron.d/x")
    assert analyse("flock -u 9").opaque == ()


def test_listing_jobs_reads_no_commands(analyse) -> None:
    assert analyse("at -l").stdin is Stdin.IGNORED
    assert [(e.verb, e.object) for e in analyse("at -l").effects] == [("read", "schedule")]
