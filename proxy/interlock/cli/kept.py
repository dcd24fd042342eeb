"""What a login leaves behind on a person's machine: the session, the certified key, and how SSH knows the proxy.

One folder a server, 0700, below INTERLOCK_HOME (`~/.interlock`). Files are 0600 and replaced whole, so that two commands at once
never read half of one. A file that others can read is refused, as ssh does with keys. Knows files; must not know HTTP.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from interlock.clock import SystemClock
from interlock.errors import AuthenticationError, InterlockError, Reason

MARGIN = timedelta(seconds=60)
"""What ends within a minute is renewed before it is used."""

_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class Session:
    """A login at `server`: its token, or the file that an agent's platform keeps one in."""

    server: str
    handle: str
    expires: str
    token: str = ""
    token_file: str = ""

    def __repr__(self) -> str:
        return f"Session({self.server!r}, {self.handle!r})"

    def secret(self) -> str:
        """Return the token; one that a platform renews, and that was not exchanged, is read anew each time."""
        if not self.token and self.token_file:
            return Path(self.token_file).read_text().strip()
        return self.token


class Kept:
    """The folder of one server."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.folder = home() / (_UNFIT.sub("_", server.removeprefix("https://").removeprefix("http://")).strip("_.") or "local")

    @property
    def key(self) -> Path:
        """The private key; when an agent holds it, only `.pub` and `-cert.pub` are there."""
        return self.folder / "id"

    @property
    def certificate(self) -> Path:
        return self.folder / "id-cert.pub"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def session(self) -> Session:
        """Return the login. Raise AuthenticationError (exit code 3) when there is none, or it is over."""
        try:
            row = json.loads(_read(self.folder / "session.json"))
            session = Session(**row)
            over = bool(session.expires) and datetime.fromisoformat(session.expires) <= SystemClock().now()
        except (FileNotFoundError, NotADirectoryError):
            raise AuthenticationError(f"you are not logged in at {self.server}; run `interlock login`") from None
        except (ValueError, TypeError):
            raise AuthenticationError(f"{self.folder / 'session.json'} can't be read; run `interlock login`") from None
        if over:
            raise AuthenticationError(f"your login at {self.server} has ended; run `interlock login`")
        return session

    def token_file(self) -> Path | None:
        """Return the file of an agent's login, also of one that has ended."""
        try:
            named = json.loads(_read(self.folder / "session.json")).get("token_file")
        except (OSError, ValueError, AttributeError):
            return None
        return Path(named) if named else None

    def keep(self, session: Session) -> None:
        """Write the login down, and that this is the server from now on."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (home(), self.folder):
            folder.chmod(0o700)
        write(self.folder / "session.json", json.dumps(asdict(session), indent=2) + "\n")
        write(home() / "current", session.server + "\n")

    def forget(self) -> None:
        """Remove everything of this server. Idempotent."""
        for name in ("session.json", "id", "id.pub", "id-cert.pub", "known_hosts", "about.json"):
            (self.folder / name).unlink(missing_ok=True)
        current = home() / "current"
        if current.exists() and current.read_text().strip() == self.server:
            current.unlink(missing_ok=True)

    def keep_about(self, about: dict[str, object]) -> None:
        write(self.folder / "about.json", json.dumps(about, indent=2) + "\n")

    def about(self) -> dict[str, object]:
        """Return what `keep_about` wrote; nothing when it is not there."""
        try:
            read = json.loads(_read(self.folder / "about.json"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        return read if isinstance(read, dict) else {}


def home() -> Path:
    return Path(os.environ.get("INTERLOCK_HOME") or Path.home() / ".interlock")


def current_server() -> str | None:
    """Return the server of the last login, for commands that name none."""
    try:
        return (home() / "current").read_text().strip() or None
    except OSError:
        return None


def write(path: Path, text: str) -> None:
    """Put a file that only its owner can read in its place, whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)


def _read(path: Path) -> str:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(file) as text:
        about = os.fstat(text.fileno())
        if stat.S_IMODE(about.st_mode) & 0o077 or about.st_uid != os.geteuid():
            raise InterlockError(f"{path} can be read by others; run: chmod 600 {path}", reason=Reason.CONFIG_INVALID)
        return text.read()
