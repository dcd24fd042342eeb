"""`policy check`, `test`, `coverage`, `simulate`, `preview` and `schema`: a policy author's tools (policy.md)."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.explain import classifier
from interlock.cli.options import Format
from interlock.cli.output import Output, columns, data, emit_json, reporting, say, talk
from interlock.cli.policyfiles import ConfigFile, Files, meant
from interlock.cli.preview import show_preview
from interlock.cli.simulate import simulate
from interlock.commands.model import Analysis, Command
from interlock.config import load as load_config
from interlock.errors import PolicyError
from interlock.policy.cases import Outcome, run
from interlock.policy.coverage import Covered, cover
from interlock.policy.engine import PolicySet
from interlock.policy.lint import unmatched
from interlock.policy.question import classified, facts_of
from interlock.policy.reference import schema_text

app = typer.Typer(name="policy", help="Check and test policies.", no_args_is_help=True, rich_markup_mode=None)

_PLACE = re.compile(r"^(?P<file>[^\n]+?):(?P<line>\d+):(?P<column>\d+): (?P<message>.*)$", re.MULTILINE)


def _unmatched(policy: PolicySet, config: Path | None) -> list[str]:
    """With a configuration, its targets are known, and so is what none of them can meet."""
    if config is None:
        return []
    return unmatched(policy.rules, policy.access, [facts_of(target) for target in load_config(config).targets])


@app.command()
@reporting
def check(
    files: Files = None,
    config: ConfigFile = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    output: Format = Output.TEXT,
) -> None:
    """Load policies and look for rules that are shadowed, contradictory, unreachable or without cases."""
    try:
        policy = meant(files, config)
    except PolicyError as error:
        if output is Output.JSON:
            emit_json({"v": 1, "ok": False, "errors": _places(str(error))})
        else:
            _say_whole(str(error))
        raise typer.Exit(1) from None
    warnings = [*policy.warnings, *_unmatched(policy, config)]
    failed = strict and bool(warnings)
    if output is Output.JSON:
        emit_json({**_summary(policy, ok=not failed), "warnings": warnings})
    else:
        for warning in warnings:
            _say_whole(f"warning: {warning}")
        found = sorted({rule.pack for rule in policy.rules})
        data.print(
            f"{len(policy.rules)} rules in {len(found)} packs ({', '.join(found) or 'none'}), {len(policy.access)} access rules, "
            f"{len(policy.cases)} cases, {len(warnings)} warnings"
        )
        data.print(policy.digest)
    raise typer.Exit(1 if failed else 0)


@app.command()
@reporting
def test(files: Files = None, config: ConfigFile = None, output: Format = Output.TEXT) -> None:
    """Run the cases beside the rules through the real classification and decision."""
    try:
        outcomes = run_cases(meant(files, config))
    except PolicyError as error:
        if output is Output.JSON:
            emit_json({"v": 1, "ok": False, "errors": _places(str(error))})
        else:
            _say_whole(str(error))
        raise typer.Exit(1) from None
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if output is Output.JSON:
        emit_json(
            {
                "v": 1, "ok": not failed and bool(outcomes), "passed": len(outcomes) - len(failed), "failed": len(failed),
                "cases": [_case(outcome) for outcome in outcomes],
            }
        )  # fmt: skip
    else:
        for outcome in failed:
            _say_whole(outcome.say())
        data.print(f"{len(outcomes) - len(failed)} cases passed, {len(failed)} failed")
        if not outcomes:
            say("no cases: a policy without cases is a policy nobody has tried; see docs/policy.md")
    raise typer.Exit(1 if failed or not outcomes else 0)


@app.command()
@reporting
def coverage(
    files: Files = None,
    config: ConfigFile = None,
    mutate: Annotated[bool, typer.Option("--mutate/--no-mutate", help="Try mistakes in every rule; a case must fail.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Fail for mistakes in a part of a rule as well.")] = False,
    output: Format = Output.TEXT,
) -> None:
    """Say which rules no case exercises, and which mistakes in a rule no case would notice.

    Exit status 1 when a rule has no hit or no near miss, or when no case notices that it was deleted or flipped.
    """
    policy = meant(files, config)
    analyses = asyncio.run(_classify(policy))
    outcomes = list(run(policy, lambda command: analyses[_key(command)]))
    covered = list(cover(policy, outcomes, lambda command: analyses[_key(command)], mutate=mutate))
    lacking = [one for one in covered if not one.exercised or (strict and one.unnoticed)]
    tried, unnoticed = sum(one.tried for one in covered), sum(len(one.unnoticed) for one in covered)
    if output is Output.JSON:
        emit_json(
            {
                "v": 1, "ok": not lacking, "rules": [_coverage(one) for one in covered],
                "mutations": {"tried": tried, "unnoticed": unnoticed},
            }
        )  # fmt: skip
    else:
        table: list[tuple[object, ...]] = [("RULE", "DECIDES", "HITS", "NEAR MISSES", "ELSEWHERE", "MISTAKES NOTICED")]
        for one in covered:
            noticed = f"{one.tried - len(one.unnoticed)} of {one.tried}" if mutate else ""
            table.append((one.rule.name, str(one.rule.verdict), one.hits, one.misses, one.elsewhere, noticed))
        columns(table)
        for one in covered:
            if one.lacks:
                _say_whole(f"{one.rule.place}: {one.rule.name} lacks {one.lacks}")
        mistakes = f"; {tried} mistakes tried, {unnoticed} unnoticed" if mutate else ""
        data.print(f"{len(covered) - len(lacking)} of {len(covered)} rules are exercised{mistakes}")
    raise typer.Exit(1 if lacking else 0)


@app.command()
@reporting
def schema() -> None:
    """Print the JSON schema of policy files, for an editor that completes and checks while you write."""
    sys.stdout.write(schema_text())


app.command()(simulate)
app.command("preview")(show_preview)


def run_cases(policy: PolicySet) -> list[Outcome]:
    """Classify every case's command as the data path does, then decide."""
    analyses = asyncio.run(_classify(policy))
    return list(run(policy, lambda command: analyses[_key(command)]))


