"""A store in a scratch directory, as a daemon leaves it. The schema is made once a process and copied: that migrations make it
is asked in tests/store.
"""

from __future__ import annotations

import asyncio
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from interlock.store.engine import Store, open_store, upgrade

FILE = "interlock.db"


@cache
def _newest() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        engine = create_engine(f"sqlite:///{file}")
        with engine.begin() as connection:
            upgrade(connection)
        engine.dispose()
        return file.read_bytes()


async def opened(folder: Path, **options: Any) -> Store:
    """Open the store of a node that keeps its data in `folder`, new where there is none."""
    file = folder / FILE
    if not file.exists():
        file.write_bytes(await asyncio.to_thread(_newest))
        file.chmod(0o600)
    return await open_store(f"sqlite:///{FILE}", folder, **options)
