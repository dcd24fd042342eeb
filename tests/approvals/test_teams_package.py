"""The app package, read by other means than it was made with: a PNG decoder and a schema of our own, and the command line."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from interlock.approvals.channels.teams import icons
from interlock.approvals.channels.teams.package import AppDetails, manifest, package
from interlock.cli.main import build
from interlock.errors import ConfigError

APP_ID = "5a1c8e0b-7d3f-4c52-9b1e-0f6a2d4c8e11"
DETAILS = AppDetails(app_id=APP_ID, public_url="https://interlock.example.com:8443/gate", version="1.2.3")

GUID = "^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"


def _text(longest: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": longest}


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


HTTPS = {"type": "string", "maxLength": 2048, "pattern": "^https://"}
CAPABILITY = {"type": "string", "enum": ["tab", "bot", "connector"]}

# What https://developer.microsoft.com/json-schemas/teams/v1.19/MicrosoftTeams.schema.json says of the keys that we write.
# No key beside these is taken there either (additionalProperties: false, all the way down).
SCHEMA = _object(
    ("manifestVersion", "version", "id", "developer", "name", "description", "icons", "accentColor"),
    **{
        "$schema": {"type": "string"},
        "manifestVersion": {"type": "string", "enum": ["1.19"]},
        "version": {"type": "string", "maxLength": 256, "pattern": r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$"},
        "id": {"type": "string", "pattern": GUID},
        "localizationInfo": _object(
            ("defaultLanguageTag",),
            defaultLanguageTag={"type": "string", "pattern": "^[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8}){0,2}$"},
        ),
        "developer": _object(
            ("name", "websiteUrl", "privacyUrl", "termsOfUseUrl"),
            name=_text(32), websiteUrl=HTTPS, privacyUrl=HTTPS, termsOfUseUrl=HTTPS,
        ),
        "name": _object(("short", "full"), short=_text(30), full=_text(100)),
        "description": _object(("short", "full"), short=_text(80), full=_text(4000)),
        "icons": _object(("outline", "color"), outline=_text(2048), color=_text(2048)),
        "accentColor": {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"},
        "bots": {
            "type": "array",
            "maxItems": 1,
            "items": _object(
                ("botId", "scopes"),
                botId={"type": "string", "pattern": GUID},
                scopes={"type": "array", "maxItems": 3, "items": {"type": "string", "enum": ["team", "personal", "groupChat"]}},
                isNotificationOnly={"type": "boolean"}, supportsFiles={"type": "boolean"},
                supportsCalling={"type": "boolean"}, supportsVideo={"type": "boolean"},
            ),
        },
        "defaultInstallScope": {"type": "string", "enum": ["personal", "team", "groupChat", "meetings"]},
        "defaultGroupCapability": _object((), team=CAPABILITY, groupchat=CAPABILITY, meetings=CAPABILITY),
        "validDomains": {"type": "array", "maxItems": 16, "items": _text(2048)},
    },
)  # fmt: skip

TYPES: dict[str, type] = {"string": str, "boolean": bool, "array": list, "object": dict}


def violations(value: Any, schema: dict[str, Any], at: str = "$") -> list[str]:
    """What of JSON Schema the subset above uses."""
    if not isinstance(value, TYPES[schema["type"]]):
        return [f"{at}: not {schema['type']}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{at}: {value!r} does not match {schema['pattern']}")
    if len(value) > schema.get("maxLength", 1 << 20) if isinstance(value, str) else False:
        found.append(f"{at}: too long")
    if isinstance(value, list):
        found += [f"{at}: too many"] if len(value) > schema.get("maxItems", 1 << 20) else []
        found += [problem for n, item in enumerate(value) for problem in violations(item, schema["items"], f"{at}[{n}]")]
    if isinstance(value, dict):
        found += [f"{at}: {key} is missing" for key in schema["required"] if key not in value]
        found += [f"{at}: {key} is not in the schema" for key in value if key not in schema["properties"]]
        for key in value.keys() & schema["properties"].keys():
            found += violations(value[key], schema["properties"][key], f"{at}.{key}")
    return found


def decoded(png: bytes) -> tuple[int, int, int, list[bytes]]:
    """Return width, height, channels and unfiltered rows. Checks signature, every chunk's CRC, and the order of chunks."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        name, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length) == (zlib.crc32(name + content),)
        chunks.append((name, content))
        at += 12 + length
    assert [name for name, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, kind, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert depth == 8 and rest == [0, 0, 0]
    channels = {2: 3, 6: 4}[kind]
    raw = zlib.decompress(chunks[1][1])
    stride = 1 + width * channels
    assert len(raw) == stride * height
    rows = [raw[n * stride : (n + 1) * stride] for n in range(height)]
    assert {row[0] for row in rows} == {0}  # no filter: the samples are the pixels
    return width, height, channels, [row[1:] for row in rows]


def unpacked(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_manifest_is_what_the_schema_takes_and_names_the_bot() -> None:
    made = manifest(DETAILS)
    assert violations(made, SCHEMA) == []
    (bot,) = made["bots"]
    assert made["id"] == bot["botId"] == APP_ID
    assert set(bot["scopes"]) == {"personal", "team", "groupChat"}
    assert bot["supportsFiles"] is False and bot["isNotificationOnly"] is False
    assert made["validDomains"] == ["interlock.example.com"]  # a host: no scheme, no port, no path
    assert made["name"]["short"] != made["name"]["full"] and made["description"]["short"] not in made["description"]["full"]


def test_the_schema_of_this_test_can_fail() -> None:
    made = manifest(DETAILS)
    assert violations({**made, "accentColor": "blue"}, SCHEMA)
    assert violations({**made, "packageName": "com.example"}, SCHEMA)
    assert violations({key: made[key] for key in made if key != "icons"}, SCHEMA)
    assert violations({**made, "bots": [{**made["bots"][0], "scopes": ["groupchat"]}]}, SCHEMA)


def test_the_longest_words_that_are_taken_still_fit_the_schema() -> None:
    longest = replace(DETAILS, name="N" * 30, developer="D" * 32, privacy="https://example.com/privacy")
    made = manifest(longest)
    assert violations(made, SCHEMA) == []
    assert made["developer"]["privacyUrl"] == "https://example.com/privacy"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"app_id": "my-bot"}, "is no GUID"),
        ({"app_id": APP_ID + "\n"}, "is no GUID"),
        ({"public_url": "http://interlock.example.com"}, "no https address"),
        ({"public_url": ""}, "no https address"),
        ({"public_url": "https://user:pw@interlock.example.com"}, "no https address"),
        ({"public_url": "https:///gate"}, "no https address"),
        ({"public_url": "https://[::1"}, "no https address"),
        ({"website": "ftp://example.com"}, "--website"),
        ({"version": "1.2"}, "--version"),
        ({"version": "01.2.3"}, "--version"),
        ({"accent": "#12345"}, "--accent"),
        ({"name": "N" * 31}, "--name"),
        ({"developer": "a\nb"}, "--developer"),
    ],
)
def test_what_teams_would_not_take_is_refused_with_a_sentence(change: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        package(replace(DETAILS, **change))


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        package(replace(DETAILS, app_id="x", public_url="y", version="z"))
    assert len(str(raised.value).splitlines()) == 4


def test_the_color_icon_is_192_square_opaque_and_of_the_accent() -> None:
    width, height, channels, rows = decoded(icons.color("#1f3a5f"))
    assert (width, height, channels) == (192, 192, 3)
    pixels = {row[at : at + 3] for row in rows for at in range(0, len(row), 3)}
    assert {b"\x1f\x3a\x5f", b"\xff\xff\xff"} <= pixels
    assert all(row == b"\x1f\x3a\x5f" * 192 for row in rows[:48] + rows[-48:])  # Teams may crop all but the middle 96×96
    assert all(row[: 48 * 3] + row[-48 * 3 :] == b"\x1f\x3a\x5f" * 96 for row in rows)
    assert icons.color("#123456") != icons.color("#1f3a5f")


def test_the_outline_icon_is_32_square_and_nothing_but_white_on_transparent() -> None:
    width, height, channels, rows = decoded(icons.outline())
    assert (width, height, channels) == (32, 32, 4)
    pixels = [row[at : at + 4] for row in rows for at in range(0, len(row), 4)]
    assert {pixel[:3] for pixel in pixels} == {b"\xff\xff\xff"}
    assert {0, 255} <= {pixel[3] for pixel in pixels}
    assert max(row[3] for row in rows) > 0 and max(row[-1] for row in rows) > 0  # no padding at either side


def test_the_same_details_make_the_same_bytes() -> None:
    first = package(DETAILS)
    assert first == package(DETAILS)
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert [entry.filename for entry in archive.infolist()] == ["manifest.json", "color.png", "outline.png"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert package(replace(DETAILS, version="1.2.4")) != first


# -- the command line -----------------------------------------------------------------------------------------------------


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(["teams"]), ["teams", "package", *words])
    return result.exit_code, result.output


def test_the_verb_reads_a_configuration(tmp_path: Path) -> None:
    config, out = tmp_path / "interlock.yaml", tmp_path / "app.zip"
    teams = {
        "app_id": APP_ID, "app_password": "env:NEVER_READ", "tenants": ["t"], "service_url": "https://smba.trafficmanager.net/emea/",
    }  # fmt: skip
    config.write_text(
        json.dumps(
            {
                "version": 1, "node": {"data_dir": str(tmp_path / "data")}, "public_url": "https://gate.example.com",
                "approvals": {"channels": {"teams": teams}},
            }
        )
    )  # fmt: skip
    status, said = run("--config", str(config), "--out", str(out), "--developer", "Example AG")
    assert status == 0, said
    files = unpacked(out.read_bytes())
    made = json.loads(files["manifest.json"])
    assert made["bots"][0]["botId"] == APP_ID and made["validDomains"] == ["gate.example.com"]
    assert made["developer"]["name"] == "Example AG"
    assert files["color.png"] == icons.color(made["accentColor"]) and files["outline.png"] == icons.outline()


def test_the_verb_takes_flags_alone_never_overwrites_and_writes_nothing_when_it_refuses(tmp_path: Path) -> None:
    out = tmp_path / "app.zip"
    flags = ["--app-id", APP_ID, "--out", str(out)]
    status, said = run(*flags, "--public-url", "http://gate.example.com")
    assert status == 2 and "no https address" in said and not out.exists()
    assert run(*flags, "--public-url", "https://gate.example.com")[0] == 0
    before = out.read_bytes()
    status, said = run(*flags, "--public-url", "https://other.example.com")
    assert status == 2 and "exists" in said and out.read_bytes() == before


def test_the_verb_without_anything_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERLOCK_CONFIG", raising=False)
    status, said = run()
    assert status == 2 and "--config FILE" in said
