"""What touching a path amounts to: the ordinary effect, and a secret that is read or a guard that is taken away by it."""

from __future__ import annotations

from dataclasses import replace

from interlock.commands.model import Effect
from interlock.commands.programs.paths import NULL_DEVICES, Sensitive, resolved
from interlock.commands.programs.place import Place

WORDS = frozenset(
    """arguments stdin home working-directory environment programs file-index system clock disk accounts sessions
    process-table network-state firewall kernel-log journal services service packages containers container cluster
    schedule repository cloud keyring""".split()
)
"""Objects of `read` that are no files. A file of such a name is shown as `./NAME`."""


def path_effects(
    sensitive: Sensitive, verb: str, path: str, base: Effect, place: Place, *, recursive: bool = False
) -> list[Effect]:
    """Return the effects of reading, listing, writing or deleting a path: the ordinary one and what it amounts to."""
    found: list[Effect] = []
    if "{}" in path and place.items:
        once = replace(place, items=())
        return [e for item in place.items for e in path_effects(sensitive, verb, item, base, once, recursive=True)]
    unknown, home = path in place.unknown, place.is_home(path)
    targets = (path,) if unknown else resolved(path, place.directories)
    if home:
        targets = resolved(path.lstrip("~").lstrip("/"), ("",))  # the first working directory is the account's home
    for target in targets:
        if target in NULL_DEVICES and verb in ("read", "list", "write"):
            continue
        detail, verb_shown = base.detail, verb
        if verb == "list":
            detail, verb_shown = "metadata", "read"
        if unknown and verb_shown == "read":
            detail = "unknown"
        if verb == "read" and sensitive.is_secret(target, recursive=recursive):
            found.append(touching(base, "secret", target, "", recursive))
        if verb in ("write", "delete") and (guard := sensitive.guards(target)) is not None:
            if guard[0] == "write":
                detail = detail or guard[1]
            else:
                found.append(touching(base, guard[0], target, guard[1], recursive))
        found.insert(0, touching(base, verb_shown, target, detail, recursive))
        if home:
            found = [replace(e, object=_from_home(e.object)) for e in found]
        elif not unknown and (target.partition("/")[0] in WORDS or target.startswith("~")):
            found[0] = replace(found[0], object=f"./{target}")
    return found


def _from_home(target: str) -> str:
    return "~" if target == "." else target if target.startswith("..") else f"~/{target}"


def touching(base: Effect, verb: str, target: str, detail: str, recursive: bool) -> Effect:
    return replace(base, verb=verb, object=target, detail=detail, recursive=recursive or base.recursive)
