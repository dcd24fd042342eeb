"""Programs that start a pager on a terminal; a pager starts a shell at a key press.

Knows how each is told not to. Spec: systemctl(1), git(1), aws "Client-side pager", nmcli(1).
"""

from __future__ import annotations

from collections.abc import Sequence

PAGING = frozenset(
    """systemctl journalctl timedatectl hostnamectl loginctl networkctl resolvectl systemd-analyze git apt dpkg dpkg-query
    man more aws nmcli""".split()
)
_WITHOUT = frozenset(("--no-pager", "--no-cli-pager"))


def pages(name: str | None, argv: Sequence[str]) -> bool:
    """Tell whether the program would start a pager, were its output a terminal.

    The option that forbids it has to be one: behind another option it may be that one's value (`journalctl -u
    --no-pager`), behind `--` it is a name.
    """
    if name not in PAGING:
        return False
    end = argv.index("--") if "--" in argv else len(argv)
    return not any(word in _WITHOUT and (place == 0 or not argv[place].startswith("-")) for place, word in enumerate(argv[1:end]))
