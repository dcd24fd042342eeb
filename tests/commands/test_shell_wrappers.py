"""Commands behind wrappers: seen through exactly, or opaque; and what a shell inside parses is read again."""

from __future__ import annotations

import pytest

from interlock.commands.model import Stdin

REACHED = [
    # text, via, argv of the innermost command
    ("sudo rm -rf /srv", ("sudo",), ("rm", "-rf", "/srv")),
    ("sudo -u postgres -n -- rm x", ("sudo",), ("rm", "x")),
    ("sudo LC_ALL=C rm x", ("sudo",), ("rm", "x")),
    ("doas -u bob rm x", ("doas",), ("rm", "x")),
    ("env -- LC_ALL=C rm x", ("env",), ("rm", "x")),
    ("env -i -u TZ rm x", ("env",), ("rm", "x")),
    ("nohup nice -n 5 ionice -c3 rm x", ("nohup", "nice", "ionice"), ("rm", "x")),
    ("nice -5 rm x", ("nice",), ("rm", "x")),
    ("timeout -k 5 --signal=KILL 10s rm x", ("timeout",), ("rm", "x")),
    ("setsid -w stdbuf -oL rm x", ("setsid", "stdbuf"), ("rm", "x")),
    ("command -p rm x", ("command",), ("rm", "x")),
    ("exec rm x", ("exec",), ("rm", "x")),
    ("'time' -p rm x", ("time",), ("rm", "x")),
    ("time -p rm x", (), ("rm", "x")),
    ("busybox rm x", ("busybox",), ("rm", "x")),
    ("/usr/bin/sudo /bin/rm x", ("sudo",), ("/bin/rm", "x")),
    ("sh -c 'rm x'", ("sh",), ("rm", "x")),
    ("bash -elc 'cd /srv && rm x' name arg", ("bash",), ("rm", "x")),
    ("sh -o errexit -c 'rm x'", ("sh",), ("rm", "x")),
    ("sudo sh -c \"env sh -c 'rm x'\"", ("sudo", "sh", "env", "sh"), ("rm", "x")),
    ("eval 'rm x'", ("eval",), ("rm", "x")),
    ("builtin eval 'rm x'", ("builtin", "eval"), ("rm", "x")),
    ("find /srv -name x -exec rm {} \\;", ("find",), ("rm", "{}")),
    ("find /srv -exec rm -- {} + -o -ok mv {} /tmp ';'", ("find",), ("mv", "{}", "/tmp")),
    ("kubectl -n web exec -it p -c app -- sh -c 'rm x'", ("kubectl", "sh"), ("rm", "x")),
    ("docker exec -u 0 -it web rm x", ("docker",), ("rm", "x")),
    ("docker container exec web rm x", ("docker",), ("rm", "x")),
    ("sh <<'E'\nrm x\nE", ("sh",), ("rm", "x")),
    ("bash <<< 'rm x'", ("bash",), ("rm", "x")),
    ("eval rm x", ("eval",), ("rm", "x")),
    ("watch rm x", ("watch",), ("rm", "x")),
    ("watch -d -n 5 'ls; rm x'", ("watch",), ("rm", "x")),
    ("watch -x rm x", ("watch",), ("rm", "x")),
    ("sudo watch -n1 -- rm x", ("sudo", "watch"), ("rm", "x")),
    ("if true; then sudo rm x; fi", ("sudo",), ("rm", "x")),
]


