"""`~` of the account itself: relative to where it logs in, as sensitive as that, and sent without losing its meaning."""

from __future__ import annotations

import shutil
import subprocess

import pytest

EFFECTS = [
    ("cat ~/notes", ("read", "~/notes")),
    ("ls ~", ("read", "~")),
    ("rm -rf ~", ("interpret", "~")),
    ("cat ~/.ssh/id_ed25519", ("secret", "~/.ssh/id_ed25519")),
    ("cat ~/../../etc/shadow", ("secret", "../../etc/shadow")),
    ("cat ~//./.aws/credentials", ("secret", "~/.aws/credentials")),
    ("grep -r x ~", ("secret", "~")),
    ("find ~ -exec cat '{}' +", ("secret", "~")),
    ("find ~/src -print0 | xargs -0 rm", ("delete", "~/src")),
    ("echo x > ~/.bashrc", ("interpret", "~/.bashrc")),
    ("cp x ~/.ssh", ("identity", "~/.ssh")),
    ("cd /srv && rm ~/x", ("delete", "~/x")),
    ("cd ~/.ssh && cat id_x", ("secret", ".ssh/id_x")),
    ("tar cf /tmp/x -C ~/.aws credentials", ("read", "~/.aws/credentials")),
    ("cat '~/x'", ("read", "./~/x")),
]


@pytest.mark.parametrize(("text", "wanted"), EFFECTS)
def test_what_a_tilde_is(analyse, text: str, wanted: tuple[str, str]) -> None:
    analysis = analyse(text)
    assert analysis.opaque == ()
    assert wanted in {(e.verb, e.object) for e in analysis.effects}


def test_another_working_directory_is_not_the_home(analyse) -> None:
    assert analyse("cat ~/x", cwd="/srv").opaque


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "busybox"])
def test_what_is_sent_means_the_same_in_every_shell(analyse, shell: str) -> None:
    if (path := shutil.which(shell)) is None:
        pytest.skip(f"no {shell}")
    sent = analyse("echo ~ ~/ ~/'a b' ~/c\\*d 'e~'").sent
    assert sent == "'echo' ~ ~/ ~/'a b' ~/'c*d' 'e~'"
    words = [path, "sh", "-c"] if shell == "busybox" else [path, "-c"]
    said = subprocess.run(
        [*words, sent], env={"HOME": "/h  *o", "PATH": "/nowhere"}, capture_output=True, text=True, timeout=45, check=True
    )
    assert said.stdout == "/h  *o /h  *o/ /h  *o/a b /h  *o/c*d e~\n"
