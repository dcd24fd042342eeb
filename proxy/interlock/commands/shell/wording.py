"""Effects of shell commands in words: one function a verb of SHELL_VERBS. Objects and details: docs/commands.md."""

from __future__ import annotations

from collections.abc import Mapping

from interlock.commands.display import inline
from interlock.commands.model import Effect
from interlock.commands.names import Words, detailed, name


def _below(effect: Effect) -> str:
    """The path, as people call it."""
    path = {".": "the working directory", "/": "/ (the whole machine)"}.get(effect.object, "") or name(effect)
    return f"{path} and everything below it" if effect.recursive else path


def _forced(effect: Effect) -> str:
    return ", by force" if effect.force else ""


_READ_WORDS = {
    "arguments": "only works on its own arguments",
    "stdin": "reads its standard input",
    "home": "looks at the home directory",
    "working-directory": "shows the working directory",
    "environment": "shows environment variables",
    "programs": "shows where programs are",
    "file-index": "searches the index of file names",
    "system": "shows facts about the machine",
    "clock": "shows the time",
    "disk": "shows disks and how full they are",
    "accounts": "shows accounts of the machine",
    "sessions": "shows who is logged in",
    "process-table": "shows running processes",
    "network-state": "shows the state of the network",
    "firewall": "shows firewall rules",
    "kernel-log": "shows the kernel's log",
    "journal": "shows the system's journal",
    "services": "shows services",
    "packages": "shows packages",
    "containers": "shows containers",
    "cluster": "shows what is in the cluster",
    "schedule": "shows scheduled jobs",
    "repository": "shows what is in the repository",
    "cloud": "shows what is in the cloud account",
    "keyring": "shows public keys",
}
_READ_GROUPS = {
    "service": "shows service",
    "container": "shows container",
    "cluster": "shows from the cluster:",
    "cloud": "shows from the cloud:",
}

_WRITES = {
    "append": "adds to",
    "mode": "changes the permissions of",
    "owner": "changes the owner of",
    "attributes": "changes the attributes of",
    "link": "makes a link at",
    "directory": "makes the directory",
    "touch": "creates, or changes the time of,",
    "truncate": "empties or shortens",
    "unpack": "unpacks an archive over",
    "system": "overwrites a file of the operating system:",
    "temporary": "makes a temporary file in",
    "download": "saves what it downloads to",
    "receive": "saves what the client sends, unseen, to",
    "ref-create": "makes the ref",
    "ref-update": "moves, perhaps away from commits that nothing else holds, the ref",
    "patch": "changes by a patch what is in",
    "repository": "changes the repository in",
    "compress": "replaces by its compressed form, or back,",
}


def _read(effect: Effect) -> str:
    if words := _READ_WORDS.get(effect.object):
        return words
    group, slash, named = effect.object.partition("/")
    if slash and group in _READ_GROUPS:
        return f"{_READ_GROUPS[group]} {inline(named)}"
    if effect.detail == "unknown":
        return f"looks at {name(effect)}, which is not known beforehand"
    if effect.detail == "metadata":
        return f"lists {_below(effect)}"
    return f"reads {_below(effect)}"


def _write(effect: Effect) -> str:
    return f"{_WRITES.get(effect.detail, 'writes')} {_below(effect)}" + ("" if effect.detail in _WRITES else detailed(effect))


def _delete(effect: Effect) -> str:
    how = {"moved": "moves away", "shred": "overwrites and deletes", "ref-delete": "deletes the ref"}.get(
        effect.detail, "deletes"
    )
    return f"{how} {_below(effect)}{_forced(effect)}"


def _execute(effect: Effect) -> str:
    match effect.detail:
        case "unknown":
            return f"runs {name(effect)}, a program that Interlock does not know"
        case "path" | "loader":
            return f"changes what programs run later, by writing {name(effect)}"
        case "wrapper":
            return f"starts another command through {name(effect)}"
        case _:
            return f"runs {name(effect, 'a program')}"


def _network(effect: Effect) -> str:
    match effect.detail:
        case "configuration" | "route":
            return f"changes the network configuration: {name(effect, 'of this machine')}"
        case "firewall":
            return f"changes the firewall: {name(effect, 'its rules')}"
        case "lookup":
            return f"looks up {name(effect)} in DNS"
        case "probe":
            return f"tries to reach {name(effect)}"
        case "upload":
            return f"sends data over the network: {name(effect)}"
        case "local-file":
            return f"reads a local file by its address {name(effect)}"
        case "session":
            return f"opens a session on another machine: {name(effect)}"
        case "cluster":
            return f"talks to a cluster: {name(effect)}"
        case _:
            return f"connects to {name(effect, 'the network')}"


def _privilege(effect: Effect) -> str:
    if effect.detail == "set-id":
        return f"lets {name(effect)} run with its owner's rights, whoever starts it"
    if effect.detail == "mount":
        return f"gives a container files or devices of this machine: {name(effect)}"
    if effect.detail == "container":
        return f"loosens what keeps a container apart: {name(effect)}"
    if effect.detail == "namespace":
        return f"runs something in namespaces of its own or of others: {name(effect)}"
    if effect.detail == "rights":
        return f"changes with which rights something runs: {name(effect)}"
    return f"runs something as {name(effect, 'another account')}"


