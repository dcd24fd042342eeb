"""The far ends of programs that copy: `scp -t` and `-f`, `rsync --server`, git's upload-pack, receive-pack, upload-archive.

A client on another machine starts them and speaks a protocol with them over their standard input and output. What
their words say is here: which paths are read, written or deleted. Names that come in the protocol are not (ssh/transfers
looks at those of scp and at the refs of a push), so a folder that is written stands for what is put below it.

Spec: scp.c of OpenSSH 9; options.c of rsync 3.4, `server_options`; git-upload-pack(1), git-receive-pack(1), path.c of
git, `enter_repo`.
"""

from __future__ import annotations

import re

from interlock.commands.model import Stdin
from interlock.commands.programs.options import Grammar, Operand, Option, Problem, parse
from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program

SCP = Grammar(frozenset("-t -f -v -r -p -d -q".split()), permute=False)


def is_scp_end(argv: list[str]) -> bool:
    """Tell whether scp is started as the far end: one of its options, before any operand, is -t or -f."""
    return any(isinstance(i, Option) and i.name in ("-t", "-f") for i in parse(argv, SCP, first=1))


def scp(run: Run, program: Program, first: int) -> None:
    items = parse(run.argv, SCP, first=first)
    names = {i.name for i in items if isinstance(i, Option)}
    places = [i.value for i in items if isinstance(i, Operand)]
    _problems(run, items)
    run.recursive = "-r" in names
    if {"-t", "-f"} <= names or not places or (len(places) > 1 and "-t" in names):
        run.opaque("unknown-operand", "scp that both sends and takes, or has no place")
    for place in places:
        run.path("write" if "-t" in names else "read", place, detail="receive" if "-t" in names else "")
    _speaks(run)


RSYNC = Grammar(
    frozenset(
        # s (the paths come on standard input), M, T and B with values of their own are below or are not known.
        [f"-{letter}" for letter in "vqcaruRblkLKHAXNUpEogDtOJnSWxmyzIdi"]
        + """--server --sender --delete --delete-before --delete-during --delete-delay --delete-after --delete-excluded
        --force --ignore-errors --existing --ignore-existing --size-only --inplace --append --append-verify --partial
        --numeric-ids --safe-links --copy-unsafe-links --copy-devices --specials --no-specials --fuzzy --stats
        --delay-updates --prune-empty-dirs --no-implied-dirs --no-inc-recursive --no-i-r --no-r --no-W --remove-source-files
        --remove-sent-files --from0 --mkpath --list-only --no-relative --no-R --new-compress --old-compress --preallocate
        --open-noatime --munge-links --ignore-missing-args --delete-missing-args --backup""".split()
    ),
    frozenset(
        """-B --block-size --bwlimit --timeout --max-size --min-size --max-delete --max-alloc --modify-window
        --compress-level --compress-choice --checksum-choice --checksum-seed --suffix --log-format --out-format --info
        --debug --skip-compress --stop-at --stop-after --iconv --chmod --outbuf --groupmap --usermap --copy-as
        --backup-dir --partial-dir --temp-dir -T --compare-dest --copy-dest --link-dest --files-from""".split()
    ),
    frozenset({"-e"}),
    permute=False,
    complete=True,
)
"""Every long option is listed on purpose: what is not here is not known to be harmless (`--log-file`, `--daemon`, `--config`,
`--write-devices`, `--super` and whatever comes)."""

_RSYNC_OPAQUE = frozenset("--copy-as --iconv --usermap --groupmap --copy-devices".split())
_RSYNC_WRITES = frozenset("--backup-dir --partial-dir --temp-dir -T".split())
_RSYNC_READS = frozenset("--compare-dest --copy-dest --link-dest".split())
_RSYNC_DELETES = frozenset(
    """--delete --delete-before --delete-during --delete-delay --delete-after --delete-excluded --delete-missing-args""".split()
)
_RSYNC_SENT = frozenset("--remove-source-files --remove-sent-files".split())
_CAPABILITIES = re.compile(r"[0-9]*\.[0-9]*[A-Za-z]*\Z")
"""What stands behind `e` at a server: no shell, but the version and features of the client (compat.c)."""


