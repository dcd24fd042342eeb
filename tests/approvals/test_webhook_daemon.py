"""The webhook of a whole daemon: its configuration, and that a stop and a start lose nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.receiver import Receiver, receiving
from harness.requests import draft
from interlock.app import Daemon
from interlock.config import parse
from interlock.errors import ConfigError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def daemon(path: Path, url: str, secret: str = SECRET) -> Daemon:
    (path / "secret").write_text(secret + "\n")
    webhook = {"url": url, "secret": "file:secret"}
    config = {"version": 1, "node": {"data_dir": str(path / "data")}, "approvals": {"channels": {"webhook": webhook}}}
    return Daemon(parse(config, base=path))


async def test_a_configured_webhook_is_told_also_what_happened_before_a_stop(tmp_path: Path) -> None:
    async with receiving(Receiver(usual=500)) as receiver:
        node = daemon(tmp_path, receiver.url)
        await node.start()
        request = (await node._inbox.submit(draft())).request
        await receiver.received(1)
        await node.close()
        receiver.usual = 204
        heard = len(receiver.got)
        node = daemon(tmp_path, receiver.url)
        await node.start()
        try:
            async with asyncio.timeout(30):
                while len(receiver.got) == heard:
                    await receiver.received(heard + 1)
        finally:
            await node.close()
    assert {g.ident for g in receiver.got} == {f"{request.id[4:]}-pending"}


@pytest.mark.parametrize(
    ("url", "secret"), [("http://localhost:1/", "short"), ("https://u:p@h/", SECRET), ("http://hooks.example/", SECRET)]
)
async def test_a_webhook_that_would_not_be_safe_does_not_start(tmp_path: Path, url: str, secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await daemon(tmp_path, url, secret).start()
    assert secret not in str(caught.value)
