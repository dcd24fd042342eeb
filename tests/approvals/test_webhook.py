"""The outgoing webhook over real HTTP: what is sent, to whom never, and that nothing gets lost or told twice as new."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.receiver import DROP, HANG, Receiver, receiving
from harness.requests import SHELL, SQL, TERMS
from harness.webhook_node import KEY, Node
from interlock.approvals.channels.webhook import pace, signing
from interlock.approvals.channels.webhook.address import allowed
from interlock.approvals.channels.webhook.changes import changes
from interlock.approvals.model import State
from interlock.commands.model import Analysis, Effect
from interlock.config import Secret
from interlock.errors import ConfigError, Reason

Open = Callable[..., Awaitable[Node]]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving(Receiver()) as made:
        yield made


@pytest.fixture
async def opened(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Open]:
    """Opens nodes over one store and closes whatever is open."""
    nodes: list[Node] = []

    async def make(**more: Any) -> Node:
        if nodes:
            await nodes.pop().close()
        nodes.append(await Node(tmp_path, **{"url": receiver.url, **more}).open())
        return nodes[-1]

    yield make
    for node in nodes:
        await node.close()


# -- what is sent -------------------------------------------------------------------------------------------------------


async def test_every_change_is_told_once_in_its_order_and_signed(opened: Open, receiver: Receiver) -> None:
    node = await opened()
    await node.tell()
    request = await node.ask()
    await receiver.received(1)
    await node.answer(request, "approve", reason="looked at it")
    got = await receiver.received(2)
    assert [g.kind for g in got] == ["approval.pending", "approval.approved"]
    assert [g.ident for g in got] == [f"{request.id[4:]}-pending", f"{request.id[4:]}-approved"]
    assert all(g.signed_by(KEY) for g in got)
    assert not got[0].signed_by(b"x" * 32)
    data = got[1].message["data"]
    assert (data["id"], data["state"], data["digest"]) == (request.id, "approved", request.digest)
    assert [(v["reviewer"], v["verdict"], v["reason"]) for v in data["votes"]] == [("bob", "approve", "looked at it")]
    assert data["link"] == f"https://proxy/console/approvals/{request.id}"


async def test_a_message_holds_neither_input_nor_values_nor_the_nonce(opened: Open, receiver: Receiver) -> None:
    node = await opened()
    await node.tell()
    command = replace(SQL, stdin=SHELL.stdin)
    request = await node.ask(command=command)
    (got,) = await receiver.received(1)
    data = got.message["data"]
    assert command.stdin is not None
    assert data["stdin"] == {"sha256": command.stdin.sha256, "bytes": len(command.stdin.data)}
    assert data["binds"] == [{"format": 1, "type": 23, "bytes": 4}, {"format": 0, "type": 0, "bytes": None}]
    assert request.nonce.encode() not in got.body and b"eWVzCg" not in got.body and b"yes\\n" not in got.body


async def test_secrets_leave_neither_in_the_text_nor_in_the_effects_nor_in_what_the_agent_said(
    opened: Open, receiver: Receiver
) -> None:
    node = await opened()
    await node.tell()
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    argv = ("curl", "-H", f"Authorization: Bearer {secret}", "https://example.com")
    known = Analysis(effects=(Effect("network", "example.com", program="curl", argv=argv),))
    command = replace(SHELL, text=f"curl -H 'Authorization: Bearer {secret}' https://example.com".encode())
    await node.ask(command=command, analysis=known, said=f"the token is {secret}")
    (got,) = await receiver.received(1)
    assert secret.encode() not in got.body
    data = got.message["data"]
    assert data["redacted"] and "curl" in data["text"] and data["effects"][0]["program"] == "curl"
    assert data["said"] == "the token is ⟦hidden: about 40 characters⟧"
    json.dumps(data, ensure_ascii=False).encode()  # every text is one that any decoder takes


async def test_only_the_events_that_are_configured_are_sent(opened: Open, receiver: Receiver) -> None:
    node = await opened(events=frozenset(("denied",)))
    await node.tell()
    await node.answer(await node.ask())
    await node.answer(await node.ask(command=replace(SHELL, text=b"rm -rf /srv/b")))
    got = await receiver.received(2)
    assert {g.kind for g in got} == {"approval.denied"}


async def test_a_vote_that_does_not_decide_is_told_too(opened: Open, receiver: Receiver) -> None:
    node = await opened()
    await node.tell()
    request = await node.ask(terms=replace(TERMS, quorum=2))
    await receiver.received(1)
    node.clock.advance(1)
    await node.answer(request, "approve")
    got = await receiver.received(2)
    assert [g.ident for g in got] == [f"{request.id[4:]}-pending", f"{request.id[4:]}-pending-1"]
    assert len(got[1].message["data"]["votes"]) == 1


async def test_what_a_request_has_been_through_follows_from_the_request(opened: Open) -> None:
    node = await opened()
    place = await node.inbox.submit((await node.ask()).draft)
    await node.answer(place.request, "approve")
    used = await place.consume()
    assert used is not None
    assert [c.kind for c in changes(used)] == ["pending", "approved", "ended"]
    later = used.created + timedelta(seconds=9)
    assert [c.kind for c in changes(replace(used, escalated_at=later))] == ["pending", "escalated", "approved", "ended"]
    broken = replace(used.votes[0], break_glass=True)
    assert "break_glass" in [c.kind for c in changes(replace(used, votes=(broken,)))]
    assert [c.kind for c in changes(replace(used, grant="grant_1"))] == ["approved", "ended"]
    for state in (State.DENIED, State.EXPIRED, State.CANCELLED, State.SUPERSEDED, State.REVOKED):
        assert changes(replace(used, state=state))[-1].kind in ("denied", "expired", "ended")


# -- a receiver that does not listen ------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [500, 503, 429, 404, 410, DROP, (302, {"location": "/elsewhere"})])
async def test_whatever_is_not_2xx_is_tried_again_under_the_same_id(opened: Open, receiver: Receiver, failure: Any) -> None:
    receiver.answers.append(failure)
    node = await opened()
    await node.tell()
    request = await node.ask()
    await receiver.received(1)
    first, second = await again(node, receiver, 2)
    assert first.ident == second.ident == f"{request.id[4:]}-pending"
    assert first.body == second.body
    assert second.signed_by(KEY) and second.headers["webhook-timestamp"] > first.headers["webhook-timestamp"]
    assert second.headers[":request"] == "POST /hook HTTP/1.1", "no redirect was followed"
    await emptied(node)


async def again(node: Node, receiver: Receiver, count: int, seconds: float = 5) -> list[Any]:
    """Let the delay after a failure pass, once the failure is written down; return what has come."""
    await postponed(node)
    node.later(seconds)
    return await receiver.received(count)


async def postponed(node: Node) -> Any:
    async with asyncio.timeout(45):
        while not (rows := [row for row in await node.store.outbox.waiting("webhook") if row.attempts]):  # noqa: ASYNC110  a table has no event
            await asyncio.sleep(0)
    return rows[0]


async def emptied(node: Node) -> None:
    async with asyncio.timeout(45):
        while await node.store.outbox.waiting("webhook"):  # noqa: ASYNC110  a table has no event
            await asyncio.sleep(0)


async def test_retry_after_is_honoured(opened: Open, receiver: Receiver) -> None:
    receiver.answers.append((429, {"retry-after": "600"}))
    node = await opened()
    await node.tell()
    await node.ask()
    await receiver.received(1)
    row = await postponed(node)
    assert row.due == node.clock.now() + timedelta(seconds=600)


async def test_a_receiver_that_is_down_gets_everything_when_it_is_back(opened: Open, tmp_path: Path) -> None:
    async with receiving(Receiver()) as gone:
        url = gone.url
    node = await opened(url=url)
    await node.tell()
    request = await node.ask()
    await node.answer(request)
    await postponed(node)
    port = int(url.split(":")[2].split("/")[0])
    async with receiving(Receiver(), port=port) as back:
        node.later(5)
        got = await back.received(2)
        assert [g.kind for g in got] == ["approval.pending", "approval.denied"]
        await node.hush()


async def test_a_slow_receiver_holds_up_neither_the_desk_nor_other_requests(
    opened: Open, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answers.append(HANG)
    node = await opened()
    await node.tell()
    slow = await node.ask()
    await receiver.received(1)
    assert (await node.answer(slow)).state is State.DENIED
    other = await node.ask(command=replace(SHELL, text=b"rm -rf /srv/other"))
    got = await receiver.received(2)
    assert got[1].ident.startswith(other.id[4:])
    assert not any(g.kind == "approval.denied" for g in got), "nobody hears of an end before the beginning was heard"


async def test_a_receiver_that_never_answers_is_hung_up_on(
    opened: Open, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlock.approvals.channels.webhook.sender.ATTEMPT_S", 0.05)
    receiver.answers.append(HANG)
    node = await opened()
    await node.tell()
    await node.ask()
    await receiver.received(1)
    monkeypatch.setattr("interlock.approvals.channels.webhook.sender.ATTEMPT_S", 30)
    assert len(await again(node, receiver, 2)) == 2


async def test_after_three_days_it_is_given_up_and_the_journal_says_so(opened: Open, receiver: Receiver) -> None:
    receiver.usual = 500
    node = await opened()
    await node.tell()
    request = await node.ask()
    await receiver.received(1)
    await again(node, receiver, 2, pace.PATIENCE.total_seconds() + 1)
    await emptied(node)
    (event,) = node.journal.of("message.given_up")
    assert event.fields["message"] == f"{request.id[4:]}-pending"
    assert event.fields["attempts"] == 2 and event.fields["why"] == "status 500"


async def test_a_full_outbox_loses_nothing(opened: Open, receiver: Receiver) -> None:
    receiver.usual = 500
    node = await opened(room=2)
    await node.tell()
    asked = [await node.ask(command=replace(SHELL, text=b"rm -rf /srv/%d" % n)) for n in range(5)]
    await receiver.received(2)
    await postponed(node)
    assert len(await node.store.outbox.waiting("webhook")) == 2
    receiver.usual = 204
    heard: set[str] = set()
    async with asyncio.timeout(30):
        while heard != {f"{request.id[4:]}-pending" for request in asked}:
            node.later(3600)
            await asyncio.sleep(0.01)
            heard = {g.ident for g in receiver.got}


# -- ends of processes --------------------------------------------------------------------------------------------------


async def test_what_waits_survives_a_restart_and_keeps_its_id(opened: Open, receiver: Receiver) -> None:
    receiver.answers.append(HANG)
    node = await opened()
    await node.tell()
    request = await node.ask()
    await receiver.received(1)
    node = await opened()
    await node.tell()
    got = await receiver.received(2)
    assert got[0].ident == got[1].ident == f"{request.id[4:]}-pending"
    assert got[0].body == got[1].body


async def test_what_changed_while_nobody_told_is_told_at_the_next_start(opened: Open, receiver: Receiver) -> None:
    node = await opened()
    await node.tell()
    request = await node.ask()
    await receiver.received(1)
    await emptied(node)
    await node.hush()
    await node.answer(request)
    node = await opened()
    await node.tell()
    got = await receiver.received(2)
    assert [g.kind for g in got] == ["approval.pending", "approval.denied"]
    await emptied(node)
    node = await opened()
    await node.tell()
    await node.ask(command=replace(SHELL, text=b"rm -rf /srv/next"))
    assert [g.kind for g in await receiver.received(3)][2:] == ["approval.pending"], "nothing is told twice"


async def test_the_marks_of_what_was_told_outlive_other_channels_housekeeping(opened: Open, receiver: Receiver) -> None:
    node = await opened()
    await node.tell()
    await node.answer(await node.ask())
    await receiver.received(2)
    await emptied(node)
    node.clock.advance(2 * 86_400)
    await node.ask(command=replace(SHELL, text=b"rm -rf /srv/later"))
    await receiver.received(3)
    await emptied(node)
    assert await node.store.deliveries.take("slack", "Ev1", now=node.clock.now())
    node = await opened(clock=node.clock)
    await node.tell()
    last = await node.ask(command=replace(SHELL, text=b"rm -rf /srv/last"))
    await receiver.received(4)
    await emptied(node)  # what would be told again need not come before what is new
    assert [g.ident for g in receiver.got][3:] == [f"{last.id[4:]}-pending"]


async def test_requests_that_ended_before_there_was_a_webhook_are_no_news(opened: Open, receiver: Receiver) -> None:
    node = await opened()
    await node.answer(await node.ask())
    open_one = await node.ask(command=replace(SHELL, text=b"rm -rf /srv/open"))
    await node.tell()
    (got,) = await receiver.received(1)
    assert got.ident == f"{open_one.id[4:]}-pending"
    await emptied(node)
    assert len(receiver.got) == 1


async def test_a_killed_process_loses_nothing(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers.append(HANG)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "harness.webhook_node", str(tmp_path), receiver.url, cwd=Path(__file__).parents[1]
    )
    (first,) = await receiver.received(1)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    node = await Node(tmp_path, receiver.url).open()
    try:
        await node.tell()
        got = await receiver.received(2)
        assert (got[1].ident, got[1].body) == (first.ident, first.body)
    finally:
        await node.close()


# -- where it never connects --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "10.0.0.5", "172.16.3.4", "192.168.1.1", "169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0",
        "100.100.100.200", "::ffff:10.0.0.5", "64:ff9b::a9fe:a9fe", "2002:a00:5::", "224.0.0.1", "ff02::1", "fe80::1%eth0",
        "192.0.0.192", "255.255.255.255", "not-an-address",
    ],
)  # fmt: skip
def test_private_and_metadata_addresses_are_refused(address: str) -> None:
    assert not allowed(address, loopback=False)


def test_public_addresses_are_allowed_and_loopback_only_when_it_is_configured() -> None:
    assert allowed("93.184.216.34", loopback=False) and allowed("2606:2800:220:1::1", loopback=False)
    assert allowed("127.0.0.1", loopback=True) and allowed("::1", loopback=True)
    assert not allowed("10.0.0.5", loopback=True) and not allowed("93.184.216.34", loopback=True)


async def test_a_name_that_leads_inside_is_not_connected_to(opened: Open, receiver: Receiver) -> None:
    """The receiver listens on loopback; a public name that resolves there must not reach it."""

    async def rebound(host: str, port: int) -> list[str]:
        return ["127.0.0.1", "93.184.216.34"]  # where nothing is judged, the first is connected to

    node = await opened(url=receiver.url.replace("localhost", "hooks.example"), loopback=False, resolve=rebound)
    await node.tell()
    await node.ask()
    await postponed(node)
    assert receiver.got == []


async def test_the_address_that_was_judged_is_the_one_that_is_connected_to(opened: Open, receiver: Receiver) -> None:
    asked: list[str] = []

    async def once(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    node = await opened(url=receiver.url.replace("localhost", "never.resolved.invalid"), resolve=once)
    await node.tell()
    await node.ask()
    (got,) = await receiver.received(1)
    assert asked == ["never.resolved.invalid"]
    assert got.headers["host"].startswith("never.resolved.invalid:")


@asynccontextmanager
async def over_tls(certificate: tuple[Path, Path]) -> AsyncIterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with receiving(Receiver(), tls=context) as receiver:
        yield receiver


def certificate(path: Path, name: str) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)  # noqa: TID251  TLS checks it against the machine's clock
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    files = path / f"{name}.crt", path / f"{name}.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.mark.parametrize(
    ("name", "trusted", "heard"),
    [
        ("hooks.example", False, False),  # an authority that nobody trusts
        ("other.example", True, False),  # another name than the certificate's
        ("hooks.example", True, True),
    ],
)
async def test_tls_is_verified_against_the_name(opened: Open, tmp_path: Path, name: str, trusted: bool, heard: bool) -> None:
    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    files = certificate(tmp_path, "hooks.example")
    tls = ssl.create_default_context(cafile=str(files[0])) if trusted else None
    async with over_tls(files) as receiver:
        node = await opened(url=receiver.url.replace("localhost", name), resolve=here, tls=tls)
        await node.tell()
        await node.ask()
        if heard:
            assert (await receiver.received(1))[0].signed_by(KEY)
        else:
            await postponed(node)
            assert receiver.got == []


# -- the pure parts -----------------------------------------------------------------------------------------------------


def test_the_signature_is_the_standards_own_example() -> None:
    """The example of the Standard Webhooks specification."""
    key = signing.key_of(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    made = signing.headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "hunter2-hunter2-hunter2-hunter2", "whsec_" + "!" * 40])
def test_a_weak_secret_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        signing.key_of(Secret(secret))
    assert caught.value.code is Reason.CONFIG_INVALID and "openssl rand" in str(caught.value)
    assert not secret.removeprefix("whsec_") or secret not in str(caught.value)


def test_delays_double_are_spread_and_end() -> None:
    low, high = (lambda n: b"\x00" * n), (lambda n: b"\xff" * n)
    assert [pace.delay(n, low) for n in (1, 2, 3)] == [2.5, 5.0, 10.0]
    assert 4.9 < pace.delay(1, high) <= 5.0
    assert pace.delay(500, high) <= pace.LONGEST
    assert pace.delay(1, low, asked=120) == 120 and pace.delay(1, low, asked=10**9) == pace.LONGEST_ASKED
    assert pace.delay(12, low, asked=1) == pace.LONGEST / 2, "asking never makes it come sooner"


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert pace.asked_for("120", now) == 120
    assert pace.asked_for("Fri, 02 Jan 2026 03:05:05 GMT", now) == 60
    assert pace.asked_for("Fri, 02 Jan 2025 03:05:05 GMT", now) == 0
    for written in (None, "", "soon", "-5", "1e9", "٣"):
        assert pace.asked_for(written, now) is None
