"""Paths as objects of effects: normalised, resolved against possible working directories, and matched with the sensitive ones.

Lexical only: symbolic links on the target can't be known. Patterns are of `data/paths.yaml`; a pattern without a leading
slash matches at any depth, `*` stays inside one component and `**` crosses them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NULL_DEVICES = frozenset({"/dev/null", "/dev/zero", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/full"})


def normal(path: str) -> str:
    """Collapse `.`, `..` and repeated slashes; a leading `//` is a single root (as on Linux)."""
    collapsed = posixpath.normpath(path) if path else "."
    return "/" + collapsed.lstrip("/") if collapsed.startswith("/") else collapsed


def resolved(path: str, directories: Iterable[str]) -> tuple[str, ...]:
    """Return what the path may name: itself when absolute, else one object a possible working directory ("" is the first)."""
    if path.startswith("/"):
        return (normal(path),)
    return tuple(dict.fromkeys(normal(posixpath.join(d, path)) for d in directories))


def _regex(pattern: str) -> str:
    if pattern.endswith("/**"):
        return _regex(pattern.removesuffix("/**")) + "(?:/.*)?"  # the directory itself counts: things are put into it
    out = "".join(
        {"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token))
        for token in re.findall(r"\*\*|.", pattern, re.DOTALL)
    )
    return out if pattern.startswith("/") else "(?:.*/)?" + out


@dataclass(frozen=True, slots=True)
class Sensitive:
    """`secret` paths are never ordinarily read, `guarded` (verb, detail) never ordinarily written, `roots` hold secrets below."""

    secret: tuple[re.Pattern[str], ...]
    guarded: tuple[tuple[re.Pattern[str], str, str], ...]
    roots: tuple[re.Pattern[str], ...]

    @classmethod
    def from_mapping(cls, data: Mapping[str, Mapping[str, Iterable[str]] | Iterable[str]]) -> Sensitive:
        guarded: list[tuple[re.Pattern[str], str, str]] = []
        written = data["write"]
        assert isinstance(written, Mapping)
        for kind, patterns in written.items():
            verb, _, detail = kind.partition("/")
            guarded.extend((re.compile(_regex(p), re.DOTALL), verb, detail) for p in patterns)
        return cls(
            tuple(re.compile(_regex(p), re.DOTALL) for p in data["secret"]),
            tuple(guarded),
            tuple(re.compile(_regex(p), re.DOTALL) for p in data["holds_secrets"]),
        )

    def is_secret(self, path: str, *, recursive: bool = False) -> bool:
        """Tell whether reading the content discloses a secret. With `recursive`, anything below counts too."""
        for candidate in _candidates(path):
            if any(p.fullmatch(candidate) for p in self.secret):
                return True
            if not candidate.startswith("/") and any(p.fullmatch(f"/{candidate}") for p in self.secret):
                return True  # the home of many a service account is /
            if recursive and any(p.fullmatch(candidate) for p in self.roots):
                return True
        return False

    def holds_more(self, path: str, directories: Iterable[str]) -> bool:
        """Tell whether a folder holds places that are more than files: what is put there without a name may be one of them."""
        return any(p.fullmatch(one) for target in resolved(path, directories) for one in _candidates(target) for p in self.roots)

    def guards(self, path: str) -> tuple[str, str] | None:
        """Return the (verb, detail) that writing or deleting the path amounts to besides, or None."""
        for candidate in _candidates(path):
            for pattern, verb, detail in self.guarded:
                if pattern.fullmatch(candidate):
                    return verb, detail
        return None


def _candidates(path: str) -> tuple[str, ...]:
    """A path that climbs may end anywhere: `../../etc/shadow` is tried as `/etc/shadow` too."""
    climbed = re.sub(r"\A(?:\.\./)+", "/", path)
    return (path,) if climbed == path else (path, climbed)
