"""Wrappers that run a command as somebody else, with other rights, in other namespaces or as a unit of its own.

Each says so as a fact, whatever the command does. Where names may mean other files or programs than here (another mount
namespace, another working directory), the command inside is told and stays opaque; so does every option that is not listed.
Sources: util-linux 2.38, polkit 121, libcap 2.66, systemd 252, bubblewrap 0.8, firejail 0.9.72 (their manuals and code).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from interlock.commands.programs.options import Grammar, Item, Operand, Option, Problem, parse
from interlock.commands.shell.inner import Inner
from interlock.commands.shell.ordinary import assigned, given
from interlock.commands.shell.shells import shell

Reasons = list[tuple[str, str]]


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _read(argv: Sequence[str], grammar: Grammar) -> tuple[list[Item], list[Operand], Reasons]:
    items = parse(argv, grammar, first=1)
    operands = [i for i in items if isinstance(i, Operand)]
    return items, operands, [(i.reason, i.text) for i in items if isinstance(i, Problem)]


def _has(items: Iterable[Item], *names: str) -> bool:
    return any(isinstance(i, Option) and i.name in names for i in items)


def _rest(operands: Sequence[Operand], argv: Sequence[str], opaque: Reasons) -> tuple[int, int] | None:
    """Return where the command stands: everything from its first word on."""
    if not operands:
        opaque.append(("no-command", argv[0]))
        return None
    return operands[0].index, len(argv)


# -- another account ------------------------------------------------------------------------------------------------------

_SU_VALUES = "-c --command --session-command -s --shell -g --group -G --supp-group -w --whitelist-environment"
_SU = Grammar(_words("-l -m -p -f -P --login --preserve-environment --fast --pty"), _words(_SU_VALUES))
_RUNUSER = replace(_SU, values=_SU.values | {"-u", "--user"})


def _su(argv: Sequence[str], grammar: Grammar = _SU) -> Inner:
    """`su [-] [user] -c text`. The shell of the other account is not known: the text stays a person's matter."""
    items, operands, opaque = _read(argv, grammar)
    users = [i.value for i in operands if i.value != "-"]
    text: int | None = None
    for value in given(items, "-c --command --session-command"):
        places = [k for k in range(1, len(argv)) if argv[k] == value]
        text = places[0] if len(places) == 1 else None
        if text is None:
            opaque.append(("interpreter-code", value))
    opaque.extend(("foreign-shell", value) for value in given(items, "-s --shell"))
    if len(users) > 1:
        opaque.append(("unknown-operand", users[1]))
    opaque.append(("foreign-shell", users[0] if users else "root"))
    return Inner(script=text, privilege=users[0] if users else "root", opaque=tuple(opaque))


def _runuser(argv: Sequence[str]) -> Inner:
    """`runuser -u user [--] command`; without `-u` it is su. It takes options from behind the command too, up to a `--`."""
    items, operands, opaque = _read(argv, _RUNUSER)
    users = given(items, "-u --user")
    if not users:
        return _su(argv, _RUNUSER)
    exclusive = "-c --command --session-command -s --shell -l --login -f --fast".split()
    opaque.extend(("unknown-option", i.name) for i in items if isinstance(i, Option) and i.name in exclusive)
    place = _rest(operands, argv, opaque)
    if place is not None and len(operands) != len(argv) - place[0]:
        opaque.append(("unknown-option", "an option of runuser behind the command"))
    return Inner(argv=place, privilege=users[-1] or "root", opaque=tuple(opaque))


def _pkexec(argv: Sequence[str]) -> Inner:
    """Without `--keep-cwd` the command begins in the other account's home."""
    grammar = Grammar(_words("--disable-internal-agent --keep-cwd"), _words("-u --user"), permute=False)
    items, operands, opaque = _read(argv, grammar)
    if not _has(items, "--keep-cwd"):
        opaque.append(("working-directory", "pkexec"))
    user = (given(items, "-u --user") or ["root"])[-1]
    return Inner(argv=_rest(operands, argv, opaque), privilege=user or "root", opaque=tuple(opaque))


# -- other rights ---------------------------------------------------------------------------------------------------------

_SETPRIV_USERS = "--ruid --euid --reuid"
_SETPRIV = Grammar(
    _words("--nnp --no-new-privs --clear-groups --keep-groups --init-groups --reset-env"),
    _words(f"{_SETPRIV_USERS} --ambient-caps --inh-caps --bounding-set --rgid --egid --regid --groups --securebits --pdeathsig"),
    permute=False,
)


def _setpriv(argv: Sequence[str]) -> Inner:
    items, operands, opaque = _read(argv, _SETPRIV)
    users = list(dict.fromkeys(given(items, _SETPRIV_USERS)))
    if len(users) > 1:
        opaque.append(("unknown-operand", " ".join(users)))  # a process of two accounts
    rights = (("privilege", "capabilities and groups", "rights"),)
    return Inner(argv=_rest(operands, argv, opaque), privilege=users[-1] if users else "", facts=rights, opaque=tuple(opaque))


