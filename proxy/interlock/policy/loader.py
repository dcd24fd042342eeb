"""Loads policy files whole: every problem of every file is reported, or the whole set is in force.

The only module of this package that opens files; what is in them is put together by assembly.py. Spec: policy.md.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from interlock.config import Config
from interlock.errors import PolicyError
from interlock.policy import packs
from interlock.policy.assembly import assemble
from interlock.policy.document import MAX_BYTES, Document
from interlock.policy.engine import DEFAULT_TERMS, PolicySet
from interlock.policy.model import Need, ReviewTerms, Risk, StepUp

MAX_FILES = 200


def configured(config: Config) -> tuple[list[Path], ReviewTerms]:
    """Return the files and the default review terms that a configuration means: the daemon's, `check`'s and `explain`'s."""
    terms = replace(DEFAULT_TERMS, hold=int(config.approvals.hold), expires=int(config.approvals.expires))
    return [config.path(path) for path in config.policies] or [packs.shipped()], terms


def load(paths: Sequence[Path], *, terms: ReviewTerms | None = None) -> PolicySet:
    """Load files and folders (their *.yaml), and the shipped packs that they name.

    `terms` are the review terms where no file has `default:` and a rule leaves a key out. Raise PolicyError with every
    problem, each with file, line and caret.
    """
    return assemble(_read(paths), terms=terms)


def load_bundle(bundle: bytes) -> PolicySet:
    """Build the policy that a transcript kept. Raise PolicyError."""
    try:
        kept = json.loads(bundle)
        documents = [Document(file["name"], file["text"].encode()) for file in kept["files"]]
        terms = kept["terms"]
        made = ReviewTerms(
            **{
                **terms, "groups": tuple(terms["groups"]), "scopes": tuple(terms["scopes"]),
                "also": tuple(Need(tuple(need["groups"]), need["quorum"]) for need in terms.get("also", ())),
                "step_up": StepUp(terms["step_up"]), "risk": Risk(terms["risk"]),
            }
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"not a policy bundle: {error}") from None
    return assemble(documents, terms=made)


def _read(paths: Sequence[Path]) -> list[Document]:
    found: dict[Path, Document] = {}
    queue = list(_files(paths))
    problems: list[str] = []
    while queue:
        path = queue.pop(0)
        if len(found) >= MAX_FILES:
            raise PolicyError(f"more than {MAX_FILES} policy files; join them into packs")
        try:
            if path.resolve() in found:
                continue
            with path.open("rb") as file:
                document = Document(str(path), file.read(MAX_BYTES + 1))
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
            reason = error.strerror if isinstance(error, OSError) else "a loop of symbolic links"
            problems.append(f"{path}: can't be read: {reason}. Check the path in policies:.")
            continue
        except PolicyError as error:
            problems.append(str(error))
            continue
        found[path.resolve()] = document
        queue += _wanted(document, problems)
    if problems:
        raise PolicyError("\n".join(problems))
    if not found:
        raise PolicyError("no policy files; name a folder with *.yaml files in policies:")
    return list(found.values())


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            try:
                inside = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
            except OSError as error:
                raise PolicyError(f"{path}: can't be read: {error.strerror}. Check the path in policies:.") from None
            if not inside:
                raise PolicyError(f"{path}: no *.yaml in this folder; a policy that loads nothing would decide nothing")
            yield from inside
        else:
            yield path


def _wanted(document: Document, problems: list[str]) -> list[Path]:
    """Return the shipped packs that a file names."""
    named = document.data.get("packs", []) if isinstance(document.data, dict) else []
    wanted: list[Path] = []
    for index, name in enumerate(named if isinstance(named, list) else []):
        path = packs.find(name) if isinstance(name, str) else None
        if path is not None:
            wanted.append(path)
        elif isinstance(name, str):
            near = difflib.get_close_matches(name, packs.names(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "shipped: " + ", ".join(packs.names())
            problems.append(document.place(("packs", index)).say(f"no shipped pack {name!r}; {hint}"))
    return wanted
