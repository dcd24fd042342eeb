"""The shape of a policy file: strict models, from which docs/reference/policy.schema.json is generated.

Knows keys, types and what may stand beside what; nothing of conditions (conditions.py) or decisions (engine.py).
An unknown key is an error that names the nearest valid one. Spec: policy.md.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import WithJsonSchema

from interlock.commands.model import SHELL_VERBS, SQL_VERBS
from interlock.errors import PolicyError
from interlock.identity.principal import Kind
from interlock.policy.document import Document, Path

_DURATION = re.compile(r"([1-9]\d{0,6})(s|m|h|d)\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_VERBS = SHELL_VERBS | SQL_VERBS


def _seconds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    found = _DURATION.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("write a duration as a number and s, m, h or d, such as 15m")
    return int(found[1]) * _UNITS[found[2]]


def _labels_or_names(value: object) -> object:
    """Normalise `targets`: label map, list of names, or "*"."""
    if value == "*":
        return value
    if isinstance(value, dict) and value:
        for label, wanted in value.items():
            if not (isinstance(wanted, str) or (isinstance(wanted, list) and wanted and all(isinstance(w, str) for w in wanted))):
                raise ValueError(f"label {label!r}: give a text, or a list of texts of which any may be there")
        return value
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return value
    raise ValueError('give labels {env: prod}, a list of target names, or "*" for every target')


def _verb(value: str) -> str:
    if value not in _VERBS:
        near = difflib.get_close_matches(value, _VERBS, n=1)
        raise ValueError(f"{value!r} is no verb" + (f"; did you mean {near[0]!r}?" if near else ""))
    return value


def _moment(value: object) -> object:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    raise ValueError("give a time with its zone in quotes, such as '2026-01-05T14:00:00Z'")


_DURATION_SCHEMA = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[1-9][0-9]{0,6}[smhd]$"}],
    "description": "Seconds, or a number and s, m, h or d.",
}
_TARGETS_SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
            },
        },
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"const": "*"},
    ],
    "description": 'Labels that must all be there, target names, or "*" for every target.',
}

Duration = Annotated[int, BeforeValidator(_seconds), WithJsonSchema(_DURATION_SCHEMA)]
Targets = Annotated[Any, BeforeValidator(_labels_or_names), WithJsonSchema(_TARGETS_SCHEMA)]
Verb = Annotated[str, AfterValidator(_verb), WithJsonSchema({"type": "string", "enum": sorted(_VERBS)})]
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Texts = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WhoForm(Strict):
    """Who is meant: every key that is given must match, any of its values."""

    groups: Texts | None = None
    handles: Texts | None = None
    subjects: Annotated[Texts | None, Field(description="issuer:subject, the stable identifier")] = None
    kinds: Annotated[list[Literal["human", "agent", "service"]] | None, Field(min_length=1)] = None

    @model_validator(mode="after")
    def _somebody(self) -> WhoForm:
        if not (self.groups or self.handles or self.subjects or self.kinds):
            raise ValueError("name somebody: groups, handles, subjects or kinds. Nobody is the default")
        return self


class AccessForm(Strict):
    """Opens targets. What is not named is not opened: accounts for SSH, roles for Postgres."""

    who: WhoForm
    targets: Targets
    accounts: Annotated[Texts | None, Field(description='SSH accounts, or ["*"]. Absent: none.')] = None
    roles: Annotated[Texts | None, Field(description='Postgres roles, or ["*"]. Absent: none.')] = None
    databases: Annotated[Texts | None, Field(description="Postgres databases. Absent: whichever the role may open.")] = None

    @model_validator(mode="after")
    def _opens_something(self) -> AccessForm:
        if not (self.accounts or self.roles):
            raise ValueError("opens nothing: give accounts (SSH) or roles (Postgres)")
        return self


class NeedForm(Strict):
    """So many distinct people, each in one of these groups."""

    groups: Texts
    quorum: Annotated[int, Field(ge=1, le=20)] = 1


class ReviewForm(Strict):
    """Who must answer and for how long the question stands; what is absent comes from `default:`."""

    groups: Texts | None = None
    quorum: Annotated[int | None, Field(ge=1, le=20)] = None
    needs: Annotated[
        list[NeedForm] | None,
        Field(min_length=1, max_length=8, description="people of several groups; one person counts for one need"),
    ] = None
    escalate: Annotated[Duration | None, Field(description="tell more people after this long; who may answer stays")] = None
    expires: Duration | None = None
    hold: Duration | None = None
    return_: Annotated[bool | None, Field(alias="return")] = None
    step_up: Literal["none", "reauth", "passkey"] | None = None
    scopes: Annotated[list[Literal["once", "exact", "rule_in_session"]] | None, Field(min_length=1)] = None

    @model_validator(mode="after")
    def _fits(self) -> ReviewForm:
        if self.needs is not None and (self.groups is not None or self.quorum is not None):
            raise ValueError("needs: takes the place of groups: and quorum:; give one or the other")
        if self.scopes is not None and "once" not in self.scopes:
            raise ValueError("scopes: once is always among them")
        if self.step_up == "passkey" and self.scopes not in (None, ["once"]):
            raise ValueError("step_up: passkey makes the rule critical; its only scope is once")
        return self


class MatchForm(Strict):
    """A cheap filter before the condition; every key that is given must match."""

    protocol: Literal["ssh", "postgres"] | None = None
    target: Targets | None = None
    who: WhoForm | None = None
    verbs: Annotated[list[Verb] | None, Field(min_length=1)] = None


class AsForm(Strict):
    """Who asks in a case. Absent: an agent without groups."""

    kind: Literal["human", "agent", "service"] = "agent"
    handle: str = "case"
    groups: list[str] = []


class CaseForm(Strict):
    """A command and what must come of it."""

    sql: str | None = None
    shell: str | None = None
    operation: Annotated[str | None, Field(description="a file operation or a push, as the record shows it")] = None
    expect: Literal["allow", "deny", "review", "none"]
    rule: Annotated[str | None, Field(description="pack/id of the rule that must carry the answer")] = None
    target: Annotated[dict[str, str] | None, Field(description="labels; absent: env: prod")] = None
    account: str = "deploy"
    role: str = "app"
    as_: Annotated[AsForm, Field(alias="as")] = AsForm()
    at: Moment | None = None
    stdin: str | None = None

    @model_validator(mode="after")
    def _one_text(self) -> CaseForm:
        if sum(given is not None for given in (self.sql, self.shell, self.operation)) != 1:
            raise ValueError("a case has either sql:, shell: or operation:")
        if self.shell is None and self.stdin is not None:
            raise ValueError("stdin: belongs to shell:")
        return self


class RuleForm(Strict):
    """One rule. `when` is CEL over the facts of docs/policy.md; allow rules also have `effect`."""

    id: Name
    title: Text
    match: MatchForm | None = None
    when: Annotated[str | None, Field(min_length=1, max_length=10_000)] = None
    decide: Literal["allow", "deny", "review"]
    review: ReviewForm | None = None
    risk: Literal["low", "high", "critical"] | None = None
    message: Text | None = None
    hint: Text | None = None
    mode: Literal["enforce", "observe"] = "enforce"
    opaque: Annotated[bool, Field(description="allow rules: also allows what could not be resolved")] = False
    cases: list[CaseForm] = []

    @model_validator(mode="after")
    def _fits(self) -> RuleForm:
        if self.decide != "review" and self.review is not None:
            raise ValueError("review: belongs to a rule with decide: review")
        if self.decide != "review" and self.risk is not None:
            raise ValueError("risk: belongs to a rule with decide: review")
        if self.decide != "allow" and self.opaque:
            raise ValueError("opaque: belongs to a rule with decide: allow")
        if self.review is not None and self.review.step_up == "passkey" and self.risk not in (None, "critical"):
            raise ValueError("step_up: passkey makes the rule critical; remove risk: or write critical")
        return self


class DefaultForm(Strict):
    """What happens to an effect that no rule decides. One for the whole installation, always a review."""

    review: ReviewForm


class PolicyForm(Strict):
    """A policy file: a pack of rules, or the site's own choices, or both."""

    version: Literal[1]
    pack: Name | None = None
    title: Text | None = None
    floor: Annotated[bool, Field(description="deny rules that can't be switched to observe")] = False
    mode: Literal["enforce", "observe"] = "enforce"
    packs: Annotated[list[Name], Field(description="shipped packs to load")] = []
    access: list[AccessForm] = []
    default: DefaultForm | None = None
    rules: list[RuleForm] = []
    cases: list[CaseForm] = []

    @model_validator(mode="after")
    def _fits(self) -> PolicyForm:
        if self.rules and self.pack is None:
            raise ValueError("rules need pack: a name, which is the first half of every rule's name")
        if self.mode == "observe" and self.pack is None:
            raise ValueError("mode: belongs to a pack")
        if self.floor:
            if any(rule.decide != "deny" for rule in self.rules):
                raise ValueError("a pack with floor: true holds deny rules only")
            if self.mode == "observe" or any(rule.mode == "observe" for rule in self.rules):
                raise ValueError("mode: observe never applies to a deny pack (floor: true)")
        return self


