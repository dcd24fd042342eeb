"""git: the exact forms of looking that start no program, whatever the configuration of the repository says.

Whoever wrote a repository may have written its configuration, and git runs what it names: `core.fsmonitor`, filters and
hooks when it looks at files, textconv and external commands when it compares, `gpg.program` when a signature is shown
(`log.showSignature`, or `%G?` in `format.pretty`), a transport when an object is missing in a partial clone. Each form
here needs none of them, and says so by options that come before the configuration; a git that does not know such an
option fails. tests/commands/test_repositories.py runs them in a repository whose configuration names all of those.

Not among them, because no option turns everything off: status and diff (filters of any name in .gitattributes, and the
hook that runs when the index is written), show (compares), branch and tag (`branch.sort` may ask for signatures).

Spec: git-config(1), git(1) of 2.45 for `--no-lazy-fetch`.
"""

from __future__ import annotations

import re

from interlock.commands.programs.options import Operand, Option, Problem, parse
from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program

_NAMED_FORMATS = frozenset("oneline short medium full fuller reference email mboxrd raw".split())
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./~^@-]*")
"""A revision, a range, or a path. A colon would reach for files of the index, and for magic of pathspecs."""

_LOG_HARMLESS = frozenset(
    """--no-show-signature --oneline --format --pretty -n --max-count --skip --since --until --after --before --author
    --committer --grep --all --branches --tags --remotes --graph --decorate --no-decorate --merges --no-merges
    --first-parent --reverse --abbrev-commit --date --no-color""".split()
)
_COUNT_HARMLESS = frozenset(
    """--count --all --branches --tags --remotes -n --max-count --skip --since --until --after --before --author --merges
    --no-merges --first-parent --reverse""".split()
)
_HARMLESS = {
    "log": _LOG_HARMLESS,
    "rev-list": _COUNT_HARMLESS,
    "rev-parse": frozenset("--abbrev-ref --verify -q --quiet --short".split()),
    "show-ref": frozenset("--head --heads --tags -d --dereference -s --hash --abbrev --verify -q --quiet".split()),
    "merge-base": frozenset("-a --all --octopus --is-ancestor --fork-point".split()),
    "describe": frozenset("--tags --all --always --long --abbrev --exact-match --match --first-parent".split()),
    "ls-tree": frozenset("-r -d -t -l -z --long --name-only --name-status --full-name --full-tree --abbrev".split()),
}


def git(run: Run, program: Program, first: int) -> None:
    """One subcommand; `first` is the index behind its name."""
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    run.add("read", "repository")
    subcommand = program.name.rpartition(" ")[2]
    options = [i for i in items if isinstance(i, Option)]
    operands = [i.value for i in items if isinstance(i, Operand)]
    readable = all(_REVISION.fullmatch(operand) for operand in operands) and not any(isinstance(i, Problem) for i in items)
    before = run.argv[1 : first - 1]
    if not (readable and _starts_nothing(subcommand, before, options, operands)):
        run.add("interpret", "git", detail="repository")


def _starts_nothing(subcommand: str, before: list[str], options: list[Option], operands: list[str]) -> bool:
    names = {option.name for option in options}
    if subcommand == "remote":
        return not options and not operands  # the names alone
    if subcommand == "rev-parse" and set(operands) <= {"HEAD"}:
        return True  # no object is looked at, so none can be missing
    if "--no-lazy-fetch" not in before or not names <= _HARMLESS.get(subcommand, frozenset()):
        return False
    if subcommand == "log":
        formats = [o.value or "" for o in options if o.name in ("--format", "--pretty")]
        plain = all(_plain_format(one) for one in formats)
        return "--no-show-signature" in names and bool(formats or "--oneline" in names) and plain
    return subcommand in _HARMLESS


def _plain_format(text: str) -> bool:
    """Tell whether a format is what it says, and asks for no signature. Other names may be those of the configuration."""
    if text in _NAMED_FORMATS:
        return True
    own = text.startswith(("format:", "tformat:")) or "%" in text
    return own and "%G" not in text and "%(describe" not in text
