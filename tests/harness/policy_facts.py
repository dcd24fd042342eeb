"""Random facts for policies: small enough that rules meet them often, odd enough that every fact differs at times."""

from __future__ import annotations

import random  # noqa: TID251 - the caller seeds it
from dataclasses import replace
from datetime import UTC, datetime

from harness.people import agent, person
from interlock.commands.model import Analysis, Command, Effect, Kind, Opaque, ShellContext, Stdin, Wire
from interlock.identity.principal import Assurance, Identity, Principal
from interlock.policy.model import Facts, SessionFacts, Target


def random_effect(rng: random.Random) -> Effect:
    return Effect(
        rng.choice(["read", "delete", "write", "execute"]), rng.choice(["/srv/x", "/etc/x", ""]), rng.choice(["cat", "rm"]),
        argv=rng.choice([("cat",), ("rm", "-r")]), via=rng.choice([(), ("sudo",)]), recursive=rng.random() < 0.5,
        force=rng.random() < 0.5, host=rng.choice(["", "h"]), detail=rng.choice(["", "metadata"]),
        filtered=rng.random() < 0.8, origin=rng.choice(["direct", "wrapper"]),
    )  # fmt: skip


def random_principal(rng: random.Random) -> Principal:
    made = rng.choice([agent, person])(groups=rng.choice([(), ("ops",), ("sre",), ("ops", "sre")]))
    if rng.random() < 0.3:
        made = replace(made, acting_for=(Identity("local", "bob"),))
    if rng.random() < 0.3:
        made = replace(made, assurance=Assurance("gold", ("hwk",)))
    if rng.random() < 0.2:
        made = replace(made, owner=Identity("local", "carol"))
    return replace(made, handle=f"{made.handle}-2") if rng.random() < 0.2 else made


def random_target(rng: random.Random) -> Target:
    labels = rng.choice([{"env": "prod"}, {"env": "dev"}, {}, {"env": "prod", "tier": "gold"}])
    protocol = rng.choice(["ssh", "ssh", "postgres"])
    role, account = ("app", "") if protocol == "postgres" else ("", rng.choice(["deploy", "root"]))
    return Target(rng.choice(["web-1", "web-2"]), protocol, labels, account=account, role=role, database=rng.choice(["", "db"]))


def random_analysis(rng: random.Random) -> Analysis:
    effects = tuple(random_effect(rng) for _ in range(rng.choice([0, 1, 1, 2, 3])))
    opaque = tuple(Opaque(rng.choice(["eval", "glob"]), rng.choice(["$x", "*"]), 0, 2) for _ in range(rng.choice([0, 0, 0, 1])))
    return Analysis(
        effects, opaque, sent="x", stdin=rng.choice([Stdin.IGNORED, Stdin.DATA]), statements=rng.choice([1, 2]),
        notes=rng.choice([(), ("a note",)]),
    )  # fmt: skip


def random_facts(rng: random.Random) -> Facts:
    target = random_target(rng)
    wire, kind = (Wire.SSH, Kind.EXEC) if target.protocol == "ssh" else (Wire.POSTGRES, rng.choice([Kind.QUERY, Kind.BIND]))
    command = Command(wire, kind, rng.choice([b"x", b"y"]), context=ShellContext("bash"))
    session = SessionFacts(rng.choice(["s1", "s2"]), rng.choice(["10.0.0.1", "10.0.0.2"]))
    now = datetime(2026, rng.randint(1, 12), rng.randint(1, 28), rng.randint(0, 23), rng.randint(0, 59), tzinfo=UTC)
    return Facts(random_principal(rng), target, command, random_analysis(rng), session, now)


BASE = Facts(
    agent(groups=("sre",)), Target("web-2", "ssh", {"env": "dev"}, account="deploy"),
    Command(Wire.SSH, Kind.EXEC, b"x", context=ShellContext("bash")),
    Analysis((Effect("read", "/srv/x", "cat", ("cat",)),), sent="x"),
    SessionFacts("s2", "10.0.0.2"), datetime(2026, 1, 6, 12, 0, tzinfo=UTC),
)  # fmt: skip
_OPAQUE = Opaque("glob", "$x", 0, 2)


def one_fact_apart() -> list[Facts]:
    """Return facts that differ from BASE in one thing each, in every thing that a rule can read."""
    principal, target, analysis, effect = BASE.principal, BASE.target, BASE.analysis, BASE.analysis.effects[0]
    bob, carol = Identity("local", "bob"), Identity("local", "carol")
    people = [
        replace(principal, identity=bob), replace(principal, handle="x-2"), replace(principal, kind=person().kind),
        replace(principal, groups=frozenset(("sre", "ops"))), replace(principal, owner=carol),
        replace(principal, acting_for=(bob,)), replace(principal, assurance=Assurance("gold")),
        replace(principal, assurance=Assurance("", ("hwk",))),
    ]  # fmt: skip
    targets = [
        replace(target, name="web-1"), replace(target, protocol="postgres"), replace(target, labels={"env": "prod"}),
        replace(target, labels={"env": "dev", "tier": "x"}), replace(target, labels={}), replace(target, account="root"),
        replace(target, role="app"), replace(target, database="db"),
    ]  # fmt: skip
    commands = [
        replace(BASE.command, wire=Wire.POSTGRES), replace(BASE.command, kind=Kind.BIND), replace(BASE.command, text=b"y"),
    ]  # fmt: skip
    effects = [
        replace(effect, verb="delete"), replace(effect, object="/etc/x"), replace(effect, program="rm"),
        replace(effect, argv=("cat", "x")), replace(effect, via=("sudo",)), replace(effect, origin="wrapper"),
        replace(effect, recursive=True), replace(effect, force=True), replace(effect, host="h"), replace(effect, filtered=False),
        replace(effect, detail="metadata"),
    ]  # fmt: skip
    analyses = [
        *(replace(analysis, effects=(one,)) for one in effects), replace(analysis, effects=(effect, effects[0])),
        replace(analysis, opaque=(_OPAQUE,)), replace(analysis, stdin=Stdin.DATA), replace(analysis, statements=2),
    ]  # fmt: skip
    sessions = [replace(BASE.session, id="s1"), replace(BASE.session, client="10.0.0.1")]
    times = [BASE.now.replace(hour=3), BASE.now.replace(day=5), BASE.now.replace(minute=45)]
    return [
        *(replace(BASE, principal=one) for one in people), *(replace(BASE, target=one) for one in targets),
        *(replace(BASE, command=one) for one in commands), *(replace(BASE, analysis=one) for one in analyses),
        *(replace(BASE, session=one) for one in sessions), *(replace(BASE, now=one) for one in times),
    ]  # fmt: skip
