"""Takes the pictures of docs/console.md: a real desk with made-up people, in a real Chromium.

    PYTHONPATH=proxy:tests python -m docs.pictures

Texts are really classified and really held by the shipped policy; nothing on the pictures is drawn by hand.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.asked import ORDERS, WEB, Asking, open_asking
from harness.browser import DESKTOP, PHONE, open_chromium, window
from harness.desk import Desk, open_desk
from harness.webnode import open_web
from interlock.approvals.model import ApprovalRequest, VoteVerdict
from interlock.identity.principal import Kind, Principal

RETENTION = """-- retention job, approved by legal
DELETE FROM orders
 WHERE created_at < '2024-01-01'
   AND status = 'cancelled'"""

IMAGES = Path(__file__).parent / "images"


@dataclass(frozen=True, slots=True)
class Scene:
    tree: ApprovalRequest
    orders: ApprovalRequest
    disguise: ApprovalRequest


async def scene(desk: Desk, asking: Asking) -> Scene:
    people = desk.directory
    await people.add("dana", Kind.HUMAN, groups=["support"])
    await people.add("erin", Kind.HUMAN, groups=["sre", "dba"])
    agent = desk.agent()
    helper = replace(agent, acting_for=(desk.entry("dana").identity,), acting_for_handles=("dana",))

    async def ask(principal: Principal, *args: Any, **more: Any) -> ApprovalRequest:
        return (await desk.inbox.submit(await asking.draft(principal, *args, **more))).request

    before = await desk.inbox.submit(await asking.draft(agent, WEB, "sudo rm -rf /var/cache/thumbs/2025-10"))
    await desk.inbox.vote(
        before.request.id, voter=desk.entry("bob").identity, channel="console", channel_actor="bob",
        verdict=VoteVerdict.APPROVE, digest=before.request.digest, reason="the cache fills up every month",
    )  # fmt: skip
    assert await before.consume() is not None
    denied = await ask(agent, WEB, "sudo apt-get install -y imagemagick")
    await desk.inbox.vote(
        denied.id, voter=desk.entry("bob").identity, channel="console", channel_actor="bob", verdict=VoteVerdict.DENY,
        digest=denied.digest, reason="take the package from our mirror instead",
    )  # fmt: skip
    disguise = await ask(agent, WEB, "sudo rm -rf '/srv/b\u0430ckups'            # clears /srv/b\u0430ckups.tmp")
    orders = await ask(
        helper, ORDERS, RETENTION,
        said="Dana asked me to apply the retention policy before the audit.",
    )  # fmt: skip
    tree = await ask(
        agent, WEB, "sudo rm -rf /var/cache/thumbs/2025-11 /var/lib/pg", scopes=("once", "exact", "rule_in_session"),
        said="Disk is at 97 % and these are only caches.",
    )  # fmt: skip
    return Scene(tree, orders, disguise)


async def take(out: Path) -> None:
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        async with (
            open_asking() as asking,
            open_desk(Path(scratch)) as desk,
            open_web(desk, local=False, classifier=asking.analyzer) as url,
        ):
            found = await scene(desk, asking)
            async with open_chromium() as chromium:
                shots = [
                    ("console-inbox-phone", "/console", PHONE, True, "bob"),
                    ("console-request-phone", f"/console/approvals/{found.tree.id}", PHONE, False, "bob"),
                    ("console-disguise-phone", f"/console/approvals/{found.disguise.id}", PHONE, True, "bob"),
                    ("console-request", f"/console/approvals/{found.tree.id}", DESKTOP, False, "bob"),
                    ("console-request-dark", f"/console/approvals/{found.orders.id}", DESKTOP, True, "bob"),
                    ("console-policy", "/console/policy", DESKTOP, False, "carol"),
                ]
                for name, path, size, dark, handle in shots:
                    scale = 1.5 if size is PHONE else 1
                    async with window(chromium, url, size=size, dark=dark, device_scale_factor=scale) as seen:
                        await seen.log_in(handle, path)
                        if name == "console-policy":
                            await seen.page.fill("textarea[name=text]", "find /srv/app -name '*.tmp' -mtime +30 -delete")
                            await seen.page.click("button.primary")
                            await seen.page.wait_for_selector("#answer")
                        await seen.page.screenshot(path=str(out / f"{name}.png"))


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES))
