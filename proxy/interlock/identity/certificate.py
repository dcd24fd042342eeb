"""Client certificates: whom one names. That it was signed by the right authority is TLS's to say, and was said before.

Knows X.509 names and RFC 5280. Must not know the directory, TLS, sockets. A certificate names somebody by its subject's
common name, as PostgreSQL's own method `cert` reads it: exactly one, which is the handle and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from interlock.errors import AuthenticationError
from interlock.identity.principal import HANDLE


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What counts of a certificate. `ident` names it in records: the SHA-256 of the whole, in hexadecimal."""

    handle: str
    ident: str
    begins: datetime
    expires: datetime


def read(der: bytes) -> ClientCertificate:
    """Read a certificate that TLS has verified. Raise AuthenticationError when it names nobody."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ident = certificate.fingerprint(hashes.SHA256()).hex()
        begins, expires = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except ValueError:
        raise AuthenticationError("the client certificate can't be read") from None
    # With two, two readers may take different ones; a NUL inside ended the name for some of them (CVE-2009-2408).
    if len(names) != 1 or not isinstance(names[0].value, str) or not HANDLE.match(names[0].value):
        raise AuthenticationError("the client certificate's common name (CN) is not one handle")
    return ClientCertificate(names[0].value, ident, begins, expires)
