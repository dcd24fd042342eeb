"""The policy in force: facts in, one decision out. Pure and deterministic.

Every applicable rule is evaluated; deny beats review beats allow. Of several reviews all must be satisfied (terms.py).
An allow rule is evaluated once per effect: a command is allowed only when every effect is allowed by some rule, nothing
is opaque, and no rule says review or deny. While an allow rule is asked, `effects` is the one effect that is judged, so
`effects.exists(…)` can't carry a companion along (threats.md, A13). What no rule decides is reviewed by default. A
condition that fails at run time counts as matched for review and deny and as not matched for allow. Spec: policy.md.

Caching. A `Standing` is what a policy says of one principal at one target: the rules that can apply, found once a
connection. Decisions are cached under the standing, the command's readable parts and the very analysis object, which
stands for the catalog version too; and under the effects alone, for texts that differ in their literals only, when no
rule that is asked reads `command`. Never when an applicable rule reads `time`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from interlock.commands.model import Analysis, Effect
from interlock.identity.principal import Principal
from interlock.policy import facts as words
from interlock.policy.condition import Activation, Matched, activation
from interlock.policy.model import Access, Decision, Facts, ReviewTerms, SessionFacts, Target, Verdict
from interlock.policy.rule import AccessRule, Case, Rule
from interlock.policy.terms import merge, severity

MAX_ALLOWED_EFFECTS = 256
"""More different effects than that are never allowed without a human: nobody's everyday command has them."""

MAX_EFFECTS = 1000
"""More different effects than that are denied: asking every rule about them would hold up everybody else."""

CACHED_TEXT = 16 * 1024
"""Longer texts are decided anew each time, so that the cache's memory stays bounded."""

ALIKE_EFFECTS = 16
"""More effects than that are looked up by their text only."""

DEFAULT_TERMS = ReviewTerms(groups=("reviewers",))
"""The terms of a review when no policy file has `default:`."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Standing:
    """The rules that can matter to one principal at one target, with the facts that do not change in a connection."""

    restrictive: tuple[Rule, ...]
    allowing: Mapping[str, tuple[Rule, ...]]  # by verb; "" holds those for every verb
    allowing_reads_command: bool
    cacheable: bool
    activation: Mapping[str, words.Message]

    def allow_rules(self, verb: str) -> tuple[Rule, ...]:
        return self.allowing.get(verb, self.allowing[""])

    def reads_text(self, analysis: Analysis) -> bool:
        """Whether a rule that is asked about these effects reads `command`: then equal effects don't decide alike."""
        verbs = {effect.verb for effect in analysis.effects}
        asked = [rule for rule in self.restrictive if not rule.match.verbs or not rule.match.verbs.isdisjoint(verbs)]
        for verb in (*verbs, *(("opaque",) if analysis.opaque else ())):
            asked += self.allow_rules(verb)
        return any(rule.condition is not None and "command" in rule.condition.reads for rule in asked)


