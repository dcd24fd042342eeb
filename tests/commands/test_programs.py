"""What programs do with their arguments. One line a fact: add one when you add a program (docs/commands.md)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from interlock.commands.model import SHELL_VERBS, Stdin
from interlock.commands.programs.loader import programs, sensitive_paths
from interlock.commands.programs.place import Place, identity
from interlock.commands.programs.rules import Rules
from interlock.commands.programs.schema import SchemaError, program

EFFECTS = {
    # reading
    "cat /etc/hosts": {("read", "/etc/hosts")},
    "cat": {("read", "stdin")},
    "cat -": {("read", "stdin")},
    "ls -la": {("read", ".")},
    "ls -R /srv/": {("read", "/srv")},
    "ps aux": {("read", "process-table")},
    "ps -ef": {("read", "process-table")},
    "ps auxe": {("read", "process-table"), ("secret", "process-environment")},
    "uptime": {("read", "system")},
    "df -h": {("read", "disk")},
    "echo -n hi": {("read", "arguments")},
    "head -5 a b": {("read", "a"), ("read", "b")},
    "tail -n5 -f /var/log/syslog": {("read", "/var/log/syslog")},
    "grep -qi x f": {("read", "f")},
    "grep -e x -f pats f": {("read", "pats"), ("read", "f")},
    "grep -r x /srv/app": {("read", "/srv/app")},
    "grep -r x": {("read", "."), ("secret", ".")},
    "grep -r x /etc": {("read", "/etc"), ("secret", "/etc")},
    "sort -nrk 3,3 -o out in": {("write", "out"), ("read", "in")},
    "uniq in out": {("read", "in"), ("write", "out")},
    "test -f /etc/hosts": {("read", "/etc/hosts")},
    "find /srv -name x": {("read", "/srv")},
    "diff a b": {("read", "a"), ("read", "b")},
    "cat process-table": {("read", "./process-table")},
    "cat //etc//./hosts": {("read", "/etc/hosts")},
    "journalctl -u nginx --no-pager": {("read", "journal")},
    "systemctl status nginx": {("read", "service/nginx")},
    "kubectl get pods -n web -o wide": {("read", "cluster/pods")},
    "docker ps --format x": {("read", "containers")},
    "sed -n '1,10p' f": {("read", "f"), ("interpret", "sed")},
    "awk '{print $1}' f": {("read", "f"), ("interpret", "awk")},
    "dd if=a of=b": {("read", "a"), ("write", "b")},
    # builtins of the shell: alone they change nothing that lasts
    "set -e": {("read", "arguments")},
    "set -euo pipefail; uptime": {("read", "arguments"), ("read", "system")},
    "set": {("read", "environment")},
    "set -x": {("read", "arguments")},
    "alias ll='ls -l'": {("read", "arguments")},
    "shopt -s extglob": {("read", "arguments")},
    "read -r -p 'name? ' PATH": {("read", "stdin")},
    "while read -r line; do uptime; done": {("read", "stdin"), ("read", "system")},
    "aws --region eu-west-1 ec2 describe-instances --output table": {("read", "cloud")},
    "aws s3 ls s3://b/x": {("read", "cloud/s3://b/x")},
    "git rev-parse --abbrev-ref HEAD": {("read", "repository")},
    "git rev-parse HEAD~1": {("read", "repository"), ("interpret", "git")},
    "git status": {("read", "repository"), ("interpret", "git")},
    "git branch": {("read", "repository"), ("interpret", "git")},
    "git remote -v": {("read", "repository"), ("interpret", "git")},
    "openssl x509 -in cert.crt -noout -enddate": {("read", "cert.crt")},
    "openssl version -a": {("read", "system")},
    "gpg --list-keys": {("read", "keyring")},
    "nft list ruleset": {("read", "firewall")},
    "nmcli con show": {("read", "network-state")},
    "screen -ls": {("read", "sessions")},
    "sysctl vm.swappiness": {("read", "system")},
    "unzip -l a.zip": {("read", "a.zip")},
    "echo '1+1' | bc -l": {("read", "arguments"), ("read", "stdin"), ("interpret", "bc")},
    "aws ec2 describe-instances --instance-ids i-1 i-2": {("read", "cloud")},
    "aws ec2 describe-instances --filters file:///etc/shadow": {
        ("read", "cloud"), ("read", "/etc/shadow"), ("secret", "/etc/shadow"), ("network", "file"),
    },
    "bind -l | sort": {("read", "arguments"), ("read", "stdin")},
    "find --version": {("read", "arguments")},
    "aws s3 ls --endpoint-url=http://x": {("read", "cloud"), ("network", "http://x")},
    "docker compose ps": {("read", "containers")},
    "getent passwd deploy": {("read", "accounts")},
    "yum history list": {("read", "packages")},
    "kubectl events -n web": {("read", "cluster")},
    # secrets
    "openssl rsa -in k -noout -text": {("read", "k"), ("secret", "private-key")},
    "helm get values web": {("secret", "release")},
    "tcpdump -i eth0 -w /tmp/x": {("secret", "network-traffic"), ("write", "/tmp/x")},
    "cat /etc/shadow": {("read", "/etc/shadow"), ("secret", "/etc/shadow")},
    "cat .ssh/id_ed25519": {("read", ".ssh/id_ed25519"), ("secret", ".ssh/id_ed25519")},
    "head -1 server.pem": {("read", "server.pem"), ("secret", "server.pem")},
    "cat ../../etc/shadow": {("read", "../../etc/shadow"), ("secret", "../../etc/shadow")},
    "cat /proc/self/root/x": {("read", "/proc/self/root/x"), ("secret", "/proc/self/root/x")},
    "cat /proc/1/environ": {("read", "/proc/1/environ"), ("secret", "/proc/1/environ")},
    "base64 /etc/ssh/ssh_host_rsa_key": {("read", "/etc/ssh/ssh_host_rsa_key"), ("secret", "/etc/ssh/ssh_host_rsa_key")},
    "kubectl get secret db": {("read", "cluster/secret"), ("read", "cluster"), ("secret", "secret")},
    "kubectl get pods,secrets.v1.": {("read", "cluster/pods,secrets.v1."), ("secret", "pods,secrets.v1.")},
    "kubectl get pods -o go-template-file=/etc/shadow": {
        ("read", "cluster/pods"), ("read", "/etc/shadow"), ("secret", "/etc/shadow"),
    },
    "getent shadow": {("read", "accounts"), ("secret", "shadow")},
    "docker inspect web": {("read", "container/web"), ("secret", "environment")},
    # changing
    "rm -rf /var/lib/pg": {("delete", "/var/lib/pg")},
    "rm -fr -- -x": {("delete", "-x")},
    "mv a /tmp/b": {("read", "a"), ("delete", "a"), ("write", "/tmp/b"), ("write", "/tmp/b/a")},
    "cp a /tmp/b": {("read", "a"), ("write", "/tmp/b"), ("write", "/tmp/b/a")},
    "cp -t /tmp a b": {("write", "/tmp"), ("read", "a"), ("read", "b")},
    "cp /tmp/x /etc/cron.d": {
        ("read", "/tmp/x"), ("write", "/etc/cron.d"), ("schedule", "/etc/cron.d"),
        ("write", "/etc/cron.d/x"), ("schedule", "/etc/cron.d/x"),
    },
    "tee /etc/sudoers.d/x": {("read", "stdin"), ("write", "/etc/sudoers.d/x"), ("identity", "/etc/sudoers.d/x")},
    "tee -a .bashrc": {("read", "stdin"), ("write", ".bashrc"), ("interpret", ".bashrc")},
    "touch .ssh/authorized_keys": {("write", ".ssh/authorized_keys"), ("identity", ".ssh/authorized_keys")},
    "chmod 4755 /tmp/x": {("write", "/tmp/x"), ("privilege", "/tmp/x")},
    "chmod -R u+w x": {("write", "x")},
    "chmod -x x": {("write", "x")},
    "chown -R root:root /srv": {("write", "/srv")},
    "truncate -s 0 /srv/data.db": {("write", "/srv/data.db")},
    "dd if=/dev/zero of=/dev/sda": {("write", "/dev/sda"), ("kernel", "/dev/sda")},
    "mkfs.ext4 -F /dev/sdb1": {("write", "/dev/sdb1"), ("kernel", "/dev/sdb1")},
    "tar czf /tmp/b.tgz -C /srv app": {("write", "/tmp/b.tgz"), ("read", "/srv/app")},
    "tar xf a.tar -C /srv/x": {("read", "a.tar"), ("write", "/srv/x")},
    "tar tf a.tar": {("read", "a.tar")},
    "tar xPf a.tar": {("read", "a.tar"), ("write", "/"),},
    "find /srv -delete": {("read", "/srv"), ("delete", "/srv")},
    "sed -i 's/a/b/' f": {("interpret", "sed"), ("read", "f"), ("write", "f")},
    "rsync -a /srv/a h:/srv/b": {("read", "/srv/a"), ("network", "h:/srv/b")},
    "rsync -a --delete a /srv/b": {("read", "a"), ("write", "/srv/b"), ("write", "/srv/b/a"), ("delete", "/srv/b")},
    "scp h:x /tmp": {("network", "h:x"), ("write", "/tmp"), ("write", "/tmp/x")},
    "zip -r a.zip d": {("write", "a.zip"), ("read", "d")},
    "gpg --import k": {("identity", "keyring"), ("read", "k")},
    "npm install x": {("package", "x"), ("interpret", "npm")},
    "make install": {("interpret", "build")},
    "nft add rule x": {("network", "rules")},
    "docker run --rm -v /:/host alpine": {("container", "alpine"), ("privilege", "/:/host")},
    "docker cp web:/x /tmp": {
        ("container", "web:/x"), ("read", "web:/x"), ("write", "web:/x"),
        ("container", "/tmp"), ("read", "/tmp"), ("write", "/tmp"),
    },
    "fdisk /dev/sdb": {("kernel", "disk")},
    "sysctl vm.swappiness=1": {("kernel", "vm.swappiness=1"), ("read", "system")},
    "kill -9 12": {("process", "12")},
    "kill -1": None,
    "systemctl restart nginx": {("service", "nginx")},
    "systemctl reboot": {("kernel", "machine")},
    "reboot": {("kernel", "machine")},
    "apt-get install -y nginx": {("package", "nginx")},
    "apt upgrade": {("package", "all")},
    "useradd -m bob": {("identity", "bob")},
    "crontab -l": {("read", "schedule")},
    "crontab -r": {("schedule", "crontab")},
    "crontab -": {("read", "stdin"), ("schedule", "crontab")},
    "crontab": {("schedule", "crontab")},
    "curl -s -o /tmp/f https://h.example/x": {("write", "/tmp/f"), ("network", "https://h.example/x")},
    "curl file:///etc/shadow": {("read", "/etc/shadow"), ("secret", "/etc/shadow"), ("network", "file:///etc/shadow")},
    "wget -qO- http://h/": {("network", "http://h/")},
    "kubectl delete pod x --force": {("cluster", "pod"), ("cluster", "x"), ("delete", "cluster/pod"), ("delete", "cluster/x")},
    "docker rm -f web": {("container", "web")},
    "date +%s -u": {("read", "clock")},
    "date 010100002030": {("read", "clock"), ("kernel", "010100002030")},
    "top -bn1": {("read", "process-table")},
    "top": {("interpret", "top")},
    "ip -br addr": {("read", "network-state")},
    "ip route show": {("read", "network-state")},
    "ip link set eth0 down": {("network", "eth0"), ("network", "down")},
    "mount -a": {("kernel", "all"), ("read", "system")},
    "dmesg -C": {("history", "kernel-log"), ("read", "kernel-log")},
    "journalctl --vacuum-time=1s": {("history", "journal"), ("read", "journal")},
}  # fmt: skip


CLASSES = {
    "aws ec2 run-instances --image-id x": {("cloud", "write")},
    "aws ec2 terminate-instances --instance-ids i": {("cloud", "delete")},
    "aws iam list-users": {("cloud", "read")},
    "aws iam delete-user --user-name list-x": {("cloud", "delete"), ("identity", "cloud")},
    "aws secretsmanager get-secret-value --secret-id x": {("secret", ""), ("cloud", "read")},
    "aws secretsmanager delete-secret --secret-id x": {("secret", ""), ("cloud", "delete")},
    "aws s3 mv s3://a/x s3://b/x": {("cloud", "write"), ("cloud", "delete")},
    "aws s3api put-bucket-policy --bucket x": {("cloud", "write"), ("identity", "cloud")},
    "aws ecs execute-command --cluster x": {("cloud", "write"), ("network", "session")},
    "aws nosuch frobnicate": {("cloud", "")},
    "gcloud compute instances list": {("cloud", "read")},
    "gcloud compute instances delete x": {("cloud", "delete")},
    "gcloud projects add-iam-policy-binding p": {("cloud", "write"), ("identity", "cloud")},
    "gcloud projects get-iam-policy p": {("cloud", "read")},
    "gcloud auth print-access-token": {("secret", ""), ("identity", "cloud"), ("cloud", "")},
    "gcloud compute ssh x": {("cloud", "write"), ("network", "session")},
    "az vm list": {("cloud", "read")},
    "az group delete -n x": {("cloud", "delete")},
    "az role assignment create --role Owner": {("cloud", "write"), ("identity", "cloud")},
    "az keyvault secret show --name x": {("secret", ""), ("cloud", "read")},
}  # fmt: skip


@pytest.mark.parametrize("text", CLASSES)
def test_calls_of_a_cloud_that_are_not_listed_have_a_class_and_stay_opaque(analyse, text: str) -> None:
    analysis = analyse(text)
    assert {(e.verb, e.detail) for e in analysis.effects} == CLASSES[text]
    assert "unknown-subcommand" in {o.reason for o in analysis.opaque}


def test_a_pager_is_forbidden_only_by_an_option(analyse) -> None:
    for text in ("journalctl -u nginx --no-pager", "systemctl --no-pager status", "aws --no-cli-pager s3 ls"):
        assert analyse(text, pty=True).opaque == ()
    for text in ("journalctl", "journalctl -u --no-pager", "systemctl status -- --no-pager", "aws s3 ls", "nmcli con show"):
        assert {o.reason for o in analyse(text, pty=True).opaque} == {"pager"}
        assert analyse(text).opaque == ()


@pytest.mark.parametrize("text", EFFECTS)
def test_effects(analyse, text: str) -> None:
    analysis = analyse(text)
    assert analysis.unreadable is None
    wanted = EFFECTS[text]
    if wanted is None:
        assert analysis.opaque
        return
    assert analysis.opaque == ()
    assert {(e.verb, e.object) for e in analysis.effects} == wanted


OPAQUE = {
    "unknown-program": [
        "./run.sh", "/tmp/rm x", "/bin/../bin/rm x", "/opt/bin/ls", "nosuch", "source x", "trap x EXIT", "unset x",
        "hash -p /tmp/x ls", "stty kill undef", "less f", "vim -c ':!id'", "man -P id ls",
    ],
    "unknown-option": ["ls --nosuch", "sort --nosuch x", "date -J",
        "aws ec2 describe-instances --cli-input-json x", "aws sts get-caller-identity --no-verify-ssl", "az group list --debug",
        "dmesg -H", "dmesg -F x", "last -f x", "ss -K", "ss -D x", "dpkg --root=x -l",
        "git rev-parse --parseopt", "git rev-parse --resolve-git-dir x",
         "find . -fnord", "uptime -x", "printf -v c x", "head -5c f",
        "dmesg -n 1", "grep -5i x f", "bind -x '\"x\":id'", "bind -f x", "alias -g x=y", "alias -s x=y",
        "set -A x y", "read -u 3 x", "read -a x",
    ],
    "changes-shell": [
        "alias ls='rm x'; ls", "alias ls='rm x'\nls", "set -x; ls", "set -o posix; ls", "set -euo allexport; ls", "set -- a; ls",
        "shopt -s expand_aliases; ls", "shopt -s extglob; ls", "bind a; ls", "eval \"alias ls='rm x'\"; ls", "alias a=b && a",
        "sh -c \"alias ls='rm x'\nls\"", "bash -c 'set -f; ls'", "{ alias a=b; }",
        "alias a=b | ls", "set -k; ls", "set +e -a; ls",
    ],
    "assignment": ["read PATH; ls", "read x LD_PRELOAD; ls", "ls | read IFS", "while read BASH_ENV; do sh -c ls; done"],
    "abbreviated-option": ["sort --rev x"],
    "option-runs-code": [
        "sort --compress-program=./x f", "tar xf a --to-command=sh", "tar cf a b --checkpoint-action=exec=id",
        "git --exec-path=. log", "git -C /tmp/x rev-parse HEAD", "git --git-dir=x rev-parse HEAD",
        "git -c alias.version='!id' version",
        "git -c core.pager='!id' log", "wget --use-askpass=x h",
    ],
    "interpreter-code": [
        "sed 's/a/b/e' f", "sed 's/a/b/w /etc/x' f", "sed 1e f", "awk 'BEGIN{system(\"id\")}'", "awk -f x y", "python3 -c 1",
        "perl -e 1",
    ],
    "unknown-operand": [
        "ip r d default", "ip a f eth0", "pkill -u bob", "umount -a", "kill -9", "chmod 644", "rm", "systemctl edit-all",
    ],
    "unknown-subcommand": [
        "aws ec2 run-instances", "aws ec2 describe-instance-attribute", "aws lambda list-functions",
        "aws ssm get-parameters-by-path",
        "aws s3 cp a s3://b", "aws --region x iam list-access-keys", "gcloud auth print-access-token",
        "gcloud compute instances list",
        "az account get-access-token", "az vm list", "git symbolic-ref refs/heads/x", "git remote-x",
        "docker plugin-x", "kubectl plugin", "git bisect run x", "ip netns exec a b"],
    "arithmetic": [
        "read 'a[$(id)]'", "read x 'b[$(id)]'; ls", "set 'a[$(id)]'", "alias a=b; read 'x?p'",
        "test -v 'a[$(id)]'", "[ 'a[$(id)]' -eq 1 ]",
    ],
    "script-file": ["bash x.sh", "python3 x.py"],
    "remote-session": ["ssh host ls", "ssh -o ProxyCommand=id h", "sftp host"],
    "remote-host": [
        "docker run alpine rm x", "kubectl run x --image y -- rm x", "aws sts get-caller-identity --ca-bundle x",
        "systemctl -H other status", "docker -H tcp://x ps",
    ],
    "other-identity": ["aws --profile admin ec2 describe-instances", "aws sts get-caller-identity --profile=admin"],
    "arguments-from-file": ["tar cf a -T list", "sort --files0-from=x"],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "text"), [(r, t) for r, texts in OPAQUE.items() for t in texts])
def test_what_is_not_listed_is_opaque(analyse, reason: str, text: str) -> None:
    analysis = analyse(text)
    assert reason in {o.reason for o in analysis.opaque}
    assert analysis.sent is None
    assert analysis.effects


FLAGS = [
    ("rm -rf x", "delete", True, True),
    ("rm -r x", "delete", True, False),
    ("rm --recur --forc x", "delete", True, True),
    ("rm x", "delete", False, False),
    ("kill -KILL 5", "process", False, True),
    ("cp -a d e", "write", True, False),
    ("docker rm --force x", "container", False, True),
]


@pytest.mark.parametrize(("text", "verb", "recursive", "force"), FLAGS)
def test_recursive_and_force(analyse, text: str, verb: str, recursive: bool, force: bool) -> None:
    effect = next(e for e in analyse(text).effects if e.verb == verb)
    assert (effect.recursive, effect.force) == (recursive, force)


STDIN = {
    "ls": Stdin.IGNORED,
    "cat f": Stdin.IGNORED,
    "cat": Stdin.DATA,
    "grep x": Stdin.DATA,
    "sudo tee /etc/x": Stdin.DATA,
    "kubectl apply -f -": Stdin.DATA,
    "crontab -": Stdin.DATA,
    "xargs rm": Stdin.DATA,
    "patch": Stdin.DATA,
    "tar x": Stdin.DATA,
    "nosuch": Stdin.DATA,
    "cat f | sort": Stdin.IGNORED,
    "sort < f": Stdin.IGNORED,
    "echo a | sudo tee /etc/x": Stdin.IGNORED,
    "sh": Stdin.CODE,
    "sudo bash -s -- -y": Stdin.CODE,
    "python3": Stdin.CODE,
    "python3 -": Stdin.CODE,
    "python3 x.py": Stdin.DATA,
    "psql": Stdin.CODE,
    "kubectl exec -i p -- sh": Stdin.CODE,
    "kubectl exec p -- cat": Stdin.IGNORED,
    "ls; cat": Stdin.DATA,
}


@pytest.mark.parametrize("text", STDIN)
def test_what_standard_input_is(analyse, text: str) -> None:
    assert analyse(text).stdin is STDIN[text]


def test_program_identity_is_the_base_name_in_system_directories_only() -> None:
    assert identity("rm") == "rm"
    assert identity("/usr/bin/rm") == "rm"
    assert identity("/tmp/rm") is None
    assert identity("./rm") is None
    assert identity("/usr/bin/../../tmp/rm") is None
    assert identity("/usr/bin/") is None


def test_the_table_is_large_and_every_entry_speaks_the_closed_set() -> None:
    table = programs()
    assert len(table) >= 400
    for entry in table.values():
        for specs in entry.option_effects.values():
            assert all(s.verb in SHELL_VERBS | {"list", "output", "opaque"} for s in specs)
    assert not {"eval", "source", ".", "trap", "export", "hash", "enable", "ssh-agent"} & set(table)
    assert {table[name].special for name in ("set", "alias", "shopt", "bind")} == {"shell-state"}


PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_entry_that_the_page_shows_makes_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten lines, as docs/commands.md prints them, and the cases that stand below them."""
    found = re.search(r"<!-- entry -->\n((?:    .*\n|\n)+)", PAGE.read_text())
    cases = re.search(r"<!-- what it says -->\n\|.*\n\|.*\n((?:\|.*\n)+)", PAGE.read_text())
    assert found is not None and cases is not None
    lines = [line for line in found[1].splitlines() if line.strip()]
    assert len(lines) <= 10
    ((name, entry),) = yaml.safe_load("\n".join(lines)).items()
    rules = Rules({name: program(name, entry, {})}, sensitive_paths())
    rows = [[cell.strip().strip("`") for cell in row.strip("|\n").split("|")] for row in cases[1].splitlines()]
    assert len(rows) >= 4
    for text, wanted in rows:
        said = rules.evaluate(shlex.split(text), Place())
        effects = ", ".join(f"{effect.verb} {effect.object}" for effect in said.effects)
        shown = "opaque: " + ", ".join(reason for reason, _ in said.opaque) if said.opaque else effects
        assert shown == wanted, text
    assert name not in programs(), "the example has become a real entry: choose another program for the page"


@pytest.mark.parametrize(
    "entry",
    [
        {"flag": "-x"},
        {"operands": "destroy"},
        {"operands": {"second": "read"}},
        {"stdin": "maybe"},
        {"special": "magic"},
        {"like": "nothing"},
        {"flags": ["-x"]},
        {"values": "-x"},
        {"subcommands": {"a": {"flags": 1}}},
        {"flags": "-x", "values": {"-x": "none"}},
        {"verbs": {"list": "look"}},
        {"values": {"-x": "none", "-x -y": "read"}},
        "text",
    ],
)
def test_a_wrong_entry_stops_the_load(entry: object) -> None:
    with pytest.raises(SchemaError):
        program("x", entry, {})  # type: ignore[arg-type]
