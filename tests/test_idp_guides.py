"""The guides of docs/idp: each configuration loads as it stands, and each guide says what was tried and names what we serve."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interlock.config import load
from interlock.web.console.oidc import PLACE

HERE = Path(__file__).resolve().parents[1] / "docs" / "idp"
PEOPLE = ("entra", "google", "keycloak", "okta")
GUIDES = (*PEOPLE, "github-actions", "kubernetes")


def test_every_guide_is_here() -> None:
    assert {file.stem for file in HERE.glob("*.md")} == {"README", *GUIDES}
    assert {file.stem for file in HERE.glob("*.yaml")} == set(GUIDES)


@pytest.mark.parametrize("name", GUIDES)
def test_the_configuration_is_valid_and_is_the_guides(name: str) -> None:
    config = load(HERE / f"{name}.yaml")
    text = (HERE / f"{name}.md").read_text()
    assert f"[{name}.yaml]({name}.yaml)" in text
    (issuer,) = config.identity.issuers
    assert issuer.issuer.startswith("https://") and issuer.kind == ("human" if name in PEOPLE else "agent")
    assert (config.identity.login is not None) == (name in PEOPLE)
    assert config.identity.ssh_ca is not None
    if config.identity.login is not None:
        assert config.identity.login_issuer is issuer
        assert config.identity.login.device_client is not None and config.identity.login.web is not None
        assert f"{config.public_url}{PLACE}/callback" in text


@pytest.mark.parametrize("name", GUIDES)
def test_the_guide_says_what_was_tried(name: str) -> None:
    text = " ".join((HERE / f"{name}.md").read_text().split())
    assert re.search(r"; not exercised against (Okta|Entra|Google|Keycloak|GitHub|a cluster)\.", text)
    assert re.search(r"Exercised(, in the tests:| against the certified test provider:)", text)
    assert "None of these was exercised against the real service" in " ".join((HERE / "README.md").read_text().split())
