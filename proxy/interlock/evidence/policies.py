"""Keeps the exact bytes of every policy that decided anything, once a node, and puts them into bundles.

`data_dir/policies/<sha256>.json`: a policy's digest is the SHA-256 of these bytes, so the name proves the content. A
bundle gets a hard link to each policy that decided in it, covered by its seal.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

import structlog

from interlock.errors import EvidenceError
from interlock.evidence.linefile import replace_file, sync_directory

FOLDER = "policies"
_SCHEME = "sha256:"

log = structlog.get_logger()


class PolicyShelf:
    """`current` returns the bytes of the policy in force, by their SHA-256 in hex."""

    def __init__(self, data_dir: Path, current: Callable[[], Mapping[str, bytes]]) -> None:
        self._folder = data_dir / FOLDER
        self._current = current
        self._known: set[str] = set()
        self._lock = threading.Lock()  # sessions are opened in threads

    def prepare(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._known = {_SCHEME + path.stem for path in self._folder.glob("*.json")}

    def remember(self, digest: str) -> None:
        """Keep the policy in force, durably, when `digest` is not kept yet. Raise EvidenceError."""
        if digest in self._known:
            return
        with self._lock:
            try:
                for data in self._current().values():
                    name = sha256(data).hexdigest()
                    if _SCHEME + name not in self._known:
                        replace_file(self._folder / f"{name}.json", data)
                        sync_directory(self._folder)
                        self._known.add(_SCHEME + name)
            except OSError as error:
                raise EvidenceError(f"the policy's bytes can't be kept: {error.strerror}") from None
        if digest not in self._known:
            # Not a reason to stop: the record names the policy, and verification will say that its bytes are missing.
            log.error("policy bytes not kept", policy=digest)

    def link(self, digests: Iterable[str], directory: Path) -> dict[str, str]:
        """Put these policies into a bundle; return name → SHA-256 of what was put. Raise OSError."""
        placed: dict[str, str] = {}
        folder = directory / FOLDER
        for digest in sorted(set(digests) & self._known):
            folder.mkdir(mode=0o700, exist_ok=True)
            plain = digest.removeprefix(_SCHEME)
            _place(self._folder / f"{plain}.json", folder / f"{plain}.json")
            placed[f"{FOLDER}/{plain}.json"] = plain
        if placed:
            sync_directory(folder)
        return placed


def _place(source: Path, name: Path) -> None:
    name.unlink(missing_ok=True)
    try:
        os.link(source, name)
    except OSError:  # file systems without links, or with too many of one file
        replace_file(name, source.read_bytes())
