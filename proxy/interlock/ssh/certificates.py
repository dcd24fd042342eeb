"""Login certificates: what a client's certificate says, read where asyncssh reads it, and whose it is by our register.

asyncssh has no public accessor for the certificate that a client authenticated with, and its own rules are not ours: it wants
the user name among the principals, and our user names are targets. So `ClientConnection` replaces its private hook
`_validate_openssh_certificate`, and this is what stands there. The version is pinned below 2.25; `tests/ssh/test_certificates.py`
says loudly when the hook has moved. Were it never called, no certificate would be accepted.

Must not know directories or logins: `authenticator.ssh_certificate` says whose a certificate is.
"""

from __future__ import annotations

import ipaddress
from typing import Protocol, cast

from asyncssh.public_key import CERT_TYPE_USER, SSHOpenSSHCertificate

from interlock.identity.principal import Principal
from interlock.identity.sshkey import fingerprint


class Register(Protocol):
    """identity.authenticate, as far as certificates ask it."""

    def ssh_certificate(self, authority: bytes, serial: str, key: str, principals: list[str]) -> Principal | None: ...


def holder(certificate: SSHOpenSSHCertificate, register: Register, source: str) -> Principal | None:
    """Return whose certificate this is, or None when it proves nothing here. The authority's signature over it was verified
    by `decode_ssh_certificate`; whether that authority is ours is asked first."""
    principals = list(certificate.principals)
    if len(principals) != 1 or not principals[0].startswith("interlock:"):
        return None
    try:
        certificate.validate(CERT_TYPE_USER, principals[0])  # its kind and its dates
    except ValueError:
        return None
    if certificate.options.get("force-command") is not None:
        return None  # we never issue one, and would not keep to it
    allowed = cast("list[ipaddress.IPv4Network | ipaddress.IPv6Network] | None", certificate.options.get("source-address"))
    if allowed and not any(ipaddress.ip_address(source) in network for network in allowed):
        return None
    found = register.ssh_certificate(
        certificate.signing_key.public_data, f"{certificate._serial:016x}", fingerprint(certificate.key.public_data), principals
    )
    if found is None or found.credential.ident != f"{certificate._serial:016x}":
        return None
    return found
