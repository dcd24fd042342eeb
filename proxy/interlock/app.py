"""The composition root: builds every part from a configuration, starts them in order, stops them in reverse.

The order of starting is the order of trust: evidence before anything that could need recording, the desk before anything
that could be held, listeners last. The order of stopping drains: stop accepting, hand held requests back, seal.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import structlog
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from interlock.approvals.authority import House
from interlock.approvals.fatigue import Limits
from interlock.approvals.inbox import Inbox
from interlock.approvals.reviewer_keys import ReviewerKeys
from interlock.channels import Channels, Stop
from interlock.clock import Clock, Entropy, SystemClock, system_entropy
from interlock.commands.analyzer import Analyzer
from interlock.commands.pool import ShellPool
from interlock.config import Config, split_address
from interlock.control import SOCKET
from interlock.entrance import open_entrance
from interlock.errors import ConfigError, EvidenceError, InterlockError
from interlock.evidence.archive import Archive
from interlock.evidence.events import EventDraft
from interlock.evidence.mirror import highest_generation
from interlock.evidence.seal import SealCa
from interlock.evidence.writer import TranscriptStore
from interlock.gate import Gate
from interlock.identity.authenticate import Authenticator
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.derived import Ended
from interlock.identity.directory import Directory
from interlock.identity.logins import Logins
from interlock.identity.logouts import Logout, Logouts
from interlock.identity.passkeys import relying_party
from interlock.identity.principal import CredentialKind, Identity, Principal
from interlock.identity.provisioning import Provisioning
from interlock.identity.revocation import Revocation, Revocations, Revoked
from interlock.identity.standing import Standing
from interlock.identity.stepup import DecisionSessions
from interlock.identity.tokens import LOGIN_IDENT, TOKEN_IDENT
from interlock.lag import LoopLag
from interlock.policy.loader import configured
from interlock.policy.source import LivePolicy
from interlock.postgres.encryption import server_context
from interlock.postgres.listener import PostgresListener
from interlock.ssh.listener import SshListener
from interlock.store.engine import Store, open_store
from interlock.web.app import LoginParts, Parts, ScimParts, create_app
from interlock.web.console.sessions import ConsoleSessions
from interlock.web.metrics import loop_lag, metrics_app
from interlock.web.server import HttpServer
from interlock.web.whereabouts import Whereabouts

log = structlog.get_logger()

NEWCOMER_WITH_IDP = 24 * 3600.0
"""Seconds that a reviewer who was just made waits, where the configuration says nothing and an issuer is configured."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the daemon listens; ports are the real ones when the configuration said 0."""

    ssh: str | None
    postgres: str | None
    http: str | None
    socket: Path