def _interpret(effect: Effect) -> str:
    match effect.detail:
        case "harmless-form" | "filter":
            return f"filters text with a simple {name(effect)} script"
        case "start-up":
            return f"changes a file that shells run at their start: {name(effect)}"
        case "git":
            return f"changes what git runs by itself: {name(effect)}"
        case "push-option":
            return f"gives the hooks of the repository the option {name(effect)}"
        case "project":
            return f"runs code that comes with the project: {name(effect)}"
        case "repository":
            return f"may run code that comes with the repository: {name(effect)}"
        case _:
            return f"runs code in another language, which is not looked into: {name(effect)}"


def _service(effect: Effect) -> str:
    if effect.detail == "unit":
        return f"changes how a service is started: {name(effect)}"
    if effect.object == "manager":
        return "changes the service manager itself"
    action = next((word for word in effect.argv[1:] if word in _SERVICE_ACTIONS), "")
    return f"{_SERVICE_ACTIONS.get(action, 'starts, stops or changes')} the service {name(effect)}"


_SERVICE_ACTIONS = {
    "start": "starts",
    "stop": "stops",
    "restart": "restarts",
    "reload": "reloads",
    "enable": "starts at every boot",
    "disable": "no longer starts at boot",
    "mask": "makes impossible to start",
    "kill": "kills",
}


def _package(effect: Effect) -> str:
    match effect.object, effect.detail:
        case _, "sources":
            return f"changes where packages come from: {name(effect)}"
        case _, "code":
            return f"installs a package and runs its code: {name(effect)}"
        case "index", _:
            return "updates the list of packages"
        case "all", _:
            return "installs, updates or removes packages: any of them"
        case _:
            return f"installs, updates or removes the package {name(effect)}"


def _container(effect: Effect) -> str:
    match effect.detail:
        case "prune":
            return "deletes every container, image or volume that is not in use"
        case "image":
            return f"changes the container image {name(effect)}"
        case _:
            return f"starts, stops, changes or enters the container {name(effect)}"


def _cluster(effect: Effect) -> str:
    match effect.detail:
        case "delete":
            return f"deletes from the cluster: {name(effect)}"
        case "node":
            return f"changes a machine of the cluster: {name(effect)}"
        case "configuration":
            return f"changes which cluster is used, or as whom: {name(effect)}"
        case _:
            return f"changes in the cluster, or enters: {name(effect)}"


def _cloud(effect: Effect) -> str:
    if effect.object == "all":
        return "changes anything in the cloud account"
    ways = {
        "read": "asks the cloud for what may hold secrets:",
        "delete": "deletes in the cloud:",
        "write": "changes in the cloud:",
    }
    return f"{ways.get(effect.detail, 'may change anything in the cloud:')} {name(effect)}"


def _identity(effect: Effect) -> str:
    if effect.detail == "cloud":
        return f"changes who may do what in the cloud: {name(effect)}"
    what = {"password": "the password of", "keys": "who may log in by key as", "accounts": "accounts or their rights:"}
    return f"changes {what.get(effect.detail, 'accounts:')} {name(effect, 'accounts of this machine')}"


def _secret(effect: Effect) -> str:
    words = {
        "process-environment": "environment variables of running programs",
        "environment": "environment variables",
        "network-traffic": "what others send over the network",
        "private-key": "a private key, or what it protects",
        "release": "the values of a release",
    }
    return f"shows credentials or other secrets: {words.get(effect.object) or _below(effect)}"


def _schedule(effect: Effect) -> str:
    if effect.detail == "remove":
        return f"removes scheduled jobs: {name(effect)}"
    return f"makes something run later, by itself: {name(effect)}"


def _kernel(effect: Effect) -> str:
    match effect.detail:
        case "power":
            return "stops or restarts the whole machine"
        case "clock":
            return f"sets the machine's clock: {name(effect)}"
        case "module":
            return f"loads or removes a part of the kernel: {name(effect)}"
        case "format":
            return f"erases a disk by formatting it: {name(effect)}"
        case "mount" | "unmount":
            return f"{effect.detail}s a file system: {name(effect)}"
        case "device":
            return f"writes to a device past its file system: {name(effect)}"
        case "hostname":
            return f"renames the machine: {name(effect)}"
        case "boot":
            return f"changes how the machine boots: {name(effect)}"
        case _:
            return f"changes a setting of the kernel: {name(effect)}"


def _process(effect: Effect) -> str:
    if effect.detail == "all":
        return "signals every process that it may" + (", killing them at once" if effect.force else "")
    how = "kills at once" if effect.force else "stops or signals"
    return f"{how} the process {name(effect)}"


def _history(effect: Effect) -> str:
    return f"removes or changes traces: {name(effect, 'logs')}"


SHELL_WORDS: Mapping[str, Words] = {
    "execute": _execute, "read": _read, "write": _write, "delete": _delete, "network": _network, "privilege": _privilege,
    "interpret": _interpret, "service": _service, "package": _package, "container": _container, "cluster": _cluster,
    "cloud": _cloud, "identity": _identity, "secret": _secret, "schedule": _schedule, "kernel": _kernel,
    "process": _process, "history": _history,
}  # fmt: skip
