"""The two hashes of a request: `digest` is what a reviewer answers, `match` is what would run. Pure.

`digest` is SHA-256 of the request's canonical form: id, nonce, session, expiry and everything that is shown. `match` has
no id, nonce or session, so a re-run finds the answer to its own kind; since a plain hash of a command can be guessed, it
exists only as HMAC-SHA-256 under the store's key. Both are taken of RFC 8785 bytes of named fields, so no two different
requests can be concatenated into the same input (approvals.md, "Two hashes").
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

from interlock.approvals.model import ApprovalRequest, RequestDraft
from interlock.approvals.portable import FormError, plain, request_form
from interlock.commands.model import Command, ShellContext, SqlContext
from interlock.evidence import jcs
from interlock.evidence.events import Json
from interlock.identity.principal import Principal

MATCH_KEY_BYTES = 32
MATCH_SPEC = "interlock/match/v1"

_NAMES_MATTER = re.compile(rb"execute|fetch|move|current|close|deallocate", re.IGNORECASE)
"""A statement that can reach a prepared statement or a cursor by name has one of these words (PostgreSQL 18, part VI:
EXECUTE, FETCH, MOVE, WHERE CURRENT OF, CLOSE, DEALLOCATE); key words can't be escaped, while names can."""


def form_digest(form: bytes) -> str:
    """Return the digest of a canonical form."""
    return "sha256:" + sha256(form).hexdigest()


def request_digest(request: ApprovalRequest) -> str:
    """Return what a reviewer answers. Everything of the request is in it but its state and its votes."""
    return form_digest(request_form(request))


def checked(form: bytes, digest: str) -> bytes:
    """Return the form when it still has this digest. Raise FormError: somebody changed the row."""
    if not hmac.compare_digest(form_digest(form).encode(), digest.encode()):
        raise FormError("a stored request does not have its own digest; the row was changed from outside")
    return form


def match(draft: RequestDraft, key: bytes) -> str:
    """Return the keyed hash of what would run, as `hmac-sha256:<64 hex>`."""
    return "hmac-sha256:" + hmac.new(key, jcs.encode(_would_run(draft)), sha256).hexdigest()


def _would_run(draft: RequestDraft) -> Json:
    target = draft.target
    return {
        "spec": MATCH_SPEC,
        "principal": _who(draft.principal),
        "target": {
            "name": target.name, "protocol": target.protocol, "account": target.account,
            "role": target.role, "database": target.database,
        },
        "command": _what(draft.command),
    }  # fmt: skip


def _who(principal: Principal) -> Json:
    """The principal with its whole chain. Not its credential: a re-run may come with a fresh one."""
    return {
        "identity": plain(principal.identity),
        "kind": str(principal.kind),
        "owner": None if principal.owner is None else plain(principal.owner),
        "acting_for": [plain(identity) for identity in principal.acting_for],
    }


def _what(command: Command) -> Json:
    # The input by its hash: that names it as well, and 256 KiB are not carried around. The context apart, see there.
    stdin = None if command.stdin is None else command.stdin.sha256
    rest = plain(replace(command, stdin=None, context=ShellContext()))
    return {"asked": rest, "stdin": stdin, "context": _context(command)}


def _context(command: Command) -> Json:
    match command.context:
        case ShellContext() as shell:
            return {"shell": shell.shell, "utf8_locale": shell.utf8_locale}
        case SqlContext() as sql:
            named = _NAMES_MATTER.search(command.text) is not None
            return {
                "search_path": list(sql.search_path),
                "tainted": sql.tainted,
                # Only where the text can mean them: a new session has other names, and a re-run shall match.
                "prepared": _pairs(sql.prepared) if named else [],
                "cursors": _pairs(sql.cursors) if named else [],
            }


def _pairs(names: Mapping[str, str]) -> Json:
    return [[name, text] for name, text in sorted(names.items())]
