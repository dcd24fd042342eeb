"""The parts of the documentation that come from the code: the table of facts and the JSON schema. Pure."""

from __future__ import annotations

import json

from interlock.policy.facts import FACTS, VARIABLES
from interlock.policy.schema import json_schema


def facts_table() -> str:
    """Return the Markdown table of every variable and field a condition can read."""
    rows = [
        f"Variables: {', '.join(f'`{name}` ({written})' for name, written in VARIABLES.items())}; in allow rules also `effect`."
    ]
    for message, facts in FACTS.items():
        rows += ["", f"**{message}**", "", "| field | type | meaning |", "|---|---|---|"]
        rows += [f"| `{fact.name}` | {fact.type} | {fact.meaning.replace('|', chr(92) + '|')} |" for fact in facts]
    return "\n".join(rows)


def schema_text() -> str:
    """Return docs/reference/policy.schema.json."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"