class Daemon:
    """One node. `start` either brings everything up or leaves nothing behind and raises."""

    def __init__(self, config: Config, *, clock: Clock | None = None, entropy: Entropy = system_entropy) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self._entropy = entropy
        self._stops: list[tuple[str, Stop]] = []
        self.addresses: Addresses | None = None
        self._ssh: SshListener | None = None
        self._transcripts: TranscriptStore | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def start(self) -> Addresses:
        try:
            self.addresses = await self._start()
        except BaseException:
            await self.close()
            raise
        return self.addresses

    async def _start(self) -> Addresses:
        config, clock = self.config, self.clock
        data_dir = prepare_data_dir(config.path(config.node.data_dir))
        tls = server_context(config.tls, config) if config.tls is not None else None
        for target in config.targets:
            target.credentials.check(config.base)  # a target without its secret is found now, not at 2 a.m.
        files, terms = configured(config)
        policies = LivePolicy(files, terms=terms)
        self._policies = policies

        store = await open_store(config.store.url, data_dir)
        self._stops.append(("store", store.close))
        transcripts = TranscriptStore(
            data_dir,
            config.node.name,
            clock=clock,
            entropy=self._entropy,
            ca=_seal_ca(config, data_dir),
            sync=config.evidence.sync,
            policy_files=policies.files,
        )
        await transcripts.start()
        self._transcripts = transcripts
        self._stops.append(("transcripts", transcripts.close))
        journal = transcripts.journal
        journal.append(EventDraft("config.change", {"policy": policies.current.digest, "what": "start"}))

        directory = Directory(
            store.principals,
            clock=clock,
            entropy=self._entropy,
            journal=journal,
            salt_secret=_salt_secret(data_dir, self._entropy),
            newcomer=_house(config).newcomer,
            groups_max_age=config.identity.groups_max_age,
        )
        await directory.load()
        revocations = Revocations(store.revocations, directory, clock=clock, entropy=self._entropy, journal=journal)
        await revocations.load()  # before anything listens: who does not know what is revoked lets nobody in
        oldest = {issuer.issuer: issuer.oldest for issuer in config.issuers}
        logouts = Logouts(store.logouts, oldest=oldest, clock=clock, journal=journal)
        await logouts.load()
        provisioning = await _provisioning(config, directory, store, clock, self._entropy)
        keys = ReviewerKeys(directory, relying_party(config.public_url), journal=journal, revoked=revocations.names)
        self._stops.append(("reviewers' keys", keys.close))
        inbox = Inbox(
            store,
            directory,
            clock=clock,
            entropy=self._entropy,
            journal=journal,
            public_url=config.public_url,
            house=_house(config),
            limits=_limits(config),
            proofs=keys,
            barred=revocations.bars,
        )
        self._inbox = inbox
        await inbox.start(highest_generation(data_dir))
        self._stops.append(("inbox", inbox.close))

        pool = ShellPool()
        await pool.start()
        self._stops.append(("parsers", pool.close))
        http = httpx.AsyncClient(follow_redirects=False, trust_env=False)
        self._stops.append(("http client", http.aclose))
        entrance = await open_entrance(
            config, data_dir, store.logins, directory, journal=journal, clock=clock, entropy=self._entropy, logouts=logouts
        )
        self._stops.append(("logins", entrance.close))
        authenticator = Authenticator(
            directory, issuers=config.issuers, journal=journal, clock=clock, replays=store.deliveries, entropy=self._entropy,
            logins=entrance.logins, issuance=entrance.issuance, revocations=revocations, logouts=logouts,
            exchanged=store.exchanged,
        )  # fmt: skip
        self._stops.append(("authenticator", authenticator.close))
        given = authenticator.exchanged
        await given.load(partial(_lives, directory, entrance.logins))
        self._standing = Standing(
            directory, revocations=revocations, logouts=logouts,
            holds={
                CredentialKind.EXCHANGED: given.holds, CredentialKind.LOGIN: entrance.logins.holds,
                CredentialKind.SSH_CERTIFICATE: entrance.logins.holds,
            },
        )  # fmt: skip
        self.gate = Gate(
            policies=policies,
            classifier=Analyzer(pool),
            approvals=inbox,
            transcripts=transcripts,
            clock=clock,
            standing=self._standing,
        )
        self._directory, self._authenticator, self._logins = directory, authenticator, entrance.logins
        entrance.logins.subscribe(self._logins_ended)
        given.subscribe(self._exchanged_ended)
        directory.subscribe(self._directory_changed)
        revocations.subscribe(self._revoked)
        logouts.subscribe(self._logged_out)
        channels = Channels(
            config, inbox=inbox, directory=directory, store=store, journal=journal, clock=clock, entropy=self._entropy,
            http=http, stops=self._stops,
        )  # fmt: skip
        teams, slack = await channels.teams(), await channels.slack()
        await channels.webhook()

        ssh = postgres = None
        adopt, host_key = None, ""
        if config.listen.postgres:
            pg_listener = PostgresListener(config, self.gate, authenticator, clock=clock, entropy=self._entropy, tls_context=tls)
            await pg_listener.start()
            self._stops.append(("postgres", pg_listener.close))
            postgres, adopt = _at(config.listen.postgres, pg_listener.port), pg_listener.adopt
        if config.listen.ssh:
            ssh_listener = SshListener(
                config, self.gate, authenticator, clock=clock, entropy=self._entropy, postgres=adopt, signin=entrance.signin,
                host_authority=entrance.host_authority,
            )  # fmt: skip
            await ssh_listener.start()
            self._stops.append(("ssh", ssh_listener.close))
            self._ssh = ssh_listener
            ssh, host_key = _at(config.listen.ssh, ssh_listener.port), ssh_listener.host_key

        where = Whereabouts(
            config.public_url, ssh, postgres, " ".join(host_key.split()[:2]), entrance.host_authority.line, tls is not None
        )

        def parts(*, local: bool) -> Parts:
            return Parts(
                inbox=inbox,
                directory=directory,
                authenticator=authenticator,
                revocations=revocations,
                scim=provisioning,
                deciding=self._deciding,
                consoles=self._consoles,
                archive=Archive(data_dir),
                config=config,
                gate=self.gate,
                policies=policies,
                clock=clock,
                teams=teams,
                slack=slack,
                local=local,
                secure=tls is not None,
                login=LoginParts(entrance.logins, entrance.issuance, where, entrance.signin),
                stopping=self._stopping,
            )

        self._deciding = DecisionSessions(directory, clock=clock, entropy=self._entropy)
        self._consoles = ConsoleSessions(directory, clock=clock, entropy=self._entropy)
        socket = data_dir / SOCKET
        await self._serve("socket", create_app(parts(local=True)), socket)
        http_at = None
        if config.listen.http:
            port = await self._serve("http", create_app(parts(local=False)), config.listen.http, tls=tls is not None)
            http_at = _at(config.listen.http, port)
        if config.listen.metrics:
            registry = CollectorRegistry()
            lag = LoopLag(loop_lag(registry), clock=clock)
            lag.start()
            self._stops.append(("loop lag", lag.stop))
            await self._serve("metrics", metrics_app(self.gate, inbox, registry), config.listen.metrics)
        current = policies.current
        log.info("interlock.ready", ssh=ssh, postgres=postgres, http=http_at, policy=current.digest, observed=current.observed)
        return Addresses(ssh, postgres, http_at, socket)

    async def reload(self) -> None:
        """Load the policies anew, whole; a bad file changes nothing and is logged with its place.

        Connections to SSH targets are made anew after it, whatever came of the policies: what they rest on (host keys, the
        target's own settings) may be why somebody reloads.
        """
        if self._ssh is not None:
            self._ssh.reload()
        try:
            loaded = self._policies.reload()
        except InterlockError as error:
            log.error("policy.reload_refused", reason=str(error.code), error=str(error))
            return
        self.gate.transcripts.journal.append(EventDraft("config.change", {"policy": loaded.digest, "what": "reload"}))
        log.info("policy.reloaded", policy=loaded.digest, observed=loaded.observed)

    async def close(self) -> None:
        """Drain and stop. Idempotent; one part that fails to stop does not keep the others running."""
        self._stopping.set()
        if hasattr(self, "gate"):
            self.gate.draining = True
        if self._transcripts is not None:
            self._transcripts.hurry()  # listeners wait for the seals of their sessions
        while self._stops:
            name, stop = self._stops.pop()
            try:
                await stop()
            except Exception as error:  # every other part must still be stopped, transcripts above all
                log.exception("interlock.stop_failed", part=name, error=error.__class__.__name__)

    def _directory_changed(self, change: Change) -> None:
        """Whoever lost authority loses it now: live sessions refuse, and what was asked is withdrawn."""
        self.gate.revoke(change.stopped, change.credentials)
        if change.kind is ChangeKind.GROUPS:
            # A session goes on as whom it began: rules would go on to see groups that are gone.
            self._log_out(lambda one: _holds_more(one, change.identity, self._directory), "groups were taken away")
        if change.kind in (ChangeKind.PASSWORD_ISSUED, ChangeKind.TOKEN_ISSUED):
            entry = self._directory.get(change.identity)
            ends = [row.expires for row in entry.passwords] + [row.expires for row in entry.tokens] if entry else []
            for until in filter(None, ends):
                self.gate.renew(change.identity, until)
        if change.stopped or change.kind is ChangeKind.UNLINKED:
            self.gate.sweep()  # also who was let in as just a subject, before it belonged to the entry that stops
            self._withdraw(change.stopped, str(change.kind))

    def _logged_out(self, _: Logout) -> None:
        """What an issuer's own tokens opened ends with the login that they came from."""
        self.gate.sweep()
        self._authenticator.exchanged.revoke(whose=lambda holder: self._standing.ended(holder) is not None)
        self._withdraw(frozenset(), "logout-at-provider")

    def _exchanged_ended(self, idents: frozenset[str]) -> None:
        """What was given in exchange has ended before its time, and so does what it opened and what was made from it."""
        self.gate.end(idents, "what this session's credential was given for has ended")
        for ident in idents:
            self._logins.revoked(ident)

    def _log_out(self, whom: Callable[[Principal], bool], why: str) -> None:
        ending = frozenset(one.principal.credential.ident for one in self.gate.sessions() if whom(one.principal))
        if ending:
            self.gate.end(ending, f"{why}, so this session can't go on as it began")

    def _logins_ended(self, ended: Ended) -> None:
        """A login that is over takes its live connections with it, and what it asked for is withdrawn."""
        self.gate.end(ended.credentials, f"the login behind this session has ended ({ended.why})")
        self._authenticator.exchanged.revoke(idents=ended.credentials)
        if hasattr(self, "_consoles"):
            self._consoles.end(ended.credentials)
        self._withdraw(ended.identities, ended.why)

    def _withdraw(self, identities: frozenset[Identity], why: str) -> None:
        """Withdraw what these asked, and what was asked with something that has ended."""
        ended = self._inbox.withdraw(identities, why, also=lambda asked: self._standing.ended(asked) is not None)
        task = asyncio.get_running_loop().create_task(ended)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _revoked(self, revocation: Revocation) -> None:
        """End the live sessions that it stops; what people and agents who are revoked asked is withdrawn."""
        self.gate.expel(revocation.stops, f"revoked ({revocation.kind})")
        if revocation.kind is Revoked.CREDENTIAL:
            # What was made from it has names of its own.
            self._authenticator.exchanged.revoke(idents=(revocation.value,))
            self._logins.revoked(revocation.value)
        if revocation.kind in (Revoked.SUBJECT, Revoked.AGENT):
            self._withdraw(revocation.identities, "revoked")

    async def _serve(self, name: str, app: ASGIApp, where: str | Path, *, tls: bool = False) -> int:
        """Start one HTTP server; return its port."""
        files = self.config.tls if tls else None
        server = HttpServer(
            name, app, where,
            certificate=self.config.path(files.certificate) if files else None,
            key=self.config.path(files.key) if files else None,
        )  # fmt: skip
        port = await server.start()
        self._stops.append((f"http {name}", server.close))
        return port