class PolicySet:
    """All rules in force. Implements `ports.Policy`. Made by loader.load; never changes afterwards but its caches."""

    def __init__(
        self,
        *,
        rules: Sequence[Rule],
        access: Sequence[AccessRule],
        default: ReviewTerms,
        digest: str,
        files: Mapping[str, bytes],
        warnings: Sequence[str] = (),
        cases: Sequence[Case] = (),
        cache_size: int = 4096,
    ) -> None:
        self.rules = tuple(rules)
        self.access = tuple(access)
        self.default = default
        self.files = dict(files)
        self.warnings = tuple(warnings)
        self.cases = tuple(cases)
        self._digest = digest
        self._reads_session = any(r.condition is not None and "session" in r.condition.reads for r in rules)
        self._standings: OrderedDict[tuple[int, int, int], tuple[object, Standing]] = OrderedDict()
        self._equal: OrderedDict[tuple[object, ...], Standing] = OrderedDict()
        self._decisions: OrderedDict[tuple[object, ...], tuple[Standing, Analysis, Decision]] = OrderedDict()
        self._by_effects: OrderedDict[tuple[object, ...], tuple[Standing, Decision]] = OrderedDict()
        self._cache_size = cache_size

    @property
    def digest(self) -> str:
        """`sha256:…` of the bytes in `files`."""
        return self._digest

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the rules in observe mode, for start-up, /healthz, card and seal."""
        return tuple(rule.name for rule in self.rules if rule.observe)

    def only(self, *rules: Rule) -> PolicySet:
        """Return a policy of these rules alone, all of them enforced: what cases are run against."""
        enforced = [replace(rule, observe=False) for rule in rules]
        return PolicySet(rules=enforced, access=(), default=self.default, digest=self.digest, files=self.files)

    def may_open(self, principal: Principal, target: Target) -> Access:
        """Say whether the principal may open the target with this account or role. Nobody may, unless a rule says so; and who
        acts for somebody may only what both may."""
        found = [self._may_open(view, target) for view in principal.views()]
        refused = next((access for access in found if not access.granted), None)
        return refused or found[0]

    def _may_open(self, principal: Principal, target: Target) -> Access:
        for rule in self.access:
            if rule.opens(principal, target):
                return Access(True, rule.name, f"opened by {rule.name}")
        what = f"as role {target.role!r} in {target.database!r}" if target.protocol == "postgres" else f"as {target.account!r}"
        return Access(False, "access/none", f"No access rule lets {principal.handle} open {target.name} {what}.")

    def may_see(self, principal: Principal, target: Target) -> bool:
        """Say whether the principal may know of the target: some account or role of it is open to them."""
        return any(rule.leads(principal, target) for rule in self.access)

    def decide(self, facts: Facts) -> Decision:
        """Decide one command. Never raises for anything in the facts. Of a chain, the strictest answer to any of it counts."""
        if facts.principal.behind:
            return self._strictest([self.decide(replace(facts, principal=view)) for view in facts.principal.views()])
        standing = self._standing(facts.principal, facts.target, facts.session)
        command = facts.command
        if not standing.cacheable or len(command.text) > CACHED_TEXT:
            return self._decide(standing, facts)
        key = (id(standing), command.wire, command.kind, command.text, id(facts.analysis))
        cached = self._decisions.get(key)
        if cached is not None and cached[0] is standing and cached[1] is facts.analysis:
            self._decisions.move_to_end(key)
            return cached[2]
        decision = self._alike(standing, facts)
        # The entry holds the objects whose ids are in its key, so that an id can't come to mean another object.
        _remember(self._decisions, key, (standing, facts.analysis, decision), self._cache_size)
        return decision

    def _strictest(self, answers: Sequence[Decision]) -> Decision:
        """Return the answer that satisfies all of `answers`: a deny, else everybody who must be asked, else allowed."""
        denied = [answer for answer in answers if answer.verdict is Verdict.DENY]
        reviewed = [answer for answer in answers if answer.verdict is Verdict.REVIEW]
        reviewed.sort(key=lambda answer: -severity(answer.review or self.default))
        first = next(iter((*denied, *reviewed)), answers[0])
        terms = merge([answer.review or self.default for answer in reviewed]) if reviewed and not denied else first.review
        return replace(
            first, review=terms, lasts=all(answer.lasts for answer in answers),
            matched=tuple(dict.fromkeys(rule for answer in answers for rule in answer.matched)),
            observed=tuple(dict.fromkeys(rule for answer in answers for rule in answer.observed)),
            errors=tuple(dict.fromkeys(error for answer in answers for error in answer.errors)),
        )  # fmt: skip

    def _alike(self, standing: Standing, facts: Facts) -> Decision:
        """Decide, or find the decision about another text with the same effects when no rule that is asked reads texts."""
        analysis = facts.analysis
        if analysis.unreadable is not None or len(analysis.effects) > ALIKE_EFFECTS:
            return self._decide(standing, facts)
        # What is found was kept because no rule that is asked about these effects reads texts: that need not be asked again.
        key = (id(standing), facts.command.wire, facts.command.kind, analysis.effects, analysis.opaque)
        known = self._by_effects.get(key)
        if known is not None and known[0] is standing:
            self._by_effects.move_to_end(key)
            return known[1]
        decision = self._decide(standing, facts)
        if standing.reads_text(analysis):
            return decision
        decision = replace(decision, blind=True)
        _remember(self._by_effects, key, (standing, decision), self._cache_size)
        return decision

    # -- standing ---------------------------------------------------------------------------------------------------

    def _standing(self, principal: Principal, target: Target, session: SessionFacts) -> Standing:
        key = (id(principal), id(target), id(session) if self._reads_session else 0)
        known = self._standings.get(key)
        if known is not None:
            self._standings.move_to_end(key)
            return known[1]
        facts = (*words.standing_key(principal, target), *((session,) if self._reads_session else ()))
        standing = self._equal.get(facts)
        if standing is None:
            standing = self._stand(principal, target, session)
            _remember(self._equal, facts, standing, self._cache_size)
        _remember(self._standings, key, ((principal, target, session), standing), self._cache_size)
        return standing

    def _stand(self, principal: Principal, target: Target, session: SessionFacts) -> Standing:
        rules = [rule for rule in self.rules if rule.match.applies(principal, target)]
        allowing = [rule for rule in rules if rule.verdict is Verdict.ALLOW]
        verbs = {verb for rule in allowing for verb in rule.match.verbs}
        by_verb = {
            verb: tuple(rule for rule in allowing if not rule.match.verbs or verb in rule.match.verbs) for verb in ("", *verbs)
        }
        return Standing(
            restrictive=tuple(rule for rule in rules if rule.verdict is not Verdict.ALLOW),
            allowing=by_verb,
            allowing_reads_command=any(r.condition is not None and "command" in r.condition.reads for r in allowing),
            cacheable=not any(rule.condition is not None and "time" in rule.condition.reads for rule in rules),
            activation={
                "principal": words.principal_message(principal),
                "target": words.target_message(target),
                "session": words.session_message(session),
            },
        )

    # -- one decision -----------------------------------------------------------------------------------------------

    def _decide(self, standing: Standing, facts: Facts) -> Decision:
        # Equal effects are one fact: 60,000 rows of VALUES or ten times the same read cost one evaluation.
        effects = tuple(dict.fromkeys(facts.analysis.effects))
        if len(effects) > MAX_EFFECTS:
            return Decision(
                Verdict.DENY, "interlock/too-many-effects", f"The command does more than {MAX_EFFECTS} different things.",
                self.digest, hint="Split it into several commands.",
            )  # fmt: skip
        trial = _Trial(standing, facts, effects)
        for rule in standing.restrictive:
            trial.ask(rule)
        allowed = trial.allow_all()
        if trial.denied:
            rule = trial.denied[0]
            return self._answer(trial, Verdict.DENY, rule.name, rule.message, hint=rule.hint)
        if trial.reviewed:
            return self._review(trial)
        if allowed:
            rule = trial.allowed[0]
            return self._answer(trial, Verdict.ALLOW, rule.name, rule.message, hint=rule.hint)
        return self._answer(trial, Verdict.REVIEW, "default", trial.undecided(), review=self.default)

    def _review(self, trial: _Trial) -> Decision:
        rules = sorted(trial.reviewed, key=lambda rule: -severity(rule.terms or self.default))
        merged = merge([rule.terms or self.default for rule in rules])
        first = rules[0]
        return self._answer(trial, Verdict.REVIEW, first.name, first.message, hint=first.hint, review=merged)

    def _answer(
        self, trial: _Trial, verdict: Verdict, rule: str, reason: str, *, hint: str = "", review: ReviewTerms | None = None
    ) -> Decision:
        return Decision(
            verdict, rule, reason, self.digest, hint=hint, review=review, matched=tuple(dict.fromkeys(trial.matched)),
            observed=tuple(dict.fromkeys(trial.observed)), errors=tuple(dict.fromkeys(trial.errors)),
            lasts=trial.lasts,
        )  # fmt: skip


class _Trial:
    """One command before the rules: prepares the facts once and collects what matched."""

    def __init__(self, standing: Standing, facts: Facts, effects: tuple[Effect, ...]) -> None:
        self.matched: list[str] = []
        self.observed: list[str] = []
        self.errors: list[str] = []
        self.denied: list[Rule] = []
        self.reviewed: list[Rule] = []
        self.allowed: list[Rule] = []
        self._standing = standing
        self.lasts = standing.cacheable
        self._facts = facts
        self._analysis = facts.analysis
        self._effects = effects
        self._verbs = {effect.verb for effect in self._effects}
        self._messages = [words.effect_message(effect) for effect in self._effects]
        opaque = [words.opaque_message(part) for part in facts.analysis.opaque]
        self._values: dict[str, Any] = {
            **standing.activation,
            "command": words.command_message(facts.command, facts.analysis, self._messages, opaque),
            "effects": self._messages,
            "opaque": opaque,
            "time": words.time_message(facts.now),
        }
        self._activation = activation(self._values)
        self._undecided: list[Effect] = []

    def ask(self, rule: Rule) -> None:
        """Evaluate a review or deny rule: once, over the whole command."""
        if rule.match.verbs and rule.match.verbs.isdisjoint(self._verbs):
            return
        outcome = Matched(True) if rule.condition is None else rule.condition.evaluate(self._activation)
        if outcome.error:
            self.errors.append(f"{rule.name}: {outcome.error}")
        if not outcome.value and not outcome.error:
            return
        if rule.observe:
            self.observed.append(f"{rule.name}:{rule.verdict}")
            return
        self.matched.append(rule.name)
        (self.denied if rule.verdict is Verdict.DENY else self.reviewed).append(rule)

    def allow_all(self) -> bool:
        """Evaluate the allow rules, once per effect. True only when everything the command does is allowed.

        A command without any effect is not allowed: an empty list means that nothing is known.
        """
        if len(self._effects) > MAX_ALLOWED_EFFECTS or self._analysis.unreadable is not None:
            return False
        for effect, message in zip(self._effects, self._messages, strict=True):
            if not self._allow(message, self._standing.allow_rules(effect.verb)):
                self._undecided.append(effect)
        unresolved = 0
        willing = tuple(rule for rule in self._standing.allow_rules("opaque") if rule.opaque)
        for part in self._analysis.opaque:
            message = words.effect_message(Effect("opaque", part.reason, detail=part.text))
            if not self._allow(message, willing):
                unresolved += 1
        return bool(self._effects or self._analysis.opaque) and not self._undecided and not unresolved

    def _allow(self, message: words.Message, rules: tuple[Rule, ...]) -> bool:
        if not rules:
            return False
        facts: Activation = None
        allowed = False
        for rule in rules:
            if rule.condition is None:
                outcome = Matched(True)
            else:
                facts = facts if facts is not None else self._judging(message)
                outcome = rule.condition.evaluate(facts)
            if outcome.error:
                self.errors.append(f"{rule.name}: {outcome.error}")
            if not outcome.value:
                continue
            if rule.observe:
                self.observed.append(f"{rule.name}:{rule.verdict}")
                continue
            self.matched.append(rule.name)
            self.allowed.append(rule)
            allowed = True
        return allowed

    def _judging(self, message: words.Message) -> Activation:
        """Prepare the facts for allow rules: this one effect is all that they see of what the command does."""
        values = {**self._values, "effect": message, "effects": [message]}
        if self._standing.allowing_reads_command:
            values["command"] = words.command_message(self._facts.command, self._analysis, [message], self._values["opaque"])
        return activation(values)

    def undecided(self) -> str:
        """Say in a sentence what no rule decides."""
        if len(self._effects) > MAX_ALLOWED_EFFECTS:
            return f"The command does more than {MAX_ALLOWED_EFFECTS} different things, so a human looks at it."
        if self._analysis.opaque:
            reasons = ", ".join(dict.fromkeys(part.reason for part in self._analysis.opaque))
            return f"Not everything this would do can be known beforehand ({reasons}), so a human looks at it."
        if not self._effects:
            return "Nothing is known of what this would do, so a human looks at it."
        shown = [f"{effect.verb} {effect.object}".strip() for effect in self._undecided[:3]]
        more = f" and {len(self._undecided) - 3} more" if len(self._undecided) > 3 else ""
        return f"No rule allows: {', '.join(shown)}{more}. A human looks at it."


def _remember(cache: OrderedDict[_Key, _Value], key: _Key, value: _Value, size: int) -> None:
    cache[key] = value
    if len(cache) > size:
        cache.popitem(last=False)
