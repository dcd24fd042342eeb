"""`interlock login`, `logout`, `token`: a person at the identity provider, and an agent with its platform's token.

The token of the session is printed nowhere and is in no argument: it goes from the daemon into a file of the person's own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import secrets
import sys
import time
import webbrowser
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from interlock.cli import certified
from interlock.cli.client import Client, find_server
from interlock.cli.kept import Kept, Session
from interlock.cli.loopback import Loopback
from interlock.cli.options import Format, Server
from interlock.cli.output import Output, data, emit_json, reporting, say, talk
from interlock.clock import SystemClock, rfc3339
from interlock.config import is_loopback
from interlock.errors import ConfigError, InterlockError, Reason

BROWSER_S = 300.0
TURN_S = 120.0
"""How long a turn is waited for."""

RETRY_AFTER_S = 5.0


@reporting
def login(
    server: Server = None,
    device: Annotated[bool, typer.Option("--device", help="Show a code to confirm on another device.")] = False,
    token_file: Annotated[Path | None, typer.Option(help="For agents: the file their platform keeps a token in.")] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Only get a new certificate for the login there is.")] = False,
    output: Format = Output.TEXT,
) -> None:
    """Log in, and get a certificate for ssh."""
    at = find_server(server)
    _check_safe(at)
    kept = Kept(at)
    key, came = certified.NewKey(), None
    if renew:
        session = _renewed(kept)
    elif token_file is not None:
        session = _with_token(at, token_file)
    else:
        session, came = _with_person(at, key.public, device=device)
    kept.keep(session)
    client = Client(at, token=session.secret())
    ends = key.keep(kept, client, came or client.post("/v1/certificate", {"public_key": key.public}))
    if output is Output.JSON:
        emit_json(
            {"v": 1, "server": at, "handle": session.handle, "expires": session.expires or None, "certificate_expires": ends}
        )
        return
    until = f", until {session.expires}" if session.expires else ""
    say(f"logged in at {at} as {session.handle}{until}; the certificate for ssh ends {ends}")
    say("next: interlock ssh TARGET, interlock psql TARGET, or `interlock config ssh >> ~/.ssh/config` once")


def _renewed(kept: Kept) -> Session:
    """Return the login there is; an agent's that has ended begins anew with what is in its platform's file now."""
    file = kept.token_file()
    return _with_token(kept.server, file) if file is not None else kept.session()


def _with_token(at: str, file: Path) -> Session:
    """Log in with the token in a file that the platform renews. A JWT is exchanged at once, as it may be good for one use; what
    comes of it is kept, and the file is read anew when that has ended."""
    place, given = str(file.absolute()), file.read_text().strip()
    token, expires = "", ""
    if given.count(".") == 2:
        try:
            token, seconds = Client(at).exchange(given)
            expires = rfc3339(SystemClock().now() + timedelta(seconds=seconds))
        except InterlockError as error:
            if error.code is not Reason.NOT_FOUND:
                raise
    who = Client(at, token=token or given).get("/v1/whoami")
    return Session(server=at, handle=str(who["handle"]), expires=expires, token=token, token_file=place)


def _with_person(at: str, public: str, *, device: bool) -> tuple[Session, dict[str, Any] | None]:
    """Return the login, and the certificate that came along with it: from a daemon that says that it gives one."""
    client = Client(at)
    ways = client.get("/v1/login")
    wanted = {"public_key": public} if ways.get("certificate") else {}
    if ways["browser"] and not device and _has_browser():
        answer = _in_browser(client, wanted)
    elif ways["device"]:
        answer = _by_code(client, wanted)
    elif ways["browser"]:
        answer = _in_browser(client, wanted)
    else:
        raise InterlockError(
            "people do not log in at an identity provider here: the configuration has no identity.login",
            reason=Reason.REQUEST_NOT_OFFERED,
            next_step="Use ssh with a registered key, psql with a password you were given, or --token-file with a token.",
        )
    session = Session(server=at, handle=str(answer["handle"]), expires=str(answer["expires"]), token=str(answer["token"]))
    return session, answer.get("certificate")


def _by_code(client: Client, wanted: dict[str, str]) -> dict[str, Any]:
    """RFC 8628 §3.3 and §3.5."""
    begun = _in_turn(client, "/v1/login/device", None)
    complete = begun["verification_uri_complete"]
    say(f"Open {begun['verification_uri']} and confirm the code {begun['user_code']}")
    if complete:
        say(f"or {complete}")
        if sys.stderr.isatty():
            talk.file.write(_picture(complete))
    deadline = time.monotonic() + float(begun["expires_in"])
    interval = float(begun["interval"])
    while time.monotonic() < deadline:
        time.sleep(interval)
        answer: dict[str, Any] = client.post("/v1/login/device/poll", {"flow": begun["flow"], **wanted})
        if answer["state"] == "done":
            return answer
        interval = float(answer["interval"])
    raise InterlockError("nobody confirmed the login in time; run `interlock login` again", reason=Reason.NOT_AUTHENTICATED)


def _in_browser(client: Client, wanted: dict[str, str]) -> dict[str, Any]:
    """Authorization code with PKCE: the verifier never leaves this process but to redeem the code."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    loopback = Loopback()
    try:
        begun = client.post("/v1/login/browser", {"port": loopback.port, "challenge": challenge})
        _check_page(str(begun["address"]))
        say(f"Log in in the browser that opens, or open {begun['address']}")
        if _has_browser():
            webbrowser.open(begun["address"])
        answer = loopback.wait(begun["state"], BROWSER_S)
    finally:
        loopback.close()
    body = {"flow": begun["flow"], "state": begun["state"], "code": answer.code, "verifier": verifier, "iss": answer.issuer}
    return _in_turn(client, "/v1/login/browser/finish", {**body, **wanted})


