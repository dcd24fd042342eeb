"""A request as lines for a terminal: everything a reviewer reads before deciding, and nothing that moves the cursor.

Pure. Works on the JSON of a request (web/shown.py). The daemon made the text visible; what comes as data is made visible here
once more, for a terminal must not depend on who sent it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from interlock.commands.display import CLOSE, OPEN, inline

KEPT = frozenset(OPEN + CLOSE + "…")


def safe(text: object) -> str:
    """Return text of the daemon on one line, printable. Its own marks stay as they are."""
    return "".join(c if " " <= c <= "~" or c in KEPT else inline(c) for c in str(text))


def describe(row: dict[str, Any]) -> list[str]:
    """Return the lines, in the order in which they are read."""
    chain = f" for {', '.join(row['acting_for'])}" if row["acting_for"] else ""
    owner = f" (owned by {row['owner']})" if row["owner"] else ""
    place = ", ".join(filter(None, (row["target"], row["database"], row["account"] and f"as {row['account']}")))
    lines = [
        f"request   {row['id']}  {row['state']}" + (f", {row['presence']}" if row["state"] == "pending" else ""),
        f"who       {row['kind']} {row['principal']}{chain}{owner}",
        f"target    {place}",
        f"held by   {row['rule']}: {row['reason']}",
        f"needs     {'; '.join(row['must'])}",
        f"expires   {row['expires']}",
        "command",
        *numbered(row["display"]["lines"]),
    ]
    if row["stdin"] is not None and row["stdin"]["bytes"]:
        lines += [f"input     {row['stdin']['bytes']} bytes", *numbered(row["stdin"]["lines"])]
    lines += [f"value     ${n} = {_value(bind)}" for n, bind in enumerate(row["binds"], 1)]
    lines += [f"with      {line}" for line in row["surroundings"]]
    lines += ["effects", *(f"  - {line}" for line in row["words"] or ["nothing is known"])]
    lines += [f"  warning: {line}" for line in row["display"]["deceptions"]]
    lines += [f"note      {line}" for line in row["notes"]]
    lines += [f"fact      {line}" for line in row["facts"]]
    if row["said"] or row["remarks"]:
        lines.append("written by the agent, not checked")
        lines += [f"  | {line}" for line in filter(None, (row["said"], *row["remarks"]))]
    if row["edited_from"]:
        lines.append(f"edited    by {row['author']}, from {row['edited_from']}")
    if row["successor"]:
        lines.append(f"replaced  by {row['successor']}")
    if row["grant"]:
        lines.append(f"grant     {row['grant']}")
    lines += [f"scope     {scope['scope']}: {scope['words'].removeprefix('once: ')}" for scope in row["scopes"]]
    lines += [f"vote      {_vote(vote)}" for vote in row["votes"]]
    return [safe(line) for line in lines]


def numbered(lines: Iterable[str]) -> list[str]:
    return [f"  {number:>4}  {line}" for number, line in enumerate(lines, 1)]


def table(rows: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return a list of requests as cells, the header first."""
    header = ("ID", "STATE", "WHO", "TARGET", "RULE", "COMMAND")
    found: list[tuple[str, ...]] = [header]
    for row in rows:
        command = row["first"] if len(row["first"]) <= 78 else row["first"][:77] + "…"
        cells = (row["id"], row["state"], row["principal"], row["target"], row["rule"], command)
        found.append(tuple(map(safe, cells)))
    return found


def _value(bind: dict[str, Any]) -> str:
    if bind["base64"] is None:
        return "NULL"
    return inline(bind["shown"], 2000) if bind["shown"] is not None else f"base64 {bind['base64'][:400]}"


def _vote(vote: dict[str, Any]) -> str:
    signed = f", signed with {vote['signed']['key']}" if vote["signed"] else ""
    glass = " by breaking the glass" if vote["break_glass"] else ""
    reason = f": {vote['reason']}" if vote["reason"] else ""
    return f"{vote['verdict']}{glass} by {vote['reviewer']} through {vote['channel']}{signed} at {vote['at']}{reason}"
