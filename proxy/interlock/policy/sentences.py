"""Why, in a sentence for somebody who has never seen the product: what a command would do, and who says what about it.

Pure. Knows the words of commands and of decisions; decides nothing. A verb, object or reason without words of its own is
named as it is, so nothing is ever left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from interlock.commands.model import Analysis, Effect, Opaque
from interlock.policy.engine import PolicySet
from interlock.policy.model import Decision, Facts, Verdict
from interlock.policy.rule import Rule

MAX_THINGS = 4
MAX_TEXT = 60

_PLACES = {
    "arguments": "repeat what it was given", "stdin": "read what is piped into it", "home": "look into its home directory",
    "working-directory": "say which directory it is in", "environment": "show the environment", "programs": "look up programs",
    "file-index": "search the index of files", "system": "show facts about the machine", "clock": "read the clock",
    "disk": "show how full the disks are", "accounts": "look up accounts", "sessions": "show who is logged in",
    "process-table": "list processes", "network-state": "show network connections", "firewall": "show firewall rules",
    "kernel-log": "read the kernel's log", "journal": "read the system's log", "services": "list services",
    "packages": "list installed software", "containers": "list containers", "cluster": "look at the cluster",
    "schedule": "show what is scheduled", "repository": "look at the repository", "cloud": "look at cloud resources",
}  # fmt: skip
_BELOW = {"service/": "look at the service {}", "container/": "look at the container {}", "cluster/": "look at {} in the cluster"}

_SHELL = {
    "read": "read {}", "write": "write to {}", "delete": "delete {}", "secret": "show the secret {}",
    "privilege": "act as {}", "interpret": "run code that this text does not show ({})",
    "network": "talk to {} over the network",
    "service": "change the service {}", "package": "change installed software ({})",
"cloud": "change {} in the cloud account", "identity": "change who may log in ({})",
    "schedule": "change what runs later ({})", "kernel": "change the machine itself ({})", "process": "send a signal to {}",
    "history": "change logs ({})", "execute": "run {}",
}  # fmt: skip
_SQL = {
    "select": "read rows of {}", "insert": "add rows to {}", "update": "change rows of {}", "delete": "delete rows of {}",
    "merge": "add, change or delete rows of {}", "truncate": "empty {}", "copy_in": "load rows into {}",
    "copy_out": "export {}",
    "copy_program": "run a program on the server ({})", "copy_file": "use a file of the server ({})", "create": "create {}",
    "alter": "alter {}", "drop": "drop {}", "grant": "give rights on {}", "revoke": "take rights on {}", "call": "call {}",
    "do": "run a block of code ({})", "set": "set {}", "reset": "reset {}", "lock": "lock {}", "listen": "listen on {}",
    "notify": "notify {}", "vacuum": "vacuum {}", "explain": "show how a statement would run",
    "transaction": "begin or end a transaction", "cursor": "use the cursor {}", "prepare": "prepare {}",
    "execute": "run the prepared statement {}", "fetch": "fetch rows", "replication": "change replication ({})",
    "function": "call the function {}", "nothing": "do nothing",
}  # fmt: skip
_EVERY_ROW = {"select": "read every row of {}", "update": "change every row of {}", "delete": "delete every row of {}"}
_INSIDE = {"cluster": "the cluster", "container": "the container engine"}
_NAMES = {".": "the current directory", "all": "everything", "file": "whatever a file says"}

REASONS = {
    "parameter": "what {} holds", "command-substitution": "what {} will put into the command", "arithmetic": "what {} comes to",
    "process-substitution": "what {} will deliver", "glob": "which files {} stands for", "brace-expansion": "what {} becomes",
    "tilde": "whose directory {} is", "history-expansion": "which earlier command {} recalls",
    "ansi-c-quoting": "what {} spells", "locale-quoting": "what {} becomes in another language",
    "assignment": "what {} changes", "environment": "what {} changes", "environment-kept": "which variables are passed on",
    "function-definition": "what {} does when it is called", "declaration": "what {} changes",
    "coprocess": "what runs beside it ({})",
    "double-bracket": "what {} evaluates", "loop": "how often and with what {} runs", "eval": "which text {} runs",
    "exec-redirection": "where its input and output go", "here-document": "what the text that is fed to it becomes",
    "network-redirection": "who is at the other end of {}", "redirection": "what {} writes to or reads",
    "unknown-construct": "how {} is read", "grammars-disagree": "how {} is read, since two readers disagree",
    "nesting": "what text that is nested this deep does", "too-many-commands": "what so many commands do",
    "too-large-to-classify": "what a text of this size does", "unknown-program": "what the program {} does",
    "unknown-subcommand": "what {} does in this program", "unknown-option": "what the option {} does",
    "abbreviated-option": "which option {} is short for", "unknown-operand": "what {} means to the program",
    "missing-value": "which value {} takes", "unexpected-value": "what the value of {} means",
    "option-runs-code": "what {} makes it run", "interpreter-code": "what the code {} does",
    "script-file": "what the script {} does",
    "sql-inline": "what {} does in the database", "interactive-editor": "what somebody would type into the editor",
    "pager": "what somebody would type into the pager", "remote-session": "what happens on the other machine ({})",
    "remote-host": "what happens on the other machine ({})", "remote-archive": "what happens on the other machine ({})",
    "other-identity": "what {} may do", "stdin-code": "what will be fed to it: {}", "stdin-shared": "who reads the input first",
    "script-reads-itself": "what it reads of its own text", "arguments-from-stdin": "what {} is given to work on",
    "arguments-from-file": "what {} is given to work on", "placeholder-in-code": "what stands in for {{}} in {}",
    "placeholder-in-command": "what stands in for {{}} in {}", "placeholder-in-word": "what stands in for {{}} in {}",
    "no-command": "which command {} would run", "nested-syntax-error": "how the text inside is read ({})",
    "deceptive-code": "how the text inside is read ({})", "dialect": "how another shell reads {}",
    "look-alike": "what {} is, since it only looks like plain letters", "foreign-shell": "how the shell of {} reads this",
    "locale": "how this is read in another character set", "working-directory": "in which directory it runs ({})",
    "unknown-relation": "what {} is", "unknown-function": "what the function {} does",
    "unknown-operator": "what the operator {} does",
    "unknown-type": "what the type {} does", "no-catalog": "what {} is in this database",
    "tainted-name": "which {} is meant now",
    "ambiguous-name": "which {} is meant", "rule-on-relation": "what rewrite rules on {} do",
    "rule-body": "what the rule {} does",
    "view-calls-function": "what the functions below the view {} do", "relation-calls-function": "what functions behind {} do",
    "row-policy-calls-function": "what functions behind {} do", "code-block": "what the block of {} code does",
    "function-body": "what the function {} does", "library": "what the library {} does",
    "runs-scripts": "what scripts run with {}",
    "unknown-cursor": "what the cursor {} reads", "unknown-prepared-statement": "what the prepared statement {} does",
}  # fmt: skip
"""Why a part can't be known, as what follows "nobody can know beforehand". `{}` is the part itself."""


