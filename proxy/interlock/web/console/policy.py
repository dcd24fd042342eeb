"""The policy in force, rule by rule, and what it would say of a command: the answer of `interlock explain`.

The text is parsed where the data path parses it, in children, so that no text can hold up the node.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from interlock.clock import Clock
from interlock.commands.display import display, whole
from interlock.commands.wording import sentences, unknowns
from interlock.config import Config
from interlock.errors import ConfigError, InterlockError
from interlock.gate import Gate
from interlock.identity.directory import Directory
from interlock.identity.principal import Credential, CredentialKind, Identity, Kind, Principal
from interlock.policy.question import EXAMPLES, Question, answer, facts_of, search_path
from interlock.policy.rule import Rule
from interlock.policy.source import LivePolicy
from interlock.web.access import Scope
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import Pages, missing

MAX_TEXT = 64 * 1024
ANYBODY = "an agent"


def add(
    routes: APIRouter,
    pages: Pages,
    guard: Guard,
    *,
    policies: LivePolicy,
    directory: Directory,
    config: Config,
    gate: Gate,
    clock: Clock,
) -> None:
    admin = Depends(guard.reads(Scope.ADMIN))

    def page(request: Request, **asked: Any) -> Response:
        policy = policies.current
        targets = [facts_of(target) for target in config.targets] or list(EXAMPLES.values())
        form = {
            "text": "",
            "target": targets[0].name,
            "who": "",
            "answer": None,
            "lines": (),
            "does": (),
            "unknown": (),
            "error": "",
            **asked,
        }
        return pages.page(
            "policy.html",
            request,
            policy=policy,
            packs=_packs(policy.rules),
            targets=targets,
            people=[entry.handle for entry in directory.entries() if not entry.disabled],
            anybody=ANYBODY,
            asked=form,
        )

    @routes.get("/console/policy")
    async def policy_page(request: Request, person: Person = admin) -> Response:
        return page(request)

    @routes.get("/console/policy/rules/{pack}/{rule_id}")
    async def rule_page(request: Request, pack: str, rule_id: str, person: Person = admin) -> Response:
        name = f"{pack}/{rule_id}"
        policy = policies.current
        rule = next((rule for rule in policy.rules if rule.name == name), None)
        if rule is None:
            raise missing(f"rule {name!r} in the policy in force")
        cases = [case for case in policy.cases if name in (case.scope, case.rule)]
        return pages.page(
            "rule.html",
            request,
            rule=rule,
            digest=policy.digest,
            terms=rule.terms or (policy.default if rule.verdict == "review" else None),
            cases=[(case, display(case.command.text).lines) for case in cases],
        )

    @routes.post("/console/policy/explain")
    async def explain(
        request: Request,
        text: Annotated[str, Form(max_length=MAX_TEXT)] = "",
        target: Annotated[str, Form(max_length=255)] = "",
        who: Annotated[str, Form(max_length=64)] = "",
        person: Person = Depends(guard.posts(Scope.ADMIN)),
    ) -> Response:
        """Send nothing and decide nothing: a POST only because a command does not belong into an address."""
        plain = text.replace("\r\n", "\n")
        try:
            if not plain.strip():
                raise ConfigError("write a command to explain")
            question = _question(config, plain.encode("utf-8", "surrogatepass"), target)
            analysis, answered = await answer(
                policies.current, _asker(directory, who), question, gate.classifier, clock.now(), access=bool(config.targets)
            )
        except InterlockError as error:
            return page(request, text=plain, target=target, who=who, error=str(error))
        return page(
            request, text=plain, target=target, who=who, answer=answered, lines=whole(question.text).lines,
            does=sentences(analysis, question.command.wire), unknown=unknowns(analysis),
        )  # fmt: skip


def _packs(rules: tuple[Rule, ...]) -> dict[str, list[Rule]]:
    packs: dict[str, list[Rule]] = {}
    for rule in rules:
        packs.setdefault(rule.pack, []).append(rule)
    return packs


def _question(config: Config, text: bytes, name: str) -> Question:
    found = config.target(name)
    if found is not None:
        return Question(text, facts_of(found), found.shell, search_path(found))
    example = next((target for target in EXAMPLES.values() if target.name == name), None)
    if config.targets or example is None:
        raise missing(f"target {name!r} in the configuration")
    return Question(text, example)


def _asker(directory: Directory, handle: str) -> Principal:
    """Return a registered principal, or an agent that nobody registered. Raise NotFoundError."""
    credential = Credential(CredentialKind.PEER, "explain")
    if not handle or handle == ANYBODY:
        return Principal(Identity("explain", "agent"), "agent", Kind.AGENT, credential, groups=frozenset(("agents",)))
    entry = directory.by_handle(handle)
    if entry is None:
        raise missing(f"principal {handle!r}")
    return entry.principal(credential)
