"""Chromium before the console. Every address it loads is kept; whatever it complains about fails the test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.desk import PASSPHRASE

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
PHONE = {"width": 390, "height": 844}
SMALL = {"width": 360, "height": 640}
DESKTOP = {"width": 1280, "height": 800}


@dataclass
class Window:
    """One page of a browser, and what it did."""

    page: Any
    url: str
    loaded: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def elsewhere(self) -> list[str]:
        """What was asked of anybody but the console."""
        return [address for address in self.loaded if not address.startswith(self.url)]

    async def open(self, path: str) -> None:
        await self.page.goto(self.url + path)

    async def log_in(self, handle: str, path: str = "/console") -> None:
        await self.open(path)
        await self.page.fill("input[name=handle]", handle)
        await self.page.fill("input[name=passphrase]", PASSPHRASE)
        await self.page.click("button.primary")
        await self.page.wait_for_selector("header.bar")


@contextlib.asynccontextmanager
async def open_chromium() -> AsyncIterator[Any]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield chromium
        finally:
            await chromium.close()


@contextlib.asynccontextmanager
async def window(
    chromium: Any, url: str, *, size: dict[str, int] = DESKTOP, dark: bool = False, forgiving: bool = False, **options: Any
) -> AsyncIterator[Window]:
    """Open a window of its own. `forgiving` ones may complain: pages that are meant to fail do."""
    scheme = "dark" if dark else "light"
    # Without motion: a check of colours would else see what stands half way between two of them.
    options = {"reduced_motion": "reduce", **options}
    context = await chromium.new_context(viewport=size, color_scheme=scheme, **options)
    page = await context.new_page()
    seen = Window(page, url)
    page.on("request", lambda request: seen.loaded.append(request.url))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("console", lambda message: seen.complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: seen.complaints.append("a script that was in somebody's text ran"))
    try:
        yield seen
    finally:
        await context.close()
    assert forgiving or seen.complaints == []
