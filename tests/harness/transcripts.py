"""Transcripts as the gate writes them: the gate's own drafts, fed with one of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from harness.people import ALICE, BOB, CLAUDE, agent
from interlock import record
from interlock.approvals.digest import request_digest
from interlock.approvals.model import ApprovalRequest, Proof, RequestDraft, State, Vote, VoteVerdict
from interlock.approvals.wording import Refusal
from interlock.clock import Clock, system_entropy
from interlock.commands.model import Analysis, BindValue, Command, Effect, Kind, Wire
from interlock.errors import Reason
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.evidence.seal import SealCa
from interlock.evidence.writer import TranscriptStore
from interlock.policy.model import Decision, ReviewTerms, SessionFacts, Target, Verdict

POLICY = b'{"v":1,"rules":"of the test"}'
DIGEST = f"sha256:{sha256(POLICY).hexdigest()}"
TARGET = Target("web-1", "ssh", {"env": "prod"}, account="deploy")
SECRET = "hunter2-swordfish"
NODE = "gw-1"
SESSION = "01JTESTSESSION0000000000AA"


def policy_files() -> Mapping[str, bytes]:
    return {sha256(POLICY).hexdigest(): POLICY}


def make_store(data_dir: Path, clock: Clock, *, sync: str = "review") -> TranscriptStore:
    ca = SealCa.load_or_create(data_dir / "evidence_ca")
    return TranscriptStore(
        data_dir, NODE, clock=clock, entropy=system_entropy, ca=ca, sync=sync, policy_files=policy_files
    )  # fmt: skip


def session_open() -> EventDraft:
    fields: dict[str, Json] = {"client": "192.0.2.7", "access_rule": "access/0", "policy": DIGEST}
    return EventDraft("session.open", {**fields, **record.who(agent()), **record.where(TARGET)})


async def open_session(store: TranscriptStore, ident: str = SESSION) -> Recorder:
    return await store.open(SessionFacts(ident, "192.0.2.7"), session_open())


def command(text: str, kind: Kind = Kind.EXEC) -> Command:
    wire = Wire.SSH if kind is Kind.EXEC else Wire.POSTGRES
    binds = (BindValue(b"42", 0, 23, "42"), BindValue(None)) if kind is Kind.BIND else ()
    return Command(wire, kind, text.encode(), binds=binds)


def analysis(text: str) -> Analysis:
    return Analysis((Effect("read", "/etc/motd", "cat"),), sent=text, parser="test 1")


def decision(verdict: Verdict, rule: str = "linux/test") -> Decision:
    return Decision(verdict, rule, f"because of {SECRET}", DIGEST, review=ReviewTerms(("sre",)))


def request(asked: Command, now: datetime, ident: str = "req_1") -> ApprovalRequest:
    draft = RequestDraft(
        agent(),
        TARGET,
        asked,
        analysis(asked.text.decode("utf-8", "backslashreplace")),
        decision(Verdict.REVIEW),
        ReviewTerms(("sre",)),
        SESSION,
    )
    return redigested(
        ApprovalRequest(ident, "nonce", "", "match", draft, now, now + timedelta(minutes=15), excluded=frozenset((CLAUDE, ALICE)))
    )


def redigested(changed: ApprovalRequest) -> ApprovalRequest:
    """Return a request that was changed with the digest of what it is now."""
    return replace(changed, digest=request_digest(changed))


def vote(asked: ApprovalRequest, now: datetime, verdict: VoteVerdict = VoteVerdict.APPROVE) -> Vote:
    return Vote(BOB, "bob", "cli", "bob", verdict, asked.digest, now, proof=Proof.NONE, reason=f"fine, {SECRET}", groups=("sre",))


def allowed(recorder: Recorder, text: str, kind: Kind = Kind.EXEC, sent: str | None = None) -> int:
    """Record an allowed command as the gate does; return the seq of its forward."""
    asked, seq = command(text, kind), recorder.next_seq
    first = recorder.append(
        record.described(asked, analysis(text)),
        record.decided(decision(Verdict.ALLOW), seq),
        record.forwarded(seq + 1, asked, (sent if sent is not None else text).encode()),
    )
    return first + 2


def denied(recorder: Recorder, text: str) -> None:
    asked, seq = command(text), recorder.next_seq
    recorder.append(
        record.described(asked, analysis(text)),
        record.decided(decision(Verdict.DENY), seq),
        record.blocked(seq + 1, Refusal(Reason.DENIED_BY_POLICY, f"no {SECRET}")),
    )


def approved(recorder: Recorder, text: str, now: datetime, ident: str = "req_1") -> int:
    """Record a command that Bob approved; return the seq of its forward."""
    asked, seq = command(text), recorder.next_seq
    recorder.append(record.described(asked, analysis(text)), record.decided(decision(Verdict.REVIEW), seq))
    waiting = request(asked, now, ident)
    recorder.append(record.requested(seq + 1, waiting))
    consumed = replace(waiting, state=State.CONSUMED, votes=(vote(waiting, now),))
    return recorder.append(record.answered(consumed), record.forwarded(seq + 1, asked, asked.text)) + 1


def refused_by_human(recorder: Recorder, text: str, now: datetime, ident: str = "req_2") -> None:
    asked, seq = command(text), recorder.next_seq
    recorder.append(record.described(asked, analysis(text)), record.decided(decision(Verdict.REVIEW), seq))
    waiting = request(asked, now, ident)
    recorder.append(record.requested(seq + 1, waiting))
    over = replace(waiting, state=State.DENIED, votes=(vote(waiting, now, VoteVerdict.DENY),))
    recorder.append(record.answered(over), record.blocked(seq + 1, Refusal(Reason.DENIED_BY_REVIEWER, "denied by bob")))


def one_of_everything(recorder: Recorder, clock: Clock) -> None:
    now = clock.now().astimezone(UTC)
    recorder.append(EventDraft("channel.open", {"channel": 0, "side": "client"}))
    allowed(recorder, "cat  /etc/motd", sent="'cat' '/etc/motd'")
    recorder.append(
        EventDraft("term.output", {"channel": 0, "stream": 1, "bytes": 13}, {"data": "aGVsbG8sIHfDtnJsZAo="}),
        EventDraft("channel.close", {"channel": 0, "ended": "exit", "exit_status": 0}),
    )
    denied(recorder, f"echo {SECRET} > /etc/passwd")
    approved(recorder, "rm -rf /var/tmp/build", now)
    refused_by_human(recorder, "rm -rf /", now)
    allowed(recorder, "select 1", Kind.QUERY)
    allowed(recorder, "select $1, $2", Kind.BIND)
    recorder.append(EventDraft("pg.result", {"ref": recorder.next_seq - 1, "tag": "SELECT 1", "rows": 1}))


async def closed_session(store: TranscriptStore, clock: Clock, ident: str = SESSION) -> Path:
    """Record and seal a session with one of everything; return its folder."""
    recorder = await open_session(store, ident)
    one_of_everything(recorder, clock)
    await recorder.close({"reason": "client-left", "released": 4, "refused": 2})
    return store.data_dir / "sessions" / ident
