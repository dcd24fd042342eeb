"""The real path without a daemon: gate, desk, directory and transcripts, with a policy of verbs and a running listener.

The policy here is a table, so that a test says in one line what is held and what is denied; everything else is what users
run. The proxy lives in a thread with a uvloop of its own, so that blocking clients and child processes can talk to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from harness.desk import Desk, open_desk
from harness.postgres_server import PostgresServer
from interlock.approvals.model import ApprovalRequest, Presence, Proof, State, VoteVerdict
from interlock.clock import system_entropy
from interlock.commands.model import Analysis, Command, Kind, SqlContext
from interlock.commands.sql.alike import Families
from interlock.commands.sql.analysis import analyze_sql, context_key, depends_on_names
from interlock.config import Config, parse
from interlock.gate import Gate
from interlock.identity.principal import Principal
from interlock.policy.model import Access, Decision, Facts, ReviewTerms, Target, Verdict
from interlock.ports import Policy
from interlock.postgres.encryption import server_context
from interlock.postgres.listener import PostgresListener

T = TypeVar("T")


class SqlClassifier:
    """The real SQL analysis, in process, cached by text and context."""

    def __init__(self) -> None:
        self._cache: dict[object, Analysis] = {}
        self._families = Families()
        self.slow: set[bytes] = set()  # texts that take the way through `classify`

    def classify_now(self, command: Command) -> Analysis | None:
        if command.text in self.slow:
            return None
        assert isinstance(command.context, SqlContext)
        key = (command.text, command.kind, context_key(command.context))
        found = self._cache.get(key)
        if found is None:
            context, kind = command.context, command.kind
            found = analyze_sql(command.text, context, kind)
            self._families.learn(command.text, key[1:], found, lambda text: analyze_sql(text, context, kind))
            if not depends_on_names(found):
                self._cache[key] = found
        return found

    def alike(self, text: bytes, kind: Kind, context: SqlContext) -> Hashable | None:
        return self._families.find(text, (kind, context_key(context)))

    async def classify(self, command: Command) -> Analysis:
        await asyncio.sleep(0)
        assert isinstance(command.context, SqlContext)
        return analyze_sql(command.text, command.context, command.kind)


@dataclass
class VerbPolicy:
    """Deny and review by verb; what is opaque is reviewed; the rest is allowed."""

    deny: frozenset[str] = frozenset()
    review: frozenset[str] = frozenset()
    hold: int = 30
    open_to: Callable[[Principal, Target], bool] = lambda _principal, _target: True
    digest: str = "sha256:test"
    seen: list[Facts] = field(default_factory=list)
    observed: tuple[str, ...] = ()

    @property
    def current(self) -> Policy:
        return self

    def may_open(self, principal: Principal, target: Target) -> Access:
        return Access(self.open_to(principal, target), "test/0", "no rule grants this")

    def may_see(self, principal: Principal, target: Target) -> bool:
        return self.open_to(principal, target)

    def decide(self, facts: Facts) -> Decision:
        self.seen.append(facts)
        verbs = {effect.verb for effect in facts.analysis.effects}
        if verbs & self.deny:
            return Decision(Verdict.DENY, "test/denied", "this is never done here", self.digest, hint="Ask Bob.")
        if verbs & self.review or not facts.analysis.static:
            terms = ReviewTerms(groups=("sre",), hold=self.hold)
            return Decision(Verdict.REVIEW, "test/reviewed", "somebody should look", self.digest, review=terms)
        return Decision(Verdict.ALLOW, "test/allowed", "harmless", self.digest, lasts=True, blind=True)


@dataclass
class Proxy:
    """A running proxy, as tests of any kind (threads, children, asyncio) reach it."""

    desk: Desk
    gate: Gate
    policy: Any
    classifier: SqlClassifier
    listener: PostgresListener
    loop: asyncio.AbstractEventLoop
    password: str
    config: Config
    _changed: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return self.listener.port

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 20) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def dsn(self, user: str = "claude", database: str = "orders", **more: str) -> str:
        words = {"host": "127.0.0.1", "port": str(self.port), "user": user, "dbname": database, "password": self.password, **more}
        return " ".join(f"{key}='{value}'" for key, value in words.items())

    def changed(self, _request: ApprovalRequest) -> None:
        self._changed.set()

    def requests(self) -> list[ApprovalRequest]:
        return self.run(self.desk.inbox.list())

    def wait_for(self, found: Callable[[ApprovalRequest], bool], timeout: float = 15) -> ApprovalRequest:
        """Return the first request that is as wanted, as soon as there is one."""
        while True:
            self._changed.clear()
            for request in self.requests():
                if found(request):
                    return request
            if not self._changed.wait(timeout):
                raise AssertionError("no such request")

    def pending(self) -> ApprovalRequest:
        """Return the request whose client waits in place."""
        return self.wait_for(lambda request: request.state is State.PENDING and request.presence is Presence.HELD)

    def vote(self, request: ApprovalRequest, verdict: VoteVerdict, reason: str = "") -> ApprovalRequest:
        return self.run(
            self.desk.inbox.vote(
                request.id, voter=self.desk.entry("bob").identity, channel="cli", channel_actor="bob", verdict=verdict,
                digest=request.digest, reason=reason, proof=Proof.CHANNEL,
            )
        )  # fmt: skip

    def approve(self, request: ApprovalRequest | None = None) -> ApprovalRequest:
        return self.vote(request or self.pending(), VoteVerdict.APPROVE)

    def deny(self, request: ApprovalRequest | None = None, reason: str = "not today") -> ApprovalRequest:
        return self.vote(request or self.pending(), VoteVerdict.DENY, reason)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [event for event in self.events() if event["type"] == kind]

    def events(self) -> list[Mapping[str, Any]]:
        """Every event of every session, secrets disclosed."""
        archive = self.desk.archive
        return [event for row in archive.list() for event in archive.events(row["id"])]


def configuration(server: PostgresServer, folder: Path, **more: Any) -> Config:
    """Return a configuration with one target, `orders`, whose credential is a file."""
    (folder / "orders.pw").write_text(server.password)
    data: dict[str, Any] = {
        "version": 1,
        "node": {"data_dir": str(folder / "data")},
        "listen": {"postgres": "127.0.0.1:0"},
        "targets": [
            {
                "name": "orders", "protocol": "postgres", "address": f"127.0.0.1:{server.port}", "database": "app", "role": "app",
                "tls": "disable", "credentials": {"kind": "password", "from": "file:orders.pw"},
            }
        ],
        **more,
    }  # fmt: skip
    return parse(data, base=folder)


@asynccontextmanager
async def _running(
    config: Config, folder: Path, policy: Any, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> AsyncIterator[Proxy]:
    tls = server_context(config.tls, config) if config.tls is not None else None
    async with open_desk(folder, issuers=config.identity.issuers, **settings) as desk:
        classifier = SqlClassifier()
        gate = Gate(policies=policy, classifier=classifier, approvals=desk.inbox, transcripts=desk.transcripts, clock=desk.clock)
        listener = PostgresListener(
            config, gate, desk.authenticator, clock=desk.clock, entropy=system_entropy, tls_context=tls, **options
        )
        await listener.start()
        issued = await desk.directory.issue_password("claude")
        proxy = Proxy(desk, gate, policy, classifier, listener, asyncio.get_running_loop(), issued.secret.reveal(), config)
        desk.inbox.subscribe(proxy.changed)
        try:
            yield proxy
        finally:
            gate.draining = True
            await listener.close()


@contextmanager
def running_proxy(
    config: Config,
    folder: Path,
    policy: Any,
    *,
    desk: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Proxy]:
    """Run a proxy in a thread of its own until the block ends. `desk` are settings of its desk, `options` of its listener."""
    started: list[Proxy] = []
    failed: list[BaseException] = []
    up = threading.Event()
    loop = uvloop.new_event_loop()
    done = asyncio.Event()

    async def main() -> None:
        async with _running(config, folder, policy, desk or {}, options) as proxy:
            started.append(proxy)
            up.set()
            await done.wait()

    def body() -> None:
        try:
            loop.run_until_complete(main())
        except BaseException as error:
            failed.append(error)
        finally:
            up.set()
            loop.close()

    thread = threading.Thread(target=body, name="proxy")
    thread.start()
    up.wait(30)
    try:
        if not started:
            raise failed[0] if failed else AssertionError("the proxy did not start")
        yield started[0]
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)
        thread.join(30)
    if failed:
        raise failed[0]