def _in_turn(client: Client, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Post, and again while too many others log in: the daemon has begun nothing then, and the browser's answer is still good."""
    deadline = time.monotonic() + TURN_S
    while True:
        try:
            answer: dict[str, Any] = client.post(path, body)
        except InterlockError as error:
            if error.code is not Reason.OVERLOADED or time.monotonic() >= deadline:
                raise
            say("many log in at this moment; waiting for a turn")
            time.sleep(RETRY_AFTER_S)
        else:
            return answer


def _has_browser() -> bool:
    """Whether a browser here is the person's own: not over ssh, and where there is a screen."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    return bool(os.environ.get("BROWSER") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or (
        sys.platform == "darwin"
    )


def _picture(address: str) -> str:
    """Return the address as a QR code for a terminal."""
    import segno

    drawn = io.StringIO()
    segno.make(address, error="l", micro=False).terminal(drawn, border=2, compact=True)
    return drawn.getvalue()


def _check_page(address: str) -> None:
    """Only a page of the web is opened: whatever else a browser would start is not the daemon's to choose."""
    try:
        parts = urlsplit(address)
        page = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    except ValueError:
        page = False
    if not page or not address.isascii() or not address.isprintable():
        raise InterlockError(
            "the daemon names no https page to log in at; tell an administrator, and don't log in", reason=Reason.CONFIG_INVALID
        )


def _check_safe(server: str) -> None:
    """Tokens cross no network in clear text."""
    parts = urlsplit(server)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigError(f"{server}: logging in over plain http would show the token to the network; use https")


@reporting
def logout(server: Server = None) -> None:
    """End the login, its certificates, passwords and live sessions."""
    at = find_server(server)
    kept = Kept(at)
    session = kept.session()
    try:
        if session.token and not session.token_file:  # what was exchanged ends by itself, in minutes
            Client(at, token=session.secret()).post("/v1/logout")
    except InterlockError as error:
        if error.code not in (Reason.TOKEN_REJECTED, Reason.NOT_AUTHENTICATED, Reason.LOGIN_ENDED):
            raise
    kept.forget()
    say(f"logged out at {at}")


@reporting
def token(
    server: Server = None,
    ttl: Annotated[int | None, typer.Option("--ttl", help="Seconds; 8 hours for people and 15 minutes for agents.")] = None,
    output: Format = Output.TEXT,
) -> None:
    """Print a short-lived Postgres password."""
    at = find_server(server)
    client = Client(at, token=Kept(at).session().secret())
    issued = client.post("/v1/password", {"lifetime": ttl} if ttl is not None else None)
    if output is Output.JSON:
        postgres = client.get("/v1/connect")["postgres"]
        emit_json({"v": 1, **issued, "postgres": postgres})
        return
    say(f"for {issued['handle']}, until {issued['expires']}")
    data.print(issued["password"], markup=False)
