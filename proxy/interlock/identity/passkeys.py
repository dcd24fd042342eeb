"""Passkeys (WebAuthn Level 3): whose page they belong to, bringing a new one, and whether an assertion holds.

Every ceremony asks for user verification: a touch alone proves that somebody was there, not who. The relying party is
`public_url` and nothing else, so an assertion made for another page is worth nothing here. Attestation is not asked for:
who brings a passkey has just given the passphrase, and that is what it stands on.

Knows ceremonies. Must not know requests or votes; what is kept is the directory's.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import webauthn
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, decode_credential_public_key, options_to_json_dict
from webauthn.helpers.cose import COSECRV, COSEAlgorithmIdentifier
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from interlock.clock import Clock, Entropy
from interlock.errors import AuthenticationError, ConfigError, Reason
from interlock.identity.entries import Entry
from interlock.identity.principal import Identity
from interlock.identity.registration import NewPasskey
from interlock.store.principals import PasskeyRow

PENDING_S = 300
MAX_PENDING = 1000
MAX_CREDENTIAL = 32_768
ALGORITHMS = {
    COSEAlgorithmIdentifier.ECDSA_SHA_256: COSECRV.P256,
    COSEAlgorithmIdentifier.EDDSA: COSECRV.ED25519,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256: None,
}
"""What is accepted, with its curve: what `interlock verify` can check with openssl alone."""


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """The page that passkeys belong to (WebAuthn §5.1.2, §13.4.9)."""

    id: str
    origin: str


def relying_party(public_url: str) -> RelyingParty | None:
    """Return who we are to an authenticator, or None where browsers would refuse: no name, an IP address, no TLS."""
    try:
        parts = urlsplit(public_url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    local = host == "localhost" or host.endswith(".localhost")
    if not host or _is_address(host) or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        return None
    plain = port is None or port == {"https": 443, "http": 80}[parts.scheme]
    return RelyingParty(host, f"{parts.scheme}://{host}" + ("" if plain else f":{port}"))


def required(party: RelyingParty | None) -> RelyingParty:
    """Return the relying party, or say what keeps this node from having one."""
    if party is None:
        raise ConfigError("passkeys need public_url: an https address with a host name (http only for localhost)")
    return party


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Registrations:
    """Ceremonies that bring a passkey: one at a time for a person, each answered once and within five minutes."""

    def __init__(self, party: RelyingParty | None, *, clock: Clock, entropy: Entropy) -> None:
        self.party = party
        self._clock = clock
        self._entropy = entropy
        self._pending: dict[Identity, tuple[bytes, int]] = {}

    def begin(self, person: Entry) -> dict[str, Any]:
        """Return the creation options for the browser, as JSON. A second call ends the first ceremony."""
        party = required(self.party)
        challenge, now = self._entropy(32), self._clock.monotonic_us()
        self._pending.pop(person.identity, None)
        for identity in [i for i, (_, until) in self._pending.items() if until <= now]:
            del self._pending[identity]
        while len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[person.identity] = (challenge, now + PENDING_S * 1_000_000)
        options = webauthn.generate_registration_options(
            rp_id=party.id,
            rp_name="Interlock",
            user_id=sha256(str(person.identity).encode()).digest(),  # §14.6.1: nothing that names the person
            user_name=person.handle,
            challenge=challenge,
            timeout=PENDING_S * 1000,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
            ),
            exclude_credentials=_descriptors(person.passkeys),
            supported_pub_key_algs=list(ALGORITHMS),
        )
        return options_to_json_dict(options)

    def finish(self, person: Entry, credential: str, name: str) -> NewPasskey:
        """Check what the browser returned (`RegistrationResponseJSON`). Raise AuthenticationError, ConfigError."""
        party = required(self.party)
        challenge, until = self._pending.pop(person.identity, (b"", 0))
        if not challenge or until <= self._clock.monotonic_us():
            raise AuthenticationError("no registration waits for this answer; begin again", reason=Reason.PROOF_REJECTED)
        if len(credential) > MAX_CREDENTIAL:
            raise AuthenticationError("the answer of the authenticator is too large", reason=Reason.PROOF_REJECTED)
        try:
            found = webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=party.id,
                expected_origin=party.origin,
                require_user_verification=True,
                supported_pub_key_algs=list(ALGORITHMS),
            )
            key = decode_credential_public_key(found.credential_public_key)
            if ALGORITHMS[key.alg] != getattr(key, "crv", None):
                raise ValueError("another curve than the algorithm's")
        except Exception as error:  # whatever the bytes did to the parsers, the answer is no
            raise AuthenticationError(f"the passkey was not accepted: {_said(error)}", reason=Reason.PROOF_REJECTED) from None
        return NewPasskey(bytes_to_base64url(found.credential_id), found.credential_public_key, found.sign_count, name)


def request_options(party: RelyingParty | None, passkeys: Iterable[PasskeyRow], challenge: bytes) -> dict[str, Any]:
    """Return the request options for an assertion over `challenge` by one of these passkeys, as JSON."""
    allowed = _descriptors(passkeys)
    if not allowed:
        raise AuthenticationError("you have no passkey yet; register one at /console/passkeys", reason=Reason.PROOF_REJECTED)
    options = webauthn.generate_authentication_options(
        rp_id=required(party).id,
        challenge=challenge,
        timeout=PENDING_S * 1000,
        allow_credentials=allowed,
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json_dict(options)


class BadAssertionError(ValueError):
    """The assertion does not hold; the message says what is wrong with it."""


def check_assertion(
    party: RelyingParty,
    passkey: PasskeyRow,
    challenge: bytes,
    *,
    client_data: bytes,
    authenticator_data: bytes,
    signature: bytes,
) -> int:
    """Return the signature counter of an assertion over `challenge`, made on our page by this passkey after it verified
    its user (WebAuthn §7.2). Raise BadAssertionError. What the counter means is the caller's to judge."""
    credential = {
        "id": passkey.id,
        "rawId": passkey.id,
        "type": "public-key",
        "response": {
            "clientDataJSON": bytes_to_base64url(client_data),
            "authenticatorData": bytes_to_base64url(authenticator_data),
            "signature": bytes_to_base64url(signature),
        },
    }
    try:
        collected = json.loads(client_data)
        # Our pages can't be framed, so nobody made this one while another page was in the address bar.
        if collected.get("crossOrigin", False) is not False or "topOrigin" in collected:
            raise BadAssertionError("it was made inside a frame of another page")
        found = webauthn.verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=party.origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=0,
            require_user_verification=True,
        )
    except BadAssertionError:
        raise
    except Exception as error:  # whatever the bytes did to the parsers, the answer is no
        raise BadAssertionError(_said(error)) from None
    return found.new_sign_count


def _said(error: Exception) -> str:
    """Return the library's own sentence; of any other error only its kind, since its text may quote the input."""
    ours = isinstance(error, webauthn.helpers.exceptions.WebAuthnException)
    return str(error)[:200] if ours else error.__class__.__name__


def _descriptors(passkeys: Iterable[PasskeyRow]) -> list[PublicKeyCredentialDescriptor]:
    return [PublicKeyCredentialDescriptor(id=base64url_to_bytes(passkey.id)) for passkey in passkeys]