def why(policy: PolicySet, facts: Facts, decision: Decision) -> str:
    """Say why a command was decided as it was."""
    analysis = facts.analysis
    if analysis.unreadable is not None:
        return f"{_sentence(decision.reason)} Such a text is refused before any rule is asked."
    if decision.rule == "interlock/too-many-effects":
        return f"{_sentence(decision.reason)} Nobody could judge that."
    said = [*_said(policy, facts, decision)]
    said += [f"The rule {name} could not be worked out, which counts against the command." for name in _failed(decision)]
    return " ".join(said)


def _said(policy: PolicySet, facts: Facts, decision: Decision) -> Iterator[str]:
    rules = {rule.name: rule for rule in policy.rules}
    match decision.verdict:
        case Verdict.ALLOW:
            named = [rules[name] for name in decision.matched if name in rules]
            yield f"It would only {does(facts.analysis, facts.target.protocol)}."
            yield f"{_list_of_rules(named)} {'allows' if len(named) == 1 else 'allow'} that without asking anybody."
        case Verdict.DENY | Verdict.REVIEW if decision.rule in rules:
            against = [rules[name] for name in decision.matched if name in rules and rules[name].verdict is decision.verdict]
            first, others = rules[decision.rule], [rule for rule in against if rule.name != decision.rule]
            yield from _because(policy, first, facts)
            if others and decision.verdict is Verdict.REVIEW:
                more = f"the rules {_and([rule.name for rule in others])}" if len(others) > 1 else f"the rule {others[0].name}"
                yield f"So {'do' if len(others) > 1 else 'does'} {more}, and a person must look at all of it."
        case _:
            yield from _nobody_said(facts, decision)


def _because(policy: PolicySet, rule: Rule, facts: Facts) -> Iterator[str]:
    """Say what in the command the rule is about, found by asking the rule about each part alone."""
    parts = _parts(policy, rule, facts)
    what = phrases(parts, facts.target.protocol)
    verb = "forbids that" if rule.verdict is Verdict.DENY else "wants a person to decide about that"
    if what:
        yield f"It would {_and(what)}."
        yield f"The rule {rule.name} {verb}: {_sentence(rule.message)}"
    else:
        yield f"The rule {rule.name} {verb.removesuffix(' that').removesuffix(' about')}: {_sentence(rule.message)}"


def _parts(policy: PolicySet, rule: Rule, facts: Facts) -> tuple[Effect, ...]:
    effects = tuple(dict.fromkeys(facts.analysis.effects))
    alone = policy.only(rule)

    def matches(*some: Effect) -> bool:
        asked = replace(facts, analysis=replace(facts.analysis, effects=some))
        return rule.name in alone.decide(asked).matched

    if matches():
        return ()  # whatever it does
    return tuple(effect for effect in effects[: 10 * MAX_THINGS] if matches(effect)) or effects