@pytest.mark.parametrize(("text", "via", "argv"), REACHED)
def test_the_command_inside_is_reported_with_its_wrappers(
    analyse, text: str, via: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    analysis = analyse(text)
    assert analysis.opaque == ()
    assert any(e.via == via and e.argv == argv for e in analysis.effects), [(e.via, e.argv) for e in analysis.effects]
    assert analysis.sent


OPAQUE = [
    ("sudo -i rm x", "unknown-option"),
    ("sudo -e /etc/passwd", "unknown-option"),
    ("sudo -E rm x", "environment-kept"),
    ("sudo FOO=1 rm x", "assignment"),
    ("sudo", "no-command"),
    ("env LD_PRELOAD=/tmp/x.so ls", "assignment"),
    ("env -i PATH=/tmp ls", "assignment"),
    ("env -u PATH ls", "assignment"),
    ("env -S 'rm -rf /srv'", "unknown-option"),
    ("env -C /etc cat shadow", "unknown-option"),
    ("env 'BASH_FUNC_ls%%=() { rm x; }' bash -c ls", "assignment"),
    ("timeout --nosuch 5 rm x", "unknown-option"),
    ("xargs rm", "arguments-from-stdin"),
    ("xargs -a list rm", "arguments-from-file"),
    # Only a `find -print0`, directly before an `xargs -0`, gives names that are certain to be names below its starting points.
    ("find /srv | xargs rm", "arguments-from-stdin"),
    ("find /srv -print0 | xargs rm", "arguments-from-stdin"),
    ("find /srv | xargs -0 rm", "arguments-from-stdin"),
    ("find /srv -print -print0 | xargs -0 rm", "arguments-from-stdin"),
    ("find /srv -printf '/etc/shadow\\0' -print0 | xargs -0 cat", "arguments-from-stdin"),
    ("find /srv -exec printf '/etc/shadow\\0' ';' -print0 | xargs -0 cat", "arguments-from-stdin"),
    ("find /srv -fprint0 /dev/stdout -print0 | xargs -0 cat", "arguments-from-stdin"),
    ("find /srv -print0 2>&1 | xargs -0 cat", "arguments-from-stdin"),
    ("find /srv -print0 |& xargs -0 cat", "arguments-from-stdin"),
    ("find /srv -print0 | sort -z | xargs -0 cat", "arguments-from-stdin"),
    ("{ find /srv -print0; echo x; } | xargs -0 cat", "arguments-from-stdin"),
    ("find /srv -print0 | { read x; xargs -0 cat; }", "arguments-from-stdin"),
    ("find /srv -print0 | xargs -0 cat <x", "arguments-from-stdin"),
    ("find /srv -print0 | sudo xargs -0 cat", "arguments-from-stdin"),
    ("find /srv -print0 | xargs -0 -E x cat", "arguments-from-stdin"),
    ("find /srv -print0 | xargs -0 -d x cat", "arguments-from-stdin"),
    ("find /srv -print0 | xargs -0 -a list cat", "arguments-from-file"),
    ("./find /srv -print0 | xargs -0 cat", "arguments-from-stdin"),
    ("find $x -print0 | xargs -0 cat", "arguments-from-stdin"),
    ("find /srv -print0 | xargs -0 -I{} cat /etc/{}", "placeholder-in-word"),
    ("find /srv -print0 | xargs -0 -I% % x", "placeholder-in-command"),
    ("find /srv -print0 | xargs -0 -I% sh -c 'rm %'", "placeholder-in-word"),
    ("find /srv -print0 | xargs -0 sh", "script-file"),
    ("find /srv -print0 | xargs -0 env", "unknown-program"),
    ("find /srv -print0 | xargs -0 awk", "interpreter-code"),
    ("cat list | xargs printf", "arguments-from-stdin"),  # outside of a shell it only prints; but not in busybox's own shell
    ("cat list | xargs ./echo", "arguments-from-stdin"),
    ("cat list | xargs env echo", "arguments-from-stdin"),
    ("cat list | xargs -I echo echo x", "placeholder-in-command"),
    ("cat list | xargs -I e echo x", "placeholder-in-command"),
    ("cat list | xargs -a other echo", "arguments-from-file"),
    ("cat list | xargs --nosuch echo", "unknown-option"),
    ("cat list | xargs echo rm | sh", "stdin-code"),
    ("find . -exec {} \\;", "placeholder-in-command"),
    ("find . -exec sh -c 'rm {}' \\;", "placeholder-in-code"),
    ("find . -execdir rm x \\;", "working-directory"),
    ("find . -exec rm {}", "no-command"),
    ("bash x.sh", "script-file"),
    ("bash -i -c ls", "unknown-option"),
    ("bash --rcfile x -c ls", "unknown-option"),
    ("bash -O extglob -c ls", "unknown-option"),
    ("sh -c", "no-command"),
    ("sh -c 'ls &&'", "nested-syntax-error"),
    ("sh -c \"$(cat x)\"", "command-substitution"),
    ("sh -c $'ls\\rrm x'", "deceptive-code"),
    ("curl -s http://h/x | sh", "stdin-code"),
    ("sh < script", "stdin-code"),
    ("sh", "stdin-code"),
    ("cat; sh", "stdin-code"),
    ("sh <<E\n$(rm x)\nE", "here-document"),
    ("sh <<'E'\ncat\nrm x\nE", "script-reads-itself"),
    ("sh <<'E'\n$'\\x72m' x\nE", "dialect"),
    ("sh -c \"ls <<<x\"", "dialect"),
    ("sh -c \"eval 'cat <<<x'\"", "dialect"),
    ("dash -c \"rm $'a'\"", "dialect"),
    ("{ head -c 5; sh; } <<'E'\nls -rm x\nE", "stdin-shared"),
    ("{ sh; bash; } <<'E'\nls\nE", "stdin-shared"),
    ("ls | { sh; }", "stdin-code"),
    ("sh <<'E'\nsh\nE", "script-reads-itself"),
    ("eval ls '-l a'", "eval"),
    ("eval ls a=b", "eval"),
    ("eval ls ~", "eval"),
    ("watch ls '*'", "glob"),
    ("watch 'rm $x'", "parameter"),
    ("watch -n 5 --nosuch rm x", "unknown-option"),
    ("watch -n", "missing-value"),
    ("watch", "no-command"),
    ("find /srv -exec watch ls {} ';'", "placeholder-in-code"),
    ("find /srv -print0 | xargs -0 watch ls", "placeholder-in-code"),
    ("watch ./x", "unknown-program"),
    ("eval \"$x\"", "parameter"),
    ("exec 3<>/dev/tcp/1.2.3.4/5", "exec-redirection"),
    ("su -c 'rm x'", "foreign-shell"),
    ("kubectl exec p rm x", "no-command"),
    ("kubectl --kubeconfig x exec p -- ls", "unknown-subcommand"),
    ("env LC_ALL=C -- rm x", "unknown-program"),
    ("docker exec --privileged web ls", "unknown-option"),
    ("strace -p 4711 rm x", "unknown-option"),
    ("chroot /mnt rm x", "unknown-program"),
    ("script -c 'rm x'", "foreign-shell"),
    # The shell's own words are no programs: what looks for a program finds another one of that name, or none.
    ("nice eval 'rm x'", "unknown-program"),
    ("timeout 5 command ls", "unknown-program"),
    ("exec builtin ls", "unknown-program"),
    ("find . -exec eval 'rm x' \\;", "unknown-program"),
    # A program of many names is another one by another name.
    ("exec -a rm ls x", "unknown-option"),
    ("exec -l ls", "unknown-option"),
    ("sh -c 'time ls'", "dialect"),
    ("dash -c 'time -p ls & rm x'", "dialect"),
]  # fmt: skip


@pytest.mark.parametrize("text", ["time ls", "eval 'time ls'", "time { ls; }"])
def test_time_is_a_keyword_only_where_the_shell_is_known_to_have_it(analyse, text: str) -> None:
    assert analyse(text, shell="bash").static
    for shell in ("unknown", "/bin/sh", "dash"):
        assert {o.reason for o in analyse(text, shell=shell).opaque} == {"dialect"}


@pytest.mark.parametrize("text", ["sudo sh -c 'eval ls'", "command eval 'ls'", "timeout 5 bash -c 'command ls'"])
def test_builtins_are_found_by_shells(analyse, text: str) -> None:
    assert analyse(text).static


@pytest.mark.parametrize(("text", "reason"), OPAQUE)
def test_what_can_not_be_seen_through_is_opaque(analyse, text: str, reason: str) -> None:
    analysis = analyse(text)
    assert reason in {o.reason for o in analysis.opaque}, analysis.opaque
    assert analysis.sent is None


def test_the_wrapper_stays_a_fact(analyse) -> None:
    effects = analyse("sudo -u postgres timeout 5 rm x").effects
    assert [(e.verb, e.object, e.detail, e.via) for e in effects] == [
        ("privilege", "postgres", "", ("sudo",)),
        ("execute", "timeout", "wrapper", ("sudo",)),
        ("delete", "x", "", ("sudo", "timeout")),
    ]


def test_the_contract_of_explain(analyse) -> None:
    """The example of the interface: two effects, and what an automatic allow would send."""
    analysis = analyse("sudo rm -rf /var/lib/pg")
    shown = [e.to_json() for e in analysis.effects]
    assert {"verb": "privilege", "object": "root", "via": ["sudo"]}.items() <= shown[0].items()
    wanted = {"verb": "delete", "object": "/var/lib/pg", "program": "rm", "argv": ["rm", "-rf", "/var/lib/pg"], "recursive": True}
    assert wanted.items() <= shown[1].items()
    assert shown[1]["via"] == ["sudo"]
    assert len(shown) == 2
    assert analysis.sent == "'sudo' 'rm' '-rf' '/var/lib/pg'"


def test_inside_a_container_the_host_is_named(analyse) -> None:
    inner = analyse("kubectl exec web-0 -- cat /etc/shadow").effects[-1]
    assert (inner.verb, inner.host, inner.origin) == ("secret", "pod:web-0", "remote")


def test_find_items_stand_for_anything_below_the_starting_points(analyse) -> None:
    effects = {(e.verb, e.object, e.recursive) for e in analyse("find /etc /srv -exec cat {} +").effects}
    assert {("read", "/etc", True), ("secret", "/etc", True), ("read", "/srv", True)} <= effects


def test_relative_paths_after_cd_name_both_places(analyse) -> None:
    objects = {(e.verb, e.object) for e in analyse("cd /etc && cat shadow").effects}
    assert ("secret", "/etc/shadow") in objects
    assert ("read", "shadow") in objects
    deletes = {e.object for e in analyse("( cd /tmp ); rm -rf a").effects if e.verb == "delete"}
    assert deletes == {"a", "/tmp/a"}
    assert "working-directory" in {o.reason for o in analyse("cd a; cd b; cd c; cd d; cat x").opaque}


def test_nesting_is_bounded(analyse) -> None:
    text = "rm x"
    for _ in range(9):
        text = "sh -c '" + text.replace("'", "'\\''") + "'"
    assert {o.reason for o in analyse(text[:16_000]).opaque} or analyse(text).unreadable
    many = "; ".join("sh -c 'ls'" for _ in range(20))
    assert "nesting" in {o.reason for o in analyse(many).opaque}


def test_offsets_point_into_the_text_of_the_client(analyse) -> None:
    text = "écho a; rm $(cat x)"
    found = next(o for o in analyse(text).opaque if o.reason == "command-substitution")
    assert text.encode()[found.start : found.end].decode() == "$(cat x)"
    nested = "ls; sh -c 'rm $x'"
    found = next(o for o in analyse(nested).opaque if o.reason == "parameter")
    assert nested[found.start : found.end] == "sh -c 'rm $x'"


@pytest.mark.parametrize("shell", ["fish", "/usr/bin/fish", "tcsh", "csh", "nosuchsh"])
def test_accounts_whose_shell_quotes_differently_are_never_static(analyse, shell: str) -> None:
    analysis = analyse("uptime", shell=shell)
    assert [o.reason for o in analysis.opaque] == ["foreign-shell"]
    assert analysis.sent is None


def test_a_charset_that_is_not_utf8_makes_other_letters_opaque(analyse) -> None:
    assert analyse("echo a", utf8=False).static
    assert [o.reason for o in analyse("echo é", utf8=False).opaque] == ["locale"]
    assert analyse("LC_ALL=zh_CN.GBK ls").opaque
    assert analyse("LC_ALL=C.UTF-8 ls").static
    assert analyse("LC_ALL=en_US ls").opaque


def test_held_input_is_shell_text_for_a_shell(analyse) -> None:
    held = analyse("bash -s", stdin=b"cd /srv && rm -rf x\n")
    assert ("delete", "/srv/x", "stdin") in {(e.verb, e.object, e.origin) for e in held.effects}
    assert held.static
    assert analyse("sh", stdin=b"$'\\x72m' x\n").opaque
    assert analyse("sh", stdin=b"cat\nls\n").opaque
    assert analyse("sh", stdin=b"ls $(rm x)").opaque
    assert analyse("cat; sh", stdin=b"ls").opaque
    assert analyse("python3", stdin=b"1").opaque
    assert analyse("sh", stdin=b"").static


def test_on_a_terminal_a_pager_starts_and_a_pager_starts_shells(grammars) -> None:
    def reasons(text: str, pty: bool) -> list[str]:
        return [o.reason for o in grammars.analyse(text, pty=pty).opaque]

    assert reasons("journalctl -u nginx", False) == []
    assert reasons("journalctl -u nginx", True) == ["pager"]
    assert reasons("sudo systemctl status nginx", True) == ["pager"]
    assert reasons("systemctl status nginx --no-pager", True) == []
    assert reasons("uptime", True) == []


def test_an_account_with_a_plain_shell_reads_forms_of_bash_otherwise(analyse) -> None:
    for text in ("rm $'a'", "ls &>x", "ls |& cat", "cat <<< x", "ls >& x"):
        assert analyse(text, shell="bash").static
        assert [o.reason for o in analyse(text, shell="/bin/dash").opaque] == ["dialect"]
    assert analyse("ls | cat >x 2>&1", shell="dash").static


FED = [
    # text, (verb, object) that must be there although the names are found only when it runs
    ("find /srv -print0 | xargs -0 rm", ("delete", "/srv")),
    ("find /srv -print0 2>/dev/null | xargs -0 -r -n 1 rm --", ("delete", "/srv")),
    ("find /srv -print0 | xargs -0 uniq", ("write", "/srv")),
    ("find /srv -exec uniq {} +", ("write", "/srv")),
    ("find /srv -print0 | xargs -0 cp", ("write", "/srv")),
    ("find /srv -print0 | xargs -0 -I% mv % /tmp", ("delete", "/srv")),
    ("find / -print0 | xargs -0 cat", ("secret", "/")),
    ("find /srv -print0 | xargs -0 grep -r x", ("secret", ".")),
    ("find /etc -exec find {} -delete ';'", ("delete", "/etc")),
    ("find /etc -print0 | xargs -0 -I{} find {} -exec cat {} +", ("secret", "/etc")),
]


@pytest.mark.parametrize(("text", "wanted"), FED)
def test_names_that_a_find_finds_are_below_its_starting_points(analyse, text: str, wanted: tuple[str, str]) -> None:
    analysis = analyse(text)
    assert analysis.opaque == ()
    assert wanted in {(e.verb, e.object) for e in analysis.effects}


PRINTED = [
    "cat list | xargs",
    "cat list | xargs -n 3",
    "ls | xargs -I{} echo 'a{}b'",
    "find . | xargs -n1 basename",
    "xargs -d, echo",
]


@pytest.mark.parametrize("text", PRINTED)
def test_arguments_that_are_only_printed_need_not_be_known(analyse, text: str) -> None:
    analysis = analyse(text)
    assert analysis.opaque == ()
    assert {e.verb for e in analysis.effects} <= {"read", "execute"}
    assert (analysis.stdin is Stdin.DATA) == ("|" not in text)


UNKNOWN = [
    ("cat list | xargs rm", ("delete", "what xargs reads")),
    ("cat list | xargs -I% mv % /tmp", ("delete", "what xargs reads")),
    ("pgrep x | xargs kill -9", ("process", "what xargs reads")),
    ("cat list | xargs sudo chmod 777", ("write", "what xargs reads")),
    ("cat list | xargs cat", ("read", "what xargs reads")),
    ("cat $x", ("read", "$x")),
    ("ls *.log", ("read", "*.log")),
    ('wc -l "$(pwd)"', ("read", '"$(pwd)"')),
    ("cat /etc/*/id_rsa", ("secret", "/etc/*/id_rsa")),
    ("kill $(pgrep x)", ("process", "$(pgrep x)")),
]


@pytest.mark.parametrize(("text", "wanted"), UNKNOWN)
def test_what_is_done_to_unknown_names_is_said_and_stays_opaque(analyse, text: str, wanted: tuple[str, str]) -> None:
    analysis = analyse(text)
    assert analysis.opaque
    assert wanted in {(e.verb, e.object) for e in analysis.effects}