async def _classify(policy: PolicySet) -> dict[object, Analysis]:
    analyses: dict[object, Analysis] = {}
    async with classifier() as classify:
        for case in policy.cases:
            key = _key(case.command)
            if key not in analyses:
                analyses[key] = await classified(classify, case.command)
    return analyses


def _key(command: Command) -> tuple[object, ...]:
    return (command.wire, command.text, command.stdin)


def _coverage(one: Covered) -> dict[str, Any]:
    return {
        "rule": one.rule.name, "place": one.rule.place, "hits": one.hits, "misses": one.misses, "elsewhere": one.elsewhere,
        "mutations": one.tried, "unnoticed": [mutation.how for mutation in one.unnoticed], "lacks": one.lacks,
    }  # fmt: skip


def _say_whole(text: str) -> None:
    """Talk without folding lines: a caret stands under its character only if the line above is whole."""
    talk.print(text, markup=False, soft_wrap=True)


def _summary(policy: PolicySet, *, ok: bool) -> dict[str, Any]:
    return {
        "v": 1, "ok": ok, "policy": policy.digest, "access": len(policy.access), "cases": len(policy.cases),
        "rules": [
            {
                "rule": rule.name, "decide": str(rule.verdict), "title": rule.title,
                "mode": "observe" if rule.observe else "enforce",
            }
            for rule in policy.rules
        ],
        "observed": list(policy.observed), "errors": [],
    }  # fmt: skip


def _places(text: str) -> list[dict[str, Any]]:
    """Turn the sentences of a PolicyError into records. What has no place is a record without one."""
    found = [
        {"file": m["file"], "line": int(m["line"]), "column": int(m["column"]), "message": m["message"]}
        for m in _PLACE.finditer(text)
    ]
    return found or [{"message": text}]


def _case(outcome: Outcome) -> dict[str, Any]:
    return {
        "place": outcome.case.place, "scope": outcome.case.scope, "text": outcome.case.text, "expect": outcome.case.expect,
        "got": outcome.got, "rule": outcome.rule, "passed": outcome.passed,
    }  # fmt: skip
