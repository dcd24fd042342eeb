"""Shell texts made to be misread: sentences of a small grammar, soups of tokens, and mutants of labelled corpora.

Everything comes from one seeded generator, so a number finds a string again. Knows how texts look; runs none.
"""

from __future__ import annotations

import json
import random  # noqa: TID251 - seeded, so that a violation comes again
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

from interlock.commands.shell.quoting import single_quoted

CORPORA = Path(__file__).parents[1] / "data" / "corpora"
MAX_LENGTH = 600

_SOMEBODY = "sudo"
_AS_SOMEBODY = [
    "sudo -u a", "runuser -u a --", "runuser -u a", "gosu a", "su-exec a", "setpriv --nnp", "nsenter -t 1 -n", "unshare -r",
    "strace -f -o a", "strace -e trace=a", "ltrace -n 2", "setarch -R", "setarch i686", "linux32", "numactl -l", "prlimit -n=9",
    "prlimit -n 9", "tini -s --", "dumb-init -v", "dbus-run-session --", "chronic", "catchsegv", "capsh --", "capsh -- -c",
    "entr -n", "systemd-run --scope", "systemd-run", "firejail --noprofile", "pkexec --keep-cwd", "bwrap --unshare-all",
]  # fmt: skip
"""Wrappers whose stubs start nothing: what is said of their own words must be right."""

NAMES = "ls cat rm grep head sort uptime touch tee stat wc cp mkdir cat ls rm".split()
_SPELLED = [*NAMES, *NAMES, "echo", "true", "r'm'", 'l"s"', "\\cat", "c\\at"]
_PLAIN = [
    "a", "b", "a", "--", "%", "é", "x=y", "a.b", "5", "'b c'", '"d e"', "f\\ g", "''", '""', "a#b", '"it\'s"', "'a;b'",
    "{", "}", "if", "!", "'*'", '"~"', "\\~", "\\{a,b}", "'$x'", "\\$x", "=", "[", "]", "{}", "{a}", "a,b", "x#", "'#'", "-n",
    "$'h\\ti'", "$'\\x41'", "$'\\101b'", "$'\\u00e9'", "$'it\\'s'", "$'\\\\'",
]  # fmt: skip
_EXPANDING = [
    "{a,b}", "a{1..3}", "x{,y}", "*", "a*", "?", "[ab]", "~", "~+", "~root", "x=~", "a=b:~", "$x", '"$x"', "${x:-rm}", "$(rm s)",
    '"$(rm q)"', "`rm t`", '"`rm u`"', "$((1+1))", '"$((2*3))"', "$(( 4 ))", "$[5]", "<(rm p)", "$'\\cA'", '$"loc"', "!!", "a$",
    "${#x}", "$1", "$?", "\\*", "\\\\*", "{a,'b'}", '"a"{b,c}', "~/x", "'~'/x", "~''", "$'a'{1,2}", "@(a|b)", "$'\\n'*",
]  # fmt: skip
_REDIRECTIONS = [">o1", "2>&1", ">>o2", "2>o4", "<<<'x y'", "&>o3", ">&2", ">&o5", "<a", "2>>o6", ">|o7", "<>o8", "2>&-", "1>&2"]
_ASSIGNMENTS = [
    "LC_ALL=C",
    "TZ=UTC",
    "LC_ALL='C'",
    "NO_COLOR=",
    "COLUMNS=80",
    "LANG=C.UTF-8",
    "x=1",
    "BASH_ENV=rc",
    "PATH=b",
    "IFS=a",
]

SOUP = [
    *"'\"\\;|&(){}$#!=~*[]<>`02%@^ ,:-+",
    *("\n", "\t", " \\\n", "&&", "||", "|&", "&>", ">|", ";;", "$'", '$"', "<<E", "<<-E", "\nE\n"),
    *("<<<", "$(", "$((", "))", "${"),
    *("time ", "if ", " then ", " fi ", "case x in ", " esac", "do ", " done", "in ", " in\n"),
    *("coproc ", "! ", "function ", "[[ "),
    *("#c", " #c\n", "\\'", '\\"', "\\\\", "a", "é", " rm x", "; rm y", "\nrm z\n", "| rm w", "& rm v", "()", "{ ", "; }", "=("),
]  # fmt: skip

Text = Callable[[random.Random], str]