KINDS = frozenset(str(kind) for kind in Kind)


def read_form(document: Document) -> PolicyForm:
    """Validate a document whole. Raise PolicyError with every problem, each with place and caret."""
    if not isinstance(document.data, dict):
        raise PolicyError(document.place(()).say("a policy file is a mapping that begins with `version: 1`"))
    try:
        return PolicyForm.model_validate(document.data)
    except ValidationError as error:
        problems = [_explain(document, dict(p)) for p in error.errors(include_input=False, include_url=False)]
        raise PolicyError("\n".join(dict.fromkeys(problems))) from None


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a policy file."""
    schema = PolicyForm.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Interlock policy file"}


def _explain(document: Document, problem: dict[str, Any]) -> str:
    path: Path = tuple(problem["loc"])
    kind = problem["type"]
    if kind == "extra_forbidden":
        key = str(path[-1])
        near = difflib.get_close_matches(key, _known_keys(path[:-1]), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return document.key_place(path).say(f"unknown key {key!r}{hint}")
    if kind == "missing":
        return document.place(path[:-1]).say(f"{path[-1]!r} is missing")
    return document.place(path).say(problem["msg"].removeprefix("Value error, "))


_FORMS: dict[str, type[Strict]] = {
    "": PolicyForm, "rules": RuleForm, "access": AccessForm, "cases": CaseForm, "default": DefaultForm,
    "match": MatchForm, "review": ReviewForm, "needs": NeedForm, "who": WhoForm, "as": AsForm,
}  # fmt: skip


def _known_keys(around: Path) -> list[str]:
    """Return the keys that may stand at a place: those of the form that its nearest key names."""
    nearest = next((part for part in reversed(around) if isinstance(part, str)), "")
    form = _FORMS.get(nearest, PolicyForm)
    return sorted(info.alias or name for name, info in form.model_fields.items())
