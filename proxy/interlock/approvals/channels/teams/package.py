"""The Teams app package: manifest.json and two icons in a zip that is the same bytes for the same words.

Pure: details in, bytes out. Asks Teams for nothing but a bot that answers in personal chats, teams and group chats: no
files, no calls, no Graph permission, no single sign-on – hence no `webApplicationInfo`, which only those need.
Schema: https://developer.microsoft.com/json-schemas/teams/v1.19/MicrosoftTeams.schema.json
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from interlock.approvals.channels.teams import icons
from interlock.errors import ConfigError

SCHEMA_VERSION = "1.19"
ACCENT = "#1f3a5f"

SHORT = "Answer what AI agents ask before it runs."
FULL = (
    "Interlock stands between AI agents and the servers and databases they work on. When a rule says that a person must "
    "look first, a card appears here with the exact command, who asks and for whom, and what it would do. Approve or deny it "
    "on the card; the most critical requests are signed on Interlock's own page. Only people whom your administrator has "
    "linked can answer, and never the owner of the agent that asks."
)

_GUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_SEMVER = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2}")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip can name
_MAX_URL = 2048


@dataclass(frozen=True, slots=True)
class AppDetails:
    """What differs between one organisation's package and another's."""

    app_id: str
    public_url: str
    version: str
    name: str = "Interlock"
    developer: str = "Interlock"
    website: str = ""  # empty: public_url, as for the next two
    privacy: str = ""
    terms: str = ""
    accent: str = ACCENT


def manifest(details: AppDetails) -> dict[str, Any]:
    """Return the manifest. Raise ConfigError with every reason why Teams would not take it."""
    problems = _problems(details)
    if problems:
        raise ConfigError("no package can be made:\n" + "\n".join(f"  {problem}" for problem in problems))
    page = details.public_url
    return {
        "$schema": f"https://developer.microsoft.com/json-schemas/teams/v{SCHEMA_VERSION}/MicrosoftTeams.schema.json",
        "manifestVersion": SCHEMA_VERSION,
        "version": details.version,
        "id": details.app_id,
        "localizationInfo": {"defaultLanguageTag": "en-us"},
        "developer": {
            "name": details.developer,
            "websiteUrl": details.website or page,
            "privacyUrl": details.privacy or page,
            "termsOfUseUrl": details.terms or page,
        },
        "name": {"short": details.name, "full": f"{details.name}: approvals for AI agents"},
        "description": {"short": SHORT, "full": FULL},
        "icons": {"color": "color.png", "outline": "outline.png"},
        "accentColor": details.accent,
        "bots": [
            {
                "botId": details.app_id,
                "scopes": ["personal", "team", "groupChat"],
                "isNotificationOnly": False,
                "supportsFiles": False,
                "supportsCalling": False,
                "supportsVideo": False,
            }
        ],
        "defaultInstallScope": "team",
        "defaultGroupCapability": {"team": "bot", "groupchat": "bot"},
        "validDomains": [urlsplit(page).hostname],
    }


def package(details: AppDetails) -> bytes:
    """Return the zip. Raise ConfigError as `manifest` does."""
    files = {
        "manifest.json": (json.dumps(manifest(details), indent=2, ensure_ascii=False) + "\n").encode(),
        "color.png": icons.color(details.accent),
        "outline.png": icons.outline(),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:  # stored: a compressor's bytes differ by version
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return packed.getvalue()


def _problems(details: AppDetails) -> list[str]:
    found = []
    if not _GUID.fullmatch(details.app_id):
        found.append(f"app_id {details.app_id!r} is no GUID; copy the Application (client) ID of the bot's app registration")
    if not _https(details.public_url):
        found.append(f"public_url {details.public_url!r} is no https address; Teams and reviewers reach this proxy only by one")
    for option, url in (("--website", details.website), ("--privacy", details.privacy), ("--terms", details.terms)):
        if url and not _https(url):
            found.append(f"{option} {url!r} is no https address")
    if not _SEMVER.fullmatch(details.version):
        found.append(f"--version {details.version!r} is not of the form 1.2.3; Teams takes an update only with a higher one")
    if not _COLOR.fullmatch(details.accent):
        found.append(f"--accent {details.accent!r} is no colour of the form #1f3a5f")
    for option, text, longest in (("--name", details.name, 30), ("--developer", details.developer, 32)):
        if not 1 <= len(text) <= longest or not text.isprintable() or text != text.strip():
            found.append(f"{option} must be 1 to {longest} printable characters, as Teams cuts no longer one")
    return found


def _https(url: str) -> bool:
    """Whether this is an https URL of a named host, without credentials, that Teams' schema takes."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= _MAX_URL
    return plain and parts.scheme == "https" and bool(host) and not (parts.username or parts.password)
