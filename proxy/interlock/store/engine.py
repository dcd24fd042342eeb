"""Opens the store: one process on SQLite, the newest schema, and the two rooms of rows.

Knows files, locks and migrations. Must not know what the rows mean.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import URL, Connection, exc, insert, make_url, select

from interlock.approvals.digest import MATCH_KEY_BYTES
from interlock.clock import Entropy, system_entropy
from interlock.errors import ConfigError, StoreError
from interlock.store.approvals import ApprovalRows
from interlock.store.conversations import ConversationRows
from interlock.store.database import Database
from interlock.store.deliveries import DeliveryRows
from interlock.store.exchanged import ExchangedRows
from interlock.store.grants import GrantRows
from interlock.store.logins import LoginRows
from interlock.store.logouts import LogoutRows
from interlock.store.messages import MessageRows
from interlock.store.outbox import OutboxRows
from interlock.store.principals import PrincipalRows
from interlock.store.revocations import RevocationRows
from interlock.store.schema import ledger
from interlock.store.scim import ScimGroupRows
from interlock.store.vigilance import VigilanceRows

MIGRATIONS = Path(__file__).parent / "migrations"


class Store:
    """The open store. `principals` are the directory's rows, `approvals`, `grants` and `vigilance` the desk's, the rest the
    channels'."""

    def __init__(self, database: Database, lock: ProcessLock | None) -> None:
        self.principals = PrincipalRows(database)
        self.logins = LoginRows(database)
        self.logouts = LogoutRows(database)
        self.exchanged = ExchangedRows(database)
        self.approvals = ApprovalRows(database)
        self.grants = GrantRows(database)
        self.vigilance = VigilanceRows(database)
        self.messages = MessageRows(database)
        self.conversations = ConversationRows(database)
        self.deliveries = DeliveryRows(database)
        self.outbox = OutboxRows(database)
        self.revocations = RevocationRows(database)
        self.scim_groups = ScimGroupRows(database)
        self._database = database
        self._lock = lock

    async def close(self) -> None:
        """Close every connection and let go of the lock. Idempotent."""
        await self._database.close()
        if self._lock is not None:
            self._lock.release()


class ProcessLock:
    """SQLite means exactly one process: the second one is refused here, not by luck of timing later.

    An flock on a file beside the database; the kernel drops it when the process ends, however it ends.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise StoreError(
                f"another process has {path.with_suffix('')} open. SQLite serves one process: stop the other one, "
                "or use store.url: postgresql://… for several."
            ) from None

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


async def open_store(url: str, data_dir: Path, *, entropy: Entropy = system_entropy) -> Store:
    """Open the store and bring its schema up to date.

    `sqlite:///name.db` lives in `data_dir`, `sqlite:////path` where it says, `postgresql://…` through asyncpg. Raise
    ConfigError when the URL can't be meant, StoreError when the store can't be opened or another process has it.
    """
    parsed = _locate(url, data_dir)
    lock = None
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        try:
            _create_private(path)
            lock = ProcessLock(path.with_name(path.name + ".lock"))
        except OSError as error:
            raise StoreError(f"{path} can't be opened: {error.strerror}. Check node.data_dir and store.url.") from None
    database = Database(parsed)
    try:
        await database.run(upgrade)
        await database.run(partial(_begin_ledger, entropy=entropy))
        return Store(database, lock)
    except BaseException:
        await database.close()
        if lock is not None:
            lock.release()
        raise


def _locate(url: str, data_dir: Path) -> URL:
    """Turn the configured URL into the driver's, without ever repeating it in an error: it may carry a password."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise ConfigError("store.url is not a URL; write sqlite:///interlock.db or postgresql://…") from None
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigError("store.url names no file, so nothing would survive a restart; write sqlite:///interlock.db")
            return URL.create("sqlite+pysqlite", database=str((data_dir / parsed.database).absolute()))
        case "postgresql":
            return parsed.set(drivername="postgresql+asyncpg")
        case other:
            raise ConfigError(f"store.url: {other} is not offered; use sqlite or postgresql")


def _create_private(path: Path) -> None:
    """Make the file readable by us alone before SQLite does it with the umask; WAL and journal take its mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _begin_ledger(connection: Connection, entropy: Entropy) -> None:
    """Write the one row of the ledger when the store is new: the match key is made once and never leaves the store."""
    if connection.execute(select(ledger.c.id)).first() is None:
        beginning = datetime(1970, 1, 1, tzinfo=UTC)
        row = {"id": 1, "generation": 0, "high_water": beginning, "match_key": entropy(MATCH_KEY_BYTES)}
        connection.execute(insert(ledger).values(row))


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to `revision` on this connection, in its transaction."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
