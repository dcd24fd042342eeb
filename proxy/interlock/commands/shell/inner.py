"""What a wrapper runs: the words, or the text, of the command inside. Knows no program. Spec: commands.md, item 4."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Inner:
    """What a wrapper runs: at most one of `argv`, `script`, `text`, `joined` and `reads_script`.

    `closed_input` says that standard input does not reach the inner command. `privilege` is the account it runs as, when
    another.
    """

    argv: tuple[int, int] | None = None  # slice of the outer argv
    script: int | None = None  # index of a word that a shell parses
    text: str = ""  # a part of a word, that a shell parses
    joined: tuple[int, int] | None = None  # slice that is joined with blanks and parsed by a shell
    reads_script: bool = False  # a shell that reads commands from standard input
    name: str = ""  # set when the program's own entry has said what it does itself
    privilege: str = ""
    host: str = ""
    verb: str = ""  # effect verb of the wrapper itself; default `execute`
    object: str = ""
    facts: tuple[tuple[str, str, str], ...] = ()  # further effects of the wrapper itself: verb, object, detail
    writes: tuple[str, ...] = ()  # files that the wrapper writes
    reads: bool = False  # the wrapper reads standard input as data
    closed_input: bool = False
    items: tuple[str, ...] = ()
    mark: str = ""  # another way to write `{}`
    more: int = 0  # how many further `{}` stand behind the words: what is found may be several
    optional: bool = False  # with nothing found the command may run without any of them
    opaque: tuple[tuple[str, str], ...] = ()
