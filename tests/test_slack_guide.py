"""docs/slack.md: its manifests ask for what the code uses and no more, and its configurations load."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from interlock.approvals.channels.slack import client
from interlock.config import SlackConfig, parse
from interlock.errors import ConfigError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/slack.md").read_text()

SCOPES = {  # https://docs.slack.dev/reference/methods: what a bot token needs for each
    "auth.test": None, "chat.postMessage": "chat:write", "chat.update": "chat:write", "chat.postEphemeral": "chat:write",
    "views.open": None, "users.info": "users:read", "apps.connections.open": None,  # the app's own token
}  # fmt: skip


def fenced(beginning: str) -> list[Any]:
    """The YAML blocks of the page whose first line begins like this."""
    blocks = re.findall(r"^( *)```yaml\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    texts = ["\n".join(line.removeprefix(indent) for line in text.splitlines()) for indent, text in blocks]
    return [yaml.safe_load(text) for text in texts if text.startswith(f"# {beginning}")]


def test_the_manifests_ask_for_exactly_the_scopes_that_our_calls_need() -> None:
    calls = set(re.findall(r'_call\("([a-zA-Z.]+)"', Path(client.__file__).read_text()))
    assert calls == set(SCOPES)
    manifests = fenced("app manifest")
    assert len(manifests) == 2
    for manifest in manifests:
        assert set(manifest["oauth_config"]["scopes"]["bot"]) == set(filter(None, (SCOPES[call] for call in calls)))
        assert manifest["settings"]["interactivity"]["is_enabled"] is True
        assert len(manifest["display_information"]["name"]) <= 35 and len(manifest["display_information"]["description"]) <= 140
        assert "event_subscriptions" not in manifest["settings"] and "slash_commands" not in manifest["features"]


def test_one_manifest_is_for_sockets_and_one_for_our_endpoint() -> None:
    socket, http = (manifest["settings"] for manifest in fenced("app manifest"))
    assert socket["socket_mode_enabled"] is True and "request_url" not in socket["interactivity"]
    assert http["socket_mode_enabled"] is False and http["interactivity"]["request_url"].endswith("/slack/interactions")


@pytest.mark.parametrize(("number", "mode"), [(0, "socket"), (1, "http")])
def test_the_configurations_load(number: int, mode: str) -> None:
    shown = fenced("interlock.yaml")[number]
    config = parse({"version": 1, "node": {"data_dir": "data"}, **shown}, base=ROOT)
    slack = config.approvals.channels.slack
    assert isinstance(slack, SlackConfig) and slack.mode == mode


def test_http_mode_without_an_address_to_post_to_is_refused() -> None:
    shown = fenced("interlock.yaml")[1]
    with pytest.raises(ConfigError, match="mode: http needs"):
        parse({"version": 1, "node": {"data_dir": "data"}, **shown, "listen": {}}, base=ROOT)