class Strings:
    """An endless supply of texts. The same seed gives the same texts."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.corpus = corpus()
        self.somebody = cycle(_AS_SOMEBODY)

    def text(self) -> str:
        """Return the next text."""
        while True:
            pick = self.rng.random()
            if pick < 0.60:
                text = self.sentence(self.rng.choice((0, 1, 1, 2, 2, 3)))
            elif pick < 0.76:
                text = self.mutated(self.sentence(self.rng.randint(0, 3)))
            elif pick < 0.81:
                text = self.soup()
            elif pick < 0.92:
                text = self.rng.choice(self.corpus)
                if self.rng.random() < 0.5:
                    text = self.around(text, self.sentence(0))
            else:
                text = self.mutated(self.rng.choice(self.corpus))
            if text.strip() and len(text) <= MAX_LENGTH:
                return text

    # -- sentences ------------------------------------------------------------------------------------------------

    def simple(self) -> str:
        choice, chance = self.rng.choice, self.rng.random
        words = [choice(_SPELLED), *(choice(_PLAIN) for _ in range(choice((0, 1, 1, 2, 2, 3))))]
        if chance() < 0.05:
            words.insert(self.rng.randint(1, len(words)), choice(_EXPANDING))
        if chance() < 0.1:
            words.insert(0, choice(_ASSIGNMENTS))
        if chance() < 0.2:
            words.insert(self.rng.randint(1, len(words)), choice(_REDIRECTIONS))
        if chance() < 0.1:
            words.append(choice(("# rm c", "#rm c", "# it's", "\\\n -l")))
        return " ".join(words)

    def sentence(self, depth: int) -> str:
        if depth == 0:
            return self.simple()
        inner = self.sentence(depth - 1)
        return self.around(inner, self.sentence(self.rng.randint(0, depth - 1)))

    def around(self, inner: str, other: str) -> str:
        """Put a text into a construct, beside another one, or behind a wrapper."""
        quoted = single_quoted(inner)
        broken = "\n" if "#" in inner or "<<" in inner else ";"  # what ends a line would swallow a `;`
        one = self.rng.choice
        match self.rng.randint(0, 19):
            case 0 | 1 | 2:
                return one(
                    ("{0} && {1}", "{0} || {1}", "{0}; {1}", "{0}\n{1}", "{0} | {1}", "{0} & {1}", "{0} |& {1}", "{1} &&\n{0}")
                ).format(inner, other)
            case 3:
                return f"( {inner}{broken} )" if broken == "\n" else f"( {inner} )"
            case 4:
                return f"{{ {inner}{broken} }} {one(('', '>out', '| cat', '&& ls n', '2>&1', '<a', '&'))}"
            case 5:
                return f"if {one(('true', 'false', '! true', 'ls q'))}; then {inner}{broken} else {other}\nfi"
            case 6:
                return f"for i in {one(('1 2', 'a', '{1,2}', '*'))}; do {inner}{broken} done"
            case 7:
                word = one(("x", "'x y'", "é", "$x"))
                return f"case {word} in a) ls;; x|y|é) {inner}\n;; {one(('*', '?', 'x*', '(z'))}) {other}\n;; esac"
            case 8:
                return (
                    f"until {one(('true', 'ls r'))}; do {inner}{broken} done"
                    if one((0, 1))
                    else f"while false; do {inner}{broken} done"
                )
            case 9:
                return one(("{0} # c; rm c", "{0} # it's\n{1}", "{1} #c \\\n{0}", "# x\n{0}", "{0}#c")).format(inner, other)
            case 10:
                end = one(("'E'", "E", "\\E", '"E"'))
                dash = one(("", "-"))
                body = one(("body", "b $x", "b $(rm x)", "\tb", "it's", "`rm x`", "a\\\\b"))
                return f"cat <<{dash}{end}\n{body}\nE\n{inner}"
            case 11 | 12:
                shell, option = one(("sh", "bash", "dash", "sh", "ash")), one(("-c", "-c", "-ec", "-c --"))
                return f"{shell} {option} {quoted}{one(('', ' n', ' n a'))}"
            case 13:
                shell, dash, end = one(("bash", "sh", "bash -s", "dash")), one(("", "-")), one(("Q", "Q", "'Q'"))
                return f"{shell} <<{dash}{end}\n{inner}\nQ"
            case 14:
                return f"{one(('eval', 'eval', 'bash <<<', 'BASH_ENV=rc bash -c', 'eval --'))} {quoted}"
            case 15 | 16 | 17:
                wrapper = one(
                    (
                        "timeout -k 5 9", "timeout 9", "timeout -s INT 9", "env -u X", "env", "env TZ=UTC", "env -u rm",
                        "nice -n 5", "nice", "nice -n 5", "nohup", "setsid -w", "stdbuf -o L", "stdbuf -oL", "command",
                        "exec", "builtin", "time", "time -p", "!", "exec -a x", "command --", "env --",
                        "timeout --foreground 9", "busybox", _SOMEBODY,
                    )
                )  # fmt: skip
                # In turn and not by lot: the texts that a seed gives stay what they are when a wrapper comes to the list.
                wrapper = next(self.somebody) if wrapper == _SOMEBODY else wrapper
                return f"{wrapper} {inner}"
            case 18:
                return f"find . {one(('-name a', '', '-type f'))} -exec {inner} {one((chr(92) + ';', '{} +', ';'))}"
            case _:
                return f"{inner} {one(_REDIRECTIONS)}"

    # -- soups and mutants ----------------------------------------------------------------------------------------

    def soup(self) -> str:
        parts = [self.rng.choice(NAMES), " "]
        for _ in range(self.rng.randint(1, 7)):
            pick = self.rng.random()
            source = SOUP if pick < 0.6 else _PLAIN if pick < 0.8 else _EXPANDING if pick < 0.85 else NAMES
            parts.append(self.rng.choice(source))
            if self.rng.random() < 0.3:
                parts.append(" ")
        return "".join(parts)

    def mutated(self, text: str) -> str:
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            place = self.rng.randint(0, len(text))
            match self.rng.randint(0, 8):
                case 0 | 1 | 2 | 6 | 7:
                    text = text[:place] + self.rng.choice(SOUP) + text[place + self.rng.randint(0, 1) :]
                case 3:
                    text = text[:place] + text[place + self.rng.randint(1, 3) :]
                case 4:
                    text = text[:place] + self.rng.choice(_PLAIN) + text[place:]
                case _:
                    other = self.rng.choice(self.corpus)
                    text = text[:place] + other[self.rng.randint(0, len(other)) :]
        return text


def corpus() -> Sequence[str]:
    """Return the labelled texts, with their paths made into names: nothing with a slash is ever run."""
    found: list[str] = []
    for name in ("shell_commands", "bash_truth", "everyday_commands"):
        for line in (CORPORA / f"{name}.jsonl").read_text("utf-8").splitlines():
            text = json.loads(line)["text"]
            found.append(text.replace("~/", "\0").replace("/", "_").replace("\0", "~/").replace("kill", "stat"))
    return found
