"""The cast of the tests: Alice owns the agent, Bob reviews, Mallory is somebody else's administrator."""

from __future__ import annotations

from interlock.identity.principal import Credential, CredentialKind, Identity, Kind, Principal

ALICE = Identity("local", "alice")
BOB = Identity("local", "bob")
CAROL = Identity("local", "carol")
CLAUDE = Identity("local", "claude-ci")


def agent(*, groups: tuple[str, ...] = ("agents",), acting_for: tuple[Identity, ...] = ()) -> Principal:
    return Principal(
        identity=CLAUDE,
        handle="claude-ci",
        kind=Kind.AGENT,
        credential=Credential(CredentialKind.SSH_KEY, "SHA256:test"),
        groups=frozenset(groups),
        owner=ALICE,
        acting_for=acting_for,
        owner_handle="alice",
    )


def person(identity: Identity = BOB, *, groups: tuple[str, ...] = ("sre",)) -> Principal:
    return Principal(
        identity=identity,
        handle=identity.subject,
        kind=Kind.HUMAN,
        credential=Credential(CredentialKind.PASSPHRASE, identity.subject),
        groups=frozenset(groups),
    )
