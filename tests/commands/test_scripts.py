"""Scripts on standard input, as text: what can't be known of one is never let through without a person."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from interlock.commands.model import Analysis, Stdin

UNREADABLE = (
    b"cat\nrm -rf /srv/none\n",
    b"python3 -\nprint(1)\n", b"bash\necho x\n", b"xargs touch\nx\n", b"read line\nx\n", b"tee file\ncontent\n",
    b"echo a\0b\n", b"echo \xff\n", b"echo a\rrm\n", "echo \u202e\n".encode(), b"echo $(\n", b"eval \"$x\"\n", b". ./x\n",
    b"psql\nDELETE FROM t;\n", b"ssh other\nuptime\n", b"while read x; do echo $x; done\n1\n",
)  # fmt: skip


@pytest.mark.parametrize("script", UNREADABLE)
@pytest.mark.parametrize("reader", ["bash -s", "sh -s"])
def test_a_script_that_reads_itself_or_can_not_be_read_is_opaque(
    analyse: Callable[..., Analysis], reader: str, script: bytes
) -> None:
    found = analyse(reader, stdin=script)
    assert found.opaque
    assert found.sent is None


def test_a_script_that_is_known_is_static_and_its_reader_is_what_is_sent(analyse: Callable[..., Analysis]) -> None:
    found = analyse("bash -s", stdin=b"# a script\ncat notes\nuptime\n")
    assert (found.static, found.stdin, found.sent) == (True, Stdin.CODE, "'bash' '-s'")