_CAPSH = re.compile(
    r"--(?:print|quiet|strict|current|noamb|no-new-privs"
    r"|(?:addamb|delamb|caps|drop|inh|iab|mode|secbits|keep|gid|groups|uid|cap-uid|user)=.*)"
)


def _capsh(argv: Sequence[str]) -> Inner | None:
    """What stands behind `--` is for bash; without it nothing is started."""
    if "--" not in argv:
        return None
    split = argv.index("--")
    before = argv[1:split]
    opaque = [("unknown-option", word) for word in before if not _CAPSH.fullmatch(word)]
    users = [word.partition("=")[2] for word in before if word.startswith(("--uid=", "--cap-uid=", "--user="))]
    inner = shell(["bash", *argv[split + 1 :]]) or Inner(opaque=(("no-command", "capsh"),))
    return replace(
        inner,
        script=None if inner.script is None else inner.script + split,
        privilege=users[-1] if users else "",
        facts=(("privilege", "capabilities and groups", "rights"),),
        opaque=(*opaque, *inner.opaque),
    )


# -- other namespaces -----------------------------------------------------------------------------------------------------

_KINDS = {
    "-m": "mount", "-u": "uts", "-i": "ipc", "-n": "net", "-p": "pid", "-C": "cgroup", "-U": "user", "-T": "time",
}  # fmt: skip
_KIND_OPTIONS = frozenset(_KINDS) | {f"--{kind}" for kind in _KINDS.values()}
_NSENTER = Grammar(
    _words("-a -F --all --no-fork --preserve-credentials"), _words("-t -S -G --target --setuid --setgid"),
    _KIND_OPTIONS | {"-r", "--root"}, permute=False,
)  # fmt: skip
_UNSHARE = Grammar(
    frozenset(_KINDS) | _words("-f -r -c --fork --map-root-user --map-current-user --map-auto --keep-caps"),
    _words("--map-user --map-group --map-users --map-groups --propagation --setgroups --monotonic --boottime"),
    frozenset(f"--{kind}" for kind in _KINDS.values()) | {"--kill-child", "--mount-proc"}, permute=False,
)  # fmt: skip


def _kinds(items: Iterable[Item]) -> str:
    """Name the namespaces, and the file of one that is named by a file."""
    found: dict[str, None] = {}
    for item in items:
        if isinstance(item, Option) and item.name in _KIND_OPTIONS:
            kind = _KINDS.get(item.name) or item.name.removeprefix("--")
            found[f"{kind}={item.value}" if item.value else kind] = None
    return " ".join(found)


def _nsenter(argv: Sequence[str]) -> Inner:
    """Behind another mount namespace or root, names are those of another tree; a network of its own changes no name of a file."""
    items, operands, opaque = _read(argv, _NSENTER)
    target = (given(items, "-t --target") or [""])[-1]
    which = "all" if _has(items, "-a", "--all") else _kinds(items)
    if users := given(items, "-S --setuid"):
        which += f" as user {users[-1]}"
    host = ""
    if _has(items, "-a", "--all", "-m", "--mount", "-r", "--root"):
        host = f"namespace:{target or which}"
        opaque.append(("unknown-program", f"programs in the mount namespace of {target}".strip()))
    fact = ("privilege", f"{which} of process {target}" if target else which or "none", "namespace")
    return Inner(argv=_rest(operands, argv, opaque), host=host, facts=(fact,), opaque=tuple(opaque))


def _unshare(argv: Sequence[str]) -> Inner:
    """New namespaces begin as copies: names stay what they are until something is mounted. Files for them are mounts, too."""
    items, operands, opaque = _read(argv, _UNSHARE)
    opaque.extend(
        ("unexpected-value", item.value)
        for item in items
        if isinstance(item, Option) and item.value and item.name in _KIND_OPTIONS | {"--mount-proc"}
    )
    # The root of a new user namespace has rights within it and none outside: what it does to files, the account does.
    fact = ("privilege", f"new {_kinds(items) or 'user'}", "namespace")
    return Inner(argv=_rest(operands, argv, opaque), facts=(fact,), opaque=tuple(opaque))


_BWRAP_FLAGS = _words(
    "--unshare-all --share-net --unshare-user --unshare-user-try --unshare-ipc --unshare-pid --unshare-net --unshare-uts"
    " --unshare-cgroup --unshare-cgroup-try --disable-userns --clearenv --new-session --die-with-parent --as-pid-1"
)
_BWRAP_BINDS = _words("--bind --bind-try --dev-bind --dev-bind-try --ro-bind --ro-bind-try")
_BWRAP_ONE = _words("--hostname --unsetenv --dev --proc --tmpfs --mqueue --dir --remount-ro --cap-drop --uid --gid")


