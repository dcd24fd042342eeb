"""Who a client is: the methods it may log in with, and what each of them proves.

Authority comes from the method that completed, for the user name it completed with, and from nothing else: a key that
was only offered, or signed for another name, proves nothing (CVE-2024-45337).

Knows the directory and the key exchange. Must not know targets and sessions: what follows from being somebody is visit.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncssh
import structlog
from asyncssh.auth import Auth
from asyncssh.constants import MSG_KEXINIT
from asyncssh.packet import SSHPacket
from asyncssh.public_key import SSHOpenSSHCertificate, SSHX509CertificateChain

from interlock.errors import AuthenticationError, InterlockError
from interlock.identity.logins import Opened
from interlock.identity.principal import Principal
from interlock.ssh import algorithms, certificates
from interlock.ssh.house import House
from interlock.ssh.outflow import Outflow

log = structlog.get_logger()

TOKEN_PROMPT = ("Interlock", "", "", (("Token: ", False),))


def invitation(address: str, code: str) -> str:
    """Return what a stock client prints while it waits. Who did not run ssh just now must not confirm (RFC 8628 §5.4)."""
    return (
        f"To log in, open {address}\nand confirm the code {code}. Confirm only what you began yourself.\n"
        "This connection waits. With `interlock login` it need not.\n"
    )


@dataclass(frozen=True, slots=True)
class Proven:
    """A completed authentication: the method object that completed, the name it was for, and whose it is."""

    method: Auth
    username: str
    principal: Principal


class Owner(asyncssh.SSHServer):
    """asyncssh wants one. It says yes only to keys that `Proving` has found in the directory already."""

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True


class Proving(Outflow):
    """The part of a client connection that finds out who is there."""

    _source: str
    """The client's address, since the connection was made."""
    _counted_as: str
    """The network that its attempts are counted for."""

    def __init__(self, house: House, options: asyncssh.SSHServerConnectionOptions) -> None:
        self._house = house
        self._proven: Proven | None = None
        self._certified: tuple[bytes, Principal] | None = None
        self._confirming = ""
        self._confirmed: list[Opened] = []
        self._failures = 0
        self._offers = 0
        super().__init__(house.limits, options)

    # -- key exchange ---------------------------------------------------------------------------------------------

    def _send_kexinit(self) -> None:
        if b"OpenSSH" in self._client_version:
            self._enc_algs = [name.encode() for name in algorithms.GCM]
        super()._send_kexinit()

    async def _process_strict_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        await super()._process_kexinit(pkttype, pktid, packet)
        if not self._strict_kex:
            raise asyncssh.KeyExchangeFailed(algorithms.OLD_PEER)

    _packet_handlers = {  # noqa: RUF012
        **Outflow._packet_handlers,
        MSG_KEXINIT: _process_strict_kexinit,
    }

    async def reload_config(self) -> None:
        """There is no per-user configuration file; asyncssh would read all keys again for each name that is tried."""

    # -- authentication -------------------------------------------------------------------------------------------

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return True

    def host_based_auth_supported(self) -> bool:
        return False

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Say whether a key may be used (no `msg`), or whether it signed. Only the second proves anything."""
        self._certified = None  # set by the hook below, while super() runs
        principal = self._house.authenticator.ssh_key(key_data)
        self._offers += 1
        if self._offers > self._house.limits.login_offers:
            raise asyncssh.PermissionDenied("interlock: too many keys were offered")
        certificate = principal is None and algorithms.is_certificate(key_data)
        if principal is None and not certificate:
            return False
        if msg and algorithms.signature_algorithm(signature) not in algorithms.SIGNATURES:
            return False
        if not await super().validate_public_key(username, key_data, msg, signature):
            return False
        if certificate:
            # Had asyncssh read it elsewhere than in the hook below, or another one meanwhile, it would not be here.
            principal = self._certified_by(key_data)
        if principal is None:
            return False
        if msg:
            self._prove(username, principal)
        return True

    def _certified_by(self, key_data: bytes) -> Principal | None:
        certified, self._certified = self._certified, None
        return certified[1] if certified is not None and certified[0] == key_data else None

    async def _validate_openssh_certificate(self, username: str, cert: SSHOpenSSHCertificate) -> asyncssh.SSHKey | None:
        """asyncssh's hook between reading a certificate and checking the signature with its key (certificates.py)."""
        principal = certificates.holder(cert, self._house.authenticator, self._source)
        if principal is None:
            return None
        self._certified = (cert.public_data, principal)
        cert.key.set_touch_required(True)
        return cert.key

    async def _validate_x509_certificate_chain(self, username: str, cert: SSHX509CertificateChain) -> asyncssh.SSHKey | None:
        return None

    async def validate_password(self, username: str, password: str) -> bool:
        try:
            principal = await self._house.authenticator.token(password, source=self._source)
        except AuthenticationError as error:
            log.info("ssh.token.refused", client=self._source, reason=str(error.code))
            return False
        except InterlockError as error:
            log.error("ssh.authentication.failed", client=self._source, reason=str(error.code))
            return False
        self._prove(username, principal)
        return True

    async def change_password(self, username: str, old_password: str, new_password: str) -> bool:
        return False

    async def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        """Show the code of a device grant and wait for it, where people log in so; else ask for a token."""
        signin = self._house.signin
        if signin is None or not signin.offers_device:
            return TOKEN_PROMPT
        try:
            flow = await signin.begin_device(self._counted_as)
        except InterlockError as error:
            log.info("ssh.login.not_begun", client=self._source, reason=str(error.code))
            return TOKEN_PROMPT
        self._confirming = flow.flow
        # People take longer than keys; the provider says how long its code is good for.
        self._cancel_login_timer()
        patience = min(flow.lifetime, self._house.limits.confirmation)
        self._login_timer = self._loop.call_later(patience, self._login_timer_callback)
        return ("Interlock", invitation(flow.complete or flow.address, flow.user_code), "", ())

    async def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        flow, self._confirming = self._confirming, ""
        if not flow:
            return len(responses) == 1 and await self.validate_password(username, responses[0])
        signin, method = self._house.signin, self.auth
        if signin is None or responses:
            return False
        try:
            answer = await signin.confirmed(flow, method="ssh")
        except InterlockError as error:
            log.info("ssh.login.refused", client=self._source, reason=str(error.code))
            return False
        finally:
            signin.abandon(flow)
        self._confirmed.append(answer)
        if self.auth is not method:
            return False  # the client began another authentication meanwhile: what was confirmed was not for that
        self._prove(username, answer.principal)
        return True

    def _prove(self, username: str, principal: Principal) -> None:
        if self.auth is not None:
            self._proven = Proven(self.auth, username, principal)

    def send_userauth_failure(self, partial_success: bool) -> None:
        self._failures += 1
        if self._failures > self._house.limits.login_failures:
            raise asyncssh.PermissionDenied("interlock: too many authentication failures")
        super().send_userauth_failure(partial_success)