def _nobody_said(facts: Facts, decision: Decision) -> Iterator[str]:
    analysis = facts.analysis
    if analysis.opaque:
        unknown = list(dict.fromkeys(unknown_part(part) for part in analysis.opaque))
        yield f"Nobody can know beforehand {_and(_some(unknown))}."
        yield "So a person looks at it before it runs."
    elif not analysis.effects:
        yield "Nothing is known of what it would do, so a person looks at it before it runs."
    elif len(set(analysis.effects)) > 2 * MAX_THINGS and not decision.reason.startswith("No rule allows"):
        yield _sentence(decision.reason)
    else:
        shown = decision.reason.removeprefix("No rule allows: ").partition(". A human looks")[0]
        undecided = [e for e in dict.fromkeys(analysis.effects) if f"{e.verb} {e.object}".strip() in shown] or list(
            analysis.effects
        )
        yield f"It would {_and(_some(phrases(undecided, facts.target.protocol)) or ['do something'])}."
        yield "No rule says that this may be done without asking, so a person decides."


def does(analysis: Analysis, protocol: str) -> str:
    """Say what a command would do, as what follows "it would"."""
    return _and(_some(phrases(analysis.effects, protocol))) or "do nothing that is known"


def phrases(effects: Iterable[Effect], protocol: str) -> list[str]:
    """Return what follows "it would": each thing once, things of which the same is said in one breath."""
    things: dict[str, list[str]] = {}
    for effect in effects:
        said, thing = _phrase(effect, protocol)
        if said:
            things.setdefault(said, []).append(thing)
    return [said.replace("{}", _and(list(dict.fromkeys(of)))) for said, of in things.items()]


def _phrase(effect: Effect, protocol: str) -> tuple[str, str]:
    """Return what is done, with `{}` for the thing that it is done to, and the thing."""
    verb, thing = effect.verb, _NAMES.get(effect.object, _short(effect.object)) or "something"
    if verb == "execute" and effect.detail == "wrapper":
        return "", ""  # what it starts has a phrase of its own
    if protocol == "postgres":
        said = _sql_phrase(effect)
        if verb in ("create", "alter", "drop") and effect.detail:
            thing = f"the {effect.detail} {_short(effect.object)}".rstrip()
    else:
        said = _shell_phrase(effect)
        thing = _short(effect.object.partition("/")[2]) if said in _BELOW.values() else thing
    if effect.recursive and verb in ("delete", "write", "read", "secret"):
        said += " and everything below"
    return said + _where(effect), thing


def _sql_phrase(effect: Effect) -> str:
    if effect.verb == "select" and not effect.object:
        return "compute a value without reading a table"
    if not effect.filtered and not (effect.verb == "select" and effect.limited) and effect.verb in _EVERY_ROW:
        return _EVERY_ROW[effect.verb]
    return _SQL.get(effect.verb, f"{effect.verb.replace('_', ' ')} {{}}")


def _shell_phrase(effect: Effect) -> str:
    match effect.verb, effect.detail:
        case "read", detail:
            if effect.object in _PLACES:
                return _PLACES[effect.object]
            below = next((words for begin, words in _BELOW.items() if effect.object.startswith(begin)), "")
            return below or ("look at the name and attributes of {}" if detail == "metadata" else "read {}")
        case "interpret", "harmless-form" | "filter":
            return f"rewrite text with {effect.program}, in a form that does nothing else"
        case "execute", "unknown":
            return "run {}, which is no program that is known here"
        case ("cluster" | "container") as verb, "wrapper":
            return f"run something inside of {{}} in {_INSIDE[verb]}"
        case ("cluster" | "container") as verb, detail:
            return f"{'delete' if detail == 'delete' else 'change'} {{}} in {_INSIDE[verb]}"
    return _SHELL.get(effect.verb, f"{effect.verb} {{}}")


def _where(effect: Effect) -> str:
    where = f" at {_short(effect.host)}" if effect.host and effect.verb != "network" else ""
    through = [name for name in effect.via if name in ("sudo", "doas", "su", "runuser", "pkexec")]
    return f"{where}, by way of {through[0]}" if through and effect.verb != "privilege" else where


def unknown_part(part: Opaque) -> str:
    """Say what can't be known, as what follows "nobody can know beforehand"."""
    words = REASONS.get(part.reason)
    if words is None and part.reason.startswith("redirection-"):
        words = REASONS["redirection"]
    text = _short(part.text) or "it"
    return words.format(text) if words is not None else f"everything about it ({part.reason.replace('-', ' ')}: {text})"


def _failed(decision: Decision) -> list[str]:
    return list(dict.fromkeys(error.partition(":")[0] for error in decision.errors))


def _list_of_rules(rules: Sequence[Rule]) -> str:
    if not rules:
        return "The policy"
    if len(rules) == 1:
        return f"The rule {rules[0].name}"
    return f"The rules {_and([rule.name for rule in rules])}"


def _some(things: list[str]) -> list[str]:
    if len(things) <= MAX_THINGS:
        return things
    return [*things[: MAX_THINGS - 1], f"{len(things) - MAX_THINGS + 1} more things"]


def _and(things: Sequence[str]) -> str:
    things = _some(list(things))
    return f"{', '.join(things[:-1])} and {things[-1]}" if len(things) > 1 else "".join(things)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
