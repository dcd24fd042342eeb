"""Why, in a few sentences for somebody who has never seen the product: what a command does, and who says what about it.

Pure. What effects and unknown parts are called is for commands/wording.py to say; this joins it with the rules that were
asked. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from interlock.commands import wording
from interlock.commands.model import Effect
from interlock.policy.engine import PolicySet
from interlock.policy.model import Decision, Facts, Verdict
from interlock.policy.rule import Rule

MAX_THINGS = 4
MAX_LENGTH = 160
TRIED = 40
"""Effects that a rule is asked about alone."""


def why(policy: PolicySet, facts: Facts, decision: Decision) -> str:
    """Say why a command was decided as it was."""
    if facts.analysis.unreadable is not None:
        return f"{_sentence(decision.reason)} Such a text is refused before any rule is asked."
    if decision.rule == "interlock/too-many-effects":
        return f"{_sentence(decision.reason)} Nobody could judge that."
    failed = dict.fromkeys(error.partition(":")[0] for error in decision.errors)
    counted = [f"The rule {name} could not be worked out, which counts against the command." for name in failed]
    return " ".join([*_said(policy, facts, decision), *counted])


def _said(policy: PolicySet, facts: Facts, decision: Decision) -> Iterator[str]:
    rules = {rule.name: rule for rule in policy.rules}
    named = [rules[name] for name in decision.matched if name in rules and rules[name].verdict is decision.verdict]
    if decision.verdict is Verdict.ALLOW:
        yield f"It {_and(_does(facts, facts.analysis.effects)) or 'does nothing that is known'}, and nothing else."
        yield f"{_rules(named)} {'allows' if len(named) == 1 else 'allow'} that without asking anybody."
        return
    first = rules.get(decision.rule)
    if first is None:
        yield from _nobody_said(facts, decision)
        return
    yield from _because(policy, first, facts)
    others = [rule for rule in named if rule is not first]
    if others and decision.verdict is Verdict.REVIEW:
        verb = "does" if len(others) == 1 else "do"
        yield f"So {verb} {_rules(others).lower()}, and a person must look at all of it."


def _because(policy: PolicySet, rule: Rule, facts: Facts) -> Iterator[str]:
    """Say what in the command the rule is about, found by asking the rule about each part alone."""
    does = _does(facts, _parts(policy, rule, facts))
    if rule.verdict is Verdict.DENY:
        verb = "forbids that" if does else "forbids it"
    else:
        verb = "wants a person to decide about that" if does else "wants a person to decide"
    if does:
        yield f"It {_and(does)}."
    yield f"The rule {rule.name} {verb}: {_sentence(rule.message)}"


def _parts(policy: PolicySet, rule: Rule, facts: Facts) -> tuple[Effect, ...]:
    effects = tuple(dict.fromkeys(facts.analysis.effects))
    alone = policy.only(rule)

    def matches(*some: Effect) -> bool:
        asked = replace(facts, analysis=replace(facts.analysis, effects=some))
        return rule.name in alone.decide(asked).matched

    if matches():
        return ()  # whatever the command does
    return tuple(effect for effect in effects[:TRIED] if matches(effect)) or effects


def _nobody_said(facts: Facts, decision: Decision) -> Iterator[str]:
    """Explain the default: something can't be known, or nobody has said anything about what is."""
    analysis = facts.analysis
    if analysis.opaque:
        unknown = [_short(part.removeprefix("can't be known: ")) for part in wording.unknowns(replace(analysis, unreadable=None))]
        yield f"Not everything it does can be known beforehand: {'; '.join(_some(unknown))}."
        yield "So a person looks at it before it runs."
    elif not analysis.effects:
        yield "Nothing is known of what it does, so a person looks at it before it runs."
    elif not decision.reason.startswith("No rule allows"):
        yield _sentence(decision.reason)
    else:
        undecided = [e for e in dict.fromkeys(analysis.effects) if f"{e.verb} {e.object}".strip() in decision.reason]
        yield f"It {_and(_does(facts, undecided or analysis.effects)) or 'does something'}."
        yield "No rule says that this may be done without asking, so a person decides."


def _does(facts: Facts, effects: Sequence[Effect]) -> list[str]:
    return [_short(said) for said in wording.sentences(facts.analysis, facts.command.wire, effects)] if effects else []


def _rules(rules: Sequence[Rule]) -> str:
    if not rules:
        return "The policy"
    return f"The rule {rules[0].name}" if len(rules) == 1 else f"The rules {_and([rule.name for rule in rules])}"


def _some(things: Sequence[str]) -> list[str]:
    if len(things) <= MAX_THINGS:
        return list(things)
    return [*things[: MAX_THINGS - 1], f"{len(things) - MAX_THINGS + 1} more things"]


def _and(things: Sequence[str]) -> str:
    shown = _some(things)
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else "".join(shown)


def _short(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…"


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