def _lives(directory: Directory, logins: Logins, ident: str) -> bool:
    """Say whether what a credential was given for before a restart still counts. A JWT does, as far as it says itself: whoever
    logged out, or is revoked, is looked up when it is used."""
    if ident.startswith(LOGIN_IDENT):
        return logins.holds(ident)
    return not ident.startswith(TOKEN_IDENT) or any(row.id == ident for entry in directory.entries() for row in entry.tokens)


def _holds_more(principal: Principal, changed: Identity, directory: Directory) -> bool:
    """Whether this principal, or somebody it acts for, has groups of before the change that are not theirs any more."""
    entry = directory.get(changed)
    now = entry.groups if entry is not None else frozenset()
    mine = principal.groups if principal.identity == changed else frozenset()
    return not mine | frozenset(g for one in principal.behind if one.identity == changed for g in one.groups) <= now


def prepare_data_dir(path: Path) -> Path:
    """Create data_dir 0700, or refuse one that others can read. Raise ConfigError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
    except OSError as error:
        raise ConfigError(f"node.data_dir {path} can't be used: {error.strerror}") from None
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(f"node.data_dir {path} can be read by others; run: chmod 700 {path}")
    if info.st_uid != os.geteuid():
        raise ConfigError(f"node.data_dir {path} belongs to another user; run as its owner")
    if not os.access(path, os.W_OK):
        raise ConfigError(f"node.data_dir {path} is read-only; transcripts must be written before anything is released")
    return path


def _house(config: Config) -> House:
    """What the configuration says to every request. A newcomer waits a day where an IdP can make people (approvals.md)."""
    approvals, glass = config.approvals, config.approvals.break_glass
    newcomer = approvals.new_reviewer_delay
    return House(
        validity=approvals.validity,
        longest_grant=approvals.grants,
        newcomer=newcomer if newcomer is not None else NEWCOMER_WITH_IDP if config.identity.issuers else 0.0,
        glass=frozenset(glass.groups) if glass is not None else frozenset(),
        glass_validity=glass.validity if glass is not None else 0.0,
    )


async def _provisioning(config: Config, directory: Directory, store: Store, clock: Clock, entropy: Entropy) -> ScimParts | None:
    wanted = config.identity.scim
    if wanted is None:
        return None
    made = Provisioning(
        directory, store.scim_groups, issuer=config.identity.named(wanted.issuer).issuer, subject=wanted.subject,
        clock=clock, entropy=entropy,
    )  # fmt: skip
    await made.load()
    return ScimParts(made, wanted.token.resolve(config.base))


def _limits(config: Config) -> Limits:
    fatigue = config.approvals.fatigue
    return Limits(fatigue.pending, fatigue.denials, fatigue.window, fatigue.lock)


def _salt_secret(data_dir: Path, entropy: Entropy) -> bytes:
    """Return the secret that gives unknown names stable salts, so that logins can't probe for names across restarts."""
    path = data_dir / "keys" / "salt_secret"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    secret = entropy(32)
    with os.fdopen(file, "wb") as out:
        out.write(secret)
    return secret


def _seal_ca(config: Config, data_dir: Path) -> SealCa:
    if config.evidence.ca is None:
        return SealCa.load_or_create(data_dir / "keys" / "evidence_ca")
    ref = config.evidence.ca.key
    if ref.kind != "file":
        raise ConfigError("evidence.ca.key must be file:PATH")
    try:
        return SealCa.load_or_create(config.path(Path(ref.where)))
    except EvidenceError as error:
        raise ConfigError(f"evidence.ca.key: {error}") from None


def _at(address: str, port: int) -> str:
    host, _ = split_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
