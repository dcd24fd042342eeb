"""`make docs`: regenerate the reference pages from the code. `--check` only compares; a test runs that."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from interlock.cli.documents import DOCUMENTS, Document
from interlock.config import Config
from interlock.errors import SENTENCES, Reason
from interlock.evidence.page import events_page
from interlock.policy.reference import schema_text

HERE = Path(__file__).parent


def reasons() -> str:
    rows = "\n".join(f"| `{reason}` | {SENTENCES[reason]} |" for reason in Reason)
    return (
        "# Reason codes\n\nGenerated from `errors.py`. Codes are stable: programs match on them in events, API problem\n"
        "documents (`reason`) and the DETAIL of a Postgres error (`reason_code`).\n\n"
        f"| code | what it means, and what to do |\n|---|---|\n{rows}\n"
    )


def config_schema() -> str:
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"


def document_schema(document: type[Document]) -> str:
    return json.dumps(document.model_json_schema(by_alias=True), indent=2) + "\n"


PAGES = {
    "reference/reasons.md": reasons,
    "reference/interlock.schema.json": config_schema,
    "reference/policy.schema.json": schema_text,
    "evidence/events.md": events_page,
    **{f"reference/cli/{verb}.schema.json": partial(document_schema, document) for verb, document in DOCUMENTS.items()},
}


def main(arguments: list[str]) -> int:
    stale = []
    for name, page in PAGES.items():
        path, text = HERE / name, page()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if "--check" in arguments and stale:
        sys.stderr.write(f"out of date, run `make docs`: {', '.join(stale)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