def rsync(run: Run, program: Program, first: int) -> None:
    """`--server [--sender] OPTIONS . PATH…`."""
    items = parse(run.argv, RSYNC, first=first)
    options = [i for i in items if isinstance(i, Option)]
    names = {i.name for i in options}
    places = [i.value for i in items if isinstance(i, Operand)]
    _problems(run, items)
    if run.argv[1] != "--server" or not places or places[0] != ".":
        run.opaque("unknown-operand", "rsync whose paths do not come behind a dot")
    sends = "--sender" in names
    # Which names come is said in the protocol: without -r they are still put into a folder of that name.
    run.recursive = bool({"-r", "-a", "--files-from"} & names) or not sends
    run.force = "--force" in names
    for option in options:
        value = option.value or ""
        if option.name == "-e" and not _CAPABILITIES.match(value):
            run.opaque("option-runs-code", value)
        elif option.name == "--files-from" and value != "-":
            run.path("read", value)
            run.opaque("arguments-from-file", value)
        elif option.name in _RSYNC_OPAQUE:
            run.opaque("unknown-option", option.name)
        elif option.name in _RSYNC_WRITES:
            run.path("write", value)
        elif option.name in _RSYNC_READS:
            run.path("read", value)
    _rsync_places(run, places[1:], names, sends=sends)
    _speaks(run)


def _rsync_places(run: Run, places: list[str], names: set[str], *, sends: bool) -> None:
    if not places or (len(places) > 1 and not sends):
        run.opaque("unknown-operand", "rsync without its paths")
    for place in places:
        run.path("read" if sends else "write", place, detail="" if sends else "receive")
        if (sends and names & _RSYNC_SENT) or (not sends and names & _RSYNC_DELETES):
            run.path("delete", place)
        if not sends and run.sensitive.holds_more(place, run.place.directories):
            run.opaque("names-unknown", place)


GIT = {
    "upload-pack": Grammar(frozenset({"--strict", "--no-strict"}), frozenset({"--timeout"}), permute=False),
    "receive-pack": Grammar(permute=False),
    "upload-archive": Grammar(permute=False),
}


def git(run: Run, program: Program, first: int) -> None:
    """Reads a repository. What a push changes in it is decided when its refs are known: a decision of its own."""
    service = program.name.removeprefix("git").lstrip("- ")
    items = parse(run.argv, GIT[service], first=first)
    places = [i.value for i in items if isinstance(i, Operand)]
    _problems(run, items)
    if len(places) != 1:
        run.opaque("unknown-operand", f"{service} without its one repository")
    if service == "upload-archive":
        # Attributes of the files name filters, and the configuration says what those run.
        run.add("interpret", "git", detail="repository")
    run.recursive = True
    for place in places[:1]:
        paths, known = ([place], True) if run.place.is_home(place) else repositories(place)
        if not known or (place.startswith("~") and run.place.directories != ("",)):
            run.opaque("tilde", place)
        for path in paths:
            run.path("read", path)
    _speaks(run)


def repositories(place: str) -> tuple[list[str], bool]:
    """Return what git may open for a name, and whether that is all: it expands a tilde itself, and tries `.git` behind it."""
    known = not place.startswith("~") or place == "~" or place.startswith("~/")
    if known and place.startswith("~"):
        place = place[2:] or "."
    return [place] if place.endswith((".git", "/", ".")) else [place, f"{place}.git"], known


def _problems(run: Run, items: list[Option | Operand | Problem]) -> None:
    for item in items:
        if isinstance(item, Problem):
            run.opaque(item.reason, item.text)


def _speaks(run: Run) -> None:
    """Their input is a protocol when nothing else is there: only then is it known whose it is, and what may be in it."""
    place = run.place
    if place.alone and not place.via and not place.host and place.origin == "direct":
        run.outcome.stdin = Stdin.PROTOCOL
    else:
        run.outcome.stdin = Stdin.DATA
        run.opaque("transfer-not-alone", run.argv[0])
