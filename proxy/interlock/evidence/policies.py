"""Keeps the exact bytes of every policy that decided anything, once a node, and puts them into bundles.

`data_dir/policies/<sha256>.yaml` holds the files, `data_dir/policies/sets/<digest>.json` which files a policy digest
stands for. A bundle gets hard links of its files and an index; both are covered by its seal.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from interlock.errors import EvidenceError
from interlock.evidence import jcs
from interlock.evidence.linefile import replace_file, sync_directory

FOLDER = "policies"
INDEX = "policies/index.json"


class PolicyShelf:
    """`current` returns the files of the policy in force, by the SHA-256 of their bytes."""

    def __init__(self, data_dir: Path, current: Callable[[], Mapping[str, bytes]]) -> None:
        self._files = data_dir / FOLDER
        self._sets = self._files / "sets"
        self._current = current
        self._known: set[str] = set()
        self._lock = threading.Lock()  # sessions are opened in threads

    def prepare(self) -> None:
        self._sets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._known = {f"sha256:{path.stem}" for path in self._sets.glob("*.json")}

    def remember(self, digest: str) -> None:
        """Store the files of the policy in force under `digest`, durably. Cheap when it is known. Raise EvidenceError."""
        if digest in self._known:
            return
        with self._lock:
            try:
                names = sorted(self._keep(data) for data in self._current().values())
                replace_file(self._set(digest), jcs.encode(names))
                sync_directory(self._files)
                sync_directory(self._sets)
            except OSError as error:
                raise EvidenceError(f"the policy's bytes can't be kept: {error.strerror}") from None
            self._known.add(digest)

    def _keep(self, data: bytes) -> str:
        name = sha256(data).hexdigest() + (".json" if data.lstrip()[:1] == b"{" else ".yaml")
        if not (self._files / name).exists():
            replace_file(self._files / name, data)
        return name

    def _set(self, digest: str) -> Path:
        plain = digest.removeprefix("sha256:")
        if not plain.isalnum():
            plain = sha256(digest.encode()).hexdigest()
        return self._sets / f"{plain}.json"

    def link(self, digests: Iterable[str], directory: Path) -> dict[str, str]:
        """Put the files of these policies into a bundle; return name → SHA-256 of what was put. Raise OSError."""
        index: dict[str, list[str]] = {}
        placed: dict[str, str] = {}
        folder = directory / FOLDER
        for digest in sorted(set(digests)):
            folder.mkdir(mode=0o700, exist_ok=True)
            stored = self._set(digest)
            index[digest] = json.loads(stored.read_bytes()) if stored.exists() else []
            for name in index[digest]:
                _place(self._files / name, folder / name)
                placed[f"{FOLDER}/{name}"] = name.partition(".")[0]
        if index:
            content = jcs.encode(index)
            replace_file(directory / INDEX, content)
            placed[INDEX] = sha256(content).hexdigest()
            sync_directory(folder)
        return placed


def _place(source: Path, name: Path) -> None:
    name.unlink(missing_ok=True)
    try:
        os.link(source, name)
    except OSError:  # file systems without links, or with too many of one file
        replace_file(name, source.read_bytes())
