"""The examples of docs/webhook.md verify a real message and no other."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from interlock.approvals.channels.webhook import signing
from interlock.clock import SystemClock
from interlock.config import Secret

PAGE = (Path(__file__).parents[2] / "docs" / "webhook.md").read_text()
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type":"approval.pending","data":{}}'


def example(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def headers(at: int) -> dict[str, str]:
    return signing.headers(signing.key_of(Secret(SECRET)), "01K-pending", at, BODY)


def test_the_python_example() -> None:
    names: dict[str, Any] = {}
    exec(example("python"), names)
    now = int(SystemClock().now().timestamp())
    good = headers(now)
    assert names["verify"](SECRET, good, BODY)
    assert names["verify"](SECRET, {**good, "webhook-signature": f"v1a,x {good['webhook-signature']}"}, BODY)
    assert not names["verify"](SECRET, good, BODY + b" ")
    assert not names["verify"](SECRET, {**good, "webhook-id": "01K-denied"}, BODY)
    assert not names["verify"](SECRET, headers(now - 3600), BODY)
    assert not names["verify"]("whsec_" + "A" * 32, good, BODY)


@pytest.mark.parametrize(("change", "code"), [({}, 0), ({"id": "01K-denied"}, 1), ({"timestamp": "1"}, 1), ({"body": "x"}, 1)])
async def test_the_shell_example(tmp_path: Path, change: dict[str, str], code: int) -> None:
    good = headers(1767319985)
    given = {"secret": SECRET, "id": good["webhook-id"], "timestamp": good["webhook-timestamp"], **change}
    (tmp_path / "body").write_bytes(change.get("body", "").encode() or BODY)
    script = example("bash")
    child = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "signature": good["webhook-signature"], **given}
    )
    assert await child.wait() == code
