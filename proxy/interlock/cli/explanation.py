"""How `explain` speaks to people: for somebody who has never seen the product. Nothing here decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.text import Text

from interlock.cli.output import data
from interlock.commands.model import Analysis, Effect, Opaque, Wire
from interlock.commands.wording import sentences, unknown

_VERDICTS = {
    "allow": ("ALLOW", "bold green", "it runs at once, nobody is asked"),
    "review": ("REVIEW", "bold yellow", "it waits until a person approves exactly this command"),
    "deny": ("DENY", "bold red", "it is refused, and nobody can approve it"),
}
_LABEL = 10
MAX_EFFECTS = 40
MAX_SENTENCES = 12
TOLD = 256
"""Effects that are put into sentences: as many as the reason of a decision speaks of."""


def show(text: bytes, answer: dict[str, Any]) -> None:
    """Print the answer. `answer` is the JSON of `explain`."""
    for line in lines(text, answer):
        data.print(line)


def lines(text: bytes, answer: dict[str, Any]) -> Iterator[Text]:
    """Yield what is printed, line by line."""
    asked = plain(text.decode("utf-8", "backslashreplace"))
    where = f"{answer['target']} ({answer['protocol']})"
    yield Text.assemble((asked if len(asked) <= 400 else f"{asked[:400]}… ({len(text)} bytes)", "bold"), f"\n  on {where}\n")
    word, style, meaning = _VERDICTS[answer["decision"]]
    yield Text.assemble("  ", (f"{word:<{_LABEL}}", style), meaning)
    yield _row("why", answer["why"])
    yield _row("rule", answer["rule"] + _rule_note(answer["rule"]))
    if answer["hint"]:
        yield _row("hint", answer["hint"])
    if answer["review"] is not None:
        yield _row("asks", _terms(answer["review"]))
    if "access" in answer and not answer["access"]["granted"]:
        yield _row("but", "no access rule lets this principal open the target, so the command would not get this far")
    yield Text()
    yield from _effects(answer)
    if answer["assumed"]:
        yield _row("assumed", ", ".join(answer["assumed"]) + " (no catalog here: taken for plain tables)")
    for note in answer["notes"]:
        yield _row("note", note)
    for error in answer["errors"]:
        yield _row("error", f"{error} (a rule failed and was counted against the command)")
    if answer["observed"]:
        yield _row("observed", f"{_observed(answer['observed'])}; observe mode is on, so that is recorded and does not count")
    match answer["decision"]:
        case "allow":
            yield _row("sent", answer["sent"] or "nothing: there is no safe rendering")
        case "review":
            yield _row("sent", "after approval, exactly the bytes above")
        case _:
            yield _row("sent", "nothing")
    yield _row("policy", answer["policy"])


def _effects(answer: dict[str, Any]) -> Iterator[Text]:
    effects, opaque = answer["effects"], answer["opaque"]
    told = _told(answer) if effects else ["nothing that is known"]
    for place, sentence in enumerate(told):
        yield _row("" if place else "does", sentence)
    for part in opaque[:MAX_EFFECTS]:
        said = unknown(Opaque(part["reason"], part["text"])).removeprefix("can't be known: ")
        yield _row("unknown", f"{said}  [{part['reason']}]")
    if len(opaque) > MAX_EFFECTS:
        yield _row("", f"… and {len(opaque) - MAX_EFFECTS} more that can't be known (--output json shows all)")
    for place, effect in enumerate(effects[:MAX_EFFECTS]):
        words = [f"{effect['verb']:<10}", effect["object"], *_flags(effect)]
        yield _row("" if place else "rules see", " ".join(word for word in words if word))
    if len(effects) > MAX_EFFECTS:
        yield _row("", f"… and {len(effects) - MAX_EFFECTS} more (--output json shows all)")


def _told(answer: dict[str, Any]) -> list[str]:
    """Return what the effects do, in sentences, the most dangerous first and at most MAX_SENTENCES."""
    effects = answer["effects"][:TOLD]
    shown: list[dict[str, Any]] = [{key: tuple(v) if isinstance(v, list) else v for key, v in e.items()} for e in effects]
    wire = Wire.POSTGRES if answer["protocol"] == "postgres" else Wire.SSH
    told = sentences(Analysis(tuple(Effect(**effect) for effect in shown)), wire)
    more = len(told) > MAX_SENTENCES or len(answer["effects"]) > TOLD
    return [*told[:MAX_SENTENCES], *(["… and more (--output json shows all)"] if more else [])]


def _flags(effect: dict[str, Any]) -> Iterator[str]:
    if effect.get("detail"):
        yield f"[{effect['detail']}]"
    if effect.get("recursive"):
        yield "with everything below"
    if effect.get("filtered") is False:
        yield "every row (no WHERE)"
    if effect.get("functions"):
        yield "calling " + ", ".join(effect["functions"])
    if effect.get("host"):
        yield f"at {effect['host']}"
    if effect.get("program"):
        yield f"({effect['program']})"
    if effect["via"]:
        yield "through " + " ".join(effect["via"])


def _terms(terms: dict[str, Any]) -> str:
    needs = [f"{_people(need['quorum'])} of {' or '.join(need['groups'])}" for need in terms["needs"]]
    minutes = terms["expires"] / 60
    step = "" if terms["step_up"] == "none" else f", proving themselves anew ({terms['step_up']})"
    return f"{' and '.join(needs)}{step}; no answer within {minutes:g} min means no"


def _people(count: int) -> str:
    return "one person" if count == 1 else f"{count} people"


def _observed(names: list[str]) -> str:
    """Say what rules in observe mode would have done, had they counted."""
    words = {"allow": "allowed it", "deny": "denied it", "review": "asked a person"}
    said = [name.rpartition(":") for name in names]
    return ", ".join(f"{name} would have {words.get(verdict, verdict)}" for name, _, verdict in said)


def _rule_note(rule: str) -> str:
    match rule:
        case "default":
            return " (no rule decides this, so a person does)"
        case "interlock/unreadable":
            return " (built in: this text is refused before any rule is asked)"
        case _:
            return ""


def _row(label: str, value: str) -> Text:
    return Text.assemble("  ", (f"{label:<{_LABEL}}", "dim"), plain(value))


def plain(value: str) -> str:
    """Show every character that could deceive or drive a terminal as an escape."""
    return "".join(c if (c.isascii() and c.isprintable()) or c == "…" else _escaped(c) for c in value)


def _escaped(c: str) -> str:
    if c == "\n":
        return "⏎ "
    return c.encode("unicode_escape").decode()
