"""TLS on both sides: what our listener shows and asks for, how a target is judged, and what a failed handshake means.

Knows: PostgreSQL manual "SSL Session Encryption" (ALPN, direct TLS), Python's ssl. Must not know: who connects.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from interlock.config import Config, TargetConfig, Tls
from interlock.errors import ConfigError
from interlock.identity.scram import server_end_point

ALPN = "postgresql"
"""Registered for this protocol. Direct TLS is refused without it, so that no client of another protocol is answered
(ALPACA): a browser sent to this port speaks h2 or http/1.1, or names nothing."""

CLIENT_HELLO = 0x16
"""First byte of a TLS record of the handshake. A start-up packet begins with its length, whose first byte is 0."""


def server_context(tls: Tls, config: Config) -> ssl.SSLContext:
    """Return how clients are met. Reads files. Raise ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.path(tls.certificate), config.path(tls.key))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls: certificate and key can't be loaded: {error}") from None
    context.set_alpn_protocols([ALPN])
    # As PostgreSQL: a resumed session would bring an old verdict about a client's certificate back.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    if tls.client_ca is not None and "cert" in config.listen.postgres_methods:
        # Asked for, not demanded: who shows none gets an answer in words, and a cancel request needs none.
        context.verify_mode = ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(config.path(tls.client_ca))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"tls.client_ca can't be loaded: {error}") from None
    return context


def own_binding(tls: Tls, config: Config) -> bytes | None:
    """Return tls-server-end-point of our certificate, which is the first in the configured file."""
    text = config.path(tls.certificate).read_text()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    first = text[text.index(begin) : text.index(end) + len(end)]
    return server_end_point(ssl.PEM_cert_to_DER_cert(first))


def client_context(config: Config, target: TargetConfig) -> ssl.SSLContext | None:
    """Return how this target's certificate is judged; None when TLS is off (loopback only). Reads files."""
    if target.tls == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    if target.tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif target.tls_ca is not None:
        try:
            context.load_verify_locations(config.path(target.tls_ca))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"tls_ca of target {target.name} can't be read: {error.__class__.__name__}") from None
    else:
        context.load_default_certs()
    credentials = target.credentials
    if credentials.certificate is not None and credentials.key is not None:
        key = config.path(Path(credentials.key.where))
        try:
            # The callback answers for a passphrase: without it OpenSSL would ask for one on a terminal.
            context.load_cert_chain(config.path(credentials.certificate), key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"certificate and key of target {target.name} can't be loaded: {error.__class__.__name__}; "
                "both are PEM, the key unencrypted, and they belong together"
            ) from None
    return context


_VERIFY = {
    9: "its certificate is not valid yet: compare the clocks of both machines",
    10: "its certificate has expired: renew it at the target",
    18: "its certificate is self-signed: name it as tls_ca, if it is the right one",
    19: "its certificate is signed by an authority that is not trusted here: name that one as tls_ca",
    20: "its certificate is signed by an authority that is not trusted here: name that one as tls_ca",
    62: "its certificate is for another name than the address in the configuration: correct the address, or set tls_name",
    64: "its certificate is not for this IP address: use the host name as address, or set tls_name",
}  # fmt: skip
"""OpenSSL's X509_V_ERR_… codes that people meet, each with what to do."""


def distrust(error: ssl.SSLCertVerificationError) -> str:
    """Say why a target's certificate was not accepted, and what to do about it."""
    said = _VERIFY.get(error.verify_code, error.verify_message or "it was not accepted")
    return f"showed a certificate that does not verify: {said}"


def broken(error: ssl.SSLError) -> str:
    """Say what ended a TLS connection to a target. OpenSSL's own word is kept: it names no secret."""
    reason = error.reason or error.__class__.__name__
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return f"ended the TLS handshake ({reason}): it may ask for a client certificate (credentials.certificate and key)"
    if (
        "UNKNOWN_CA" in reason
        or "BAD_CERTIFICATE" in reason
        or "CERTIFICATE_EXPIRED" in reason
        or "CERTIFICATE_UNKNOWN" in reason
    ):
        return f"did not accept our client certificate ({reason}): check what signed it, and until when it is valid"
    return f"could not agree on TLS with us ({reason}): it must speak TLS 1.2 or newer"