def _bwrap(argv: Sequence[str]) -> Inner:
    """Where every bind keeps its name, a file is the one of that name here, or is not there. Where it begins is not known."""
    opaque: Reasons = [("working-directory", "bwrap")]
    index, moved = 1, False
    while index < len(argv) and argv[index].startswith("--"):
        word = argv[index]
        values = argv[index + 1 : index + 3]
        if word == "--":
            index += 1
            break
        if word in _BWRAP_FLAGS:
            index += 1
        elif word in _BWRAP_ONE:
            index += 2
        elif word in _BWRAP_BINDS:
            moved = moved or len(values) < 2 or values[0] != values[1]
            index += 3
        elif word == "--setenv":
            opaque.extend(assigned(["=".join(values)]))
            index += 3
        else:
            opaque.append(("unknown-option", word))
            index += 1
    if moved:
        opaque.append(("unknown-program", "programs below another root"))
    if index >= len(argv):
        opaque.append(("no-command", "bwrap"))
    place = (index, len(argv)) if index < len(argv) else None
    host = "namespace:bwrap" if moved else ""
    return Inner(argv=place, host=host, facts=(("privilege", "new mount", "namespace"),), opaque=tuple(opaque))


_FIREJAIL = re.compile(
    r"--(?:quiet|noprofile|net=none|private-tmp|private-dev|private-cache|seccomp|caps|caps\.drop=all|nonewprivs|noroot|nogroups"
    r"|nosound|no3d|nodvd|notv|nou2f|novideo|noprinters|noinput|nodbus|memory-deny-write-execute|ipc-namespace|machine-id)"
)


def _firejail(argv: Sequence[str]) -> Inner:
    """Profiles are files of any content, and one is read unless `--noprofile` is there."""
    index = next((k for k in range(1, len(argv)) if not argv[k].startswith("-") or argv[k] == "--"), len(argv))
    opaque: Reasons = [("unknown-option", word) for word in argv[1:index] if not _FIREJAIL.fullmatch(word)]
    if "--noprofile" not in argv[1:index]:
        opaque.append(("option-runs-code", "a profile"))
    index += argv[index : index + 1] == ["--"]
    if index >= len(argv):
        opaque.append(("no-command", "firejail"))
    place = (index, len(argv)) if index < len(argv) else None
    return Inner(argv=place, facts=(("privilege", "new mount", "namespace"),), opaque=tuple(opaque))


# -- a unit of its own ----------------------------------------------------------------------------------------------------

_TIMERS = "--on-active --on-boot --on-startup --on-unit-active --on-unit-inactive --on-calendar"
_CHANGES = "--on-timezone-change --on-clock-change"
_SYSTEMD_RUN = Grammar(
    _words(
        "-r -d -t -P -q -G --no-ask-password --user --system --scope --slice-inherit --no-block --remain-after-exit --wait"
        f" --send-sighup --same-dir --pty --pipe --quiet --collect {_CHANGES}"
    ),
    _words(
        f"-u -p -E --unit --property --description --slice --service-type --uid --gid --nice --setenv {_TIMERS}"
    ),
    permute=False,
)  # fmt: skip
_LIMITS = re.compile(
    r"(?:CPUQuota|CPUWeight|MemoryMax|MemoryHigh|MemorySwapMax|IOWeight|TasksMax|LimitNOFILE|Nice|RuntimeMaxSec|TimeoutStopSec"
    r"|OOMScoreAdjust)=[-0-9A-Za-z%.]+"
)


def _systemd_run(argv: Sequence[str]) -> Inner:
    """A unit runs as root, in `/`, with the environment of its manager, and expands `$NAME` in the words of its command."""
    items, operands, opaque = _read(argv, _SYSTEMD_RUN)
    opaque.extend(assigned(given(items, "-E --setenv")))
    opaque.extend(("option-runs-code", p) for p in given(items, "-p --property") if not _LIMITS.fullmatch(p))
    place = _rest(operands, argv, opaque)
    scope, mine = _has(items, "--scope"), _has(items, "--user")
    if not scope and place is not None:
        opaque.extend(("parameter", word) for word in argv[place[0] :] if "$" in word)
    if not scope and not _has(items, "-d", "--same-dir"):
        opaque.append(("working-directory", "systemd-run"))
    later = _has(items, *_TIMERS.split(), *_CHANGES.split())
    facts = (("schedule" if later else "service", (given(items, "-u --unit") or ["systemd-run"])[-1], "unit"),)
    account = (given(items, "--uid") or ["" if mine or scope else "root"])[-1]
    closed = not (scope or _has(items, "-t", "--pty", "-P", "--pipe"))
    return Inner(argv=place, privilege=account, closed_input=closed, facts=facts, opaque=tuple(opaque))


APART: Mapping[str, Callable[[Sequence[str]], Inner | None]] = {
    "su": _su, "runuser": _runuser, "pkexec": _pkexec, "setpriv": _setpriv, "capsh": _capsh, "nsenter": _nsenter,
    "unshare": _unshare, "bwrap": _bwrap, "firejail": _firejail, "systemd-run": _systemd_run,
}  # fmt: skip
ACCOUNTS = frozenset(("sudo", "doas", "gosu", "su-exec", "strace", "ltrace", *APART))
"""What may run a command as another account, whose home is another."""
