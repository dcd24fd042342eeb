"""Where a program runs, and which program a name means."""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM_DIRECTORIES = frozenset({"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program runs: behind which wrappers, on which host, from which possible working directories.

    `items` are what `{}` stands for (the starting points of a `find`). `unknown` are words as they are written, whose
    value only the shell at the target knows (`$x`, `*.log`), and what an `xargs` reads.
    """

    via: tuple[str, ...] = ()
    origin: str = "direct"
    host: str = ""
    directories: tuple[str, ...] = ("",)
    items: tuple[str, ...] = ()
    unknown: frozenset[str] = frozenset()
    alone: bool = False  # nothing else is in the text, nor in the texts around it
    homes: bool = False  # a word here or before begins with the `~` of the account

    def is_home(self, path: str) -> bool:
        """Tell whether a path begins with a `~` that the shell replaces. Beside one, a quoted tilde makes a text opaque."""
        return self.homes and (path == "~" or path.startswith("~/"))


def identity(name: str) -> str | None:
    """Return the base name when the program is taken from PATH or a system directory; any other path is None."""
    if "/" not in name:
        return name
    folder, _, base = name.rpartition("/")
    return base if folder in SYSTEM_DIRECTORIES and base else None
