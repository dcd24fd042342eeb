"""Puts a policy together from its documents: forms into rules, conditions compiled, names checked. Pure.

The exact bytes of everything loaded go into one bundle, whose SHA-256 is the policy's digest in every decision; the
transcript keeps the bundle (evidence.md, policies/<sha256>.json), and the same policy can be built from it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import PurePath

from interlock.commands.model import Command, HeldInput, Kind, ShellContext, SqlContext, Wire
from interlock.commands.pushes import kind_of
from interlock.errors import PolicyError
from interlock.identity import principal as who
from interlock.policy import lint, packs
from interlock.policy.condition import Condition, ConditionError, compile_condition
from interlock.policy.document import Document
from interlock.policy.document import Path as Where
from interlock.policy.engine import DEFAULT_TERMS, PolicySet
from interlock.policy.model import Need, ReviewTerms, Risk, StepUp, Target, Verdict
from interlock.policy.rule import ANY, AccessRule, Case, Match, Rule, Targets, Who
from interlock.policy.schema import (
    AccessForm,
    CaseForm,
    MatchForm,
    PolicyForm,
    ReviewForm,
    RuleForm,
    WhoForm,
    read_form,
)


def assemble(documents: Sequence[Document], *, terms: ReviewTerms | None = None) -> PolicySet:
    """Build a policy from documents. Raise PolicyError with every problem."""
    problems: list[str] = []
    loaded: list[_File] = []
    for document in documents:
        try:
            loaded.append(_File(document, read_form(document)))
        except PolicyError as error:
            problems.append(str(error))
    problems += _duplicate_packs(loaded)
    default, more = _default(loaded, terms or DEFAULT_TERMS)
    problems += more
    rules: list[Rule] = []
    access: list[AccessRule] = []
    cases: list[Case] = []
    for file in loaded:
        compiled, more = _rules(file, default)
        rules += compiled
        problems += more
        access += _access(file)
        cases += _cases(file)
    problems += _unknown_rules(cases, rules, loaded)
    if problems:
        raise PolicyError("\n".join(problems))
    bundle = _bundle(documents, terms or DEFAULT_TERMS)
    digest = sha256(bundle).hexdigest()
    return PolicySet(
        rules=rules, access=access, default=default, digest=f"sha256:{digest}", files={digest: bundle},
        warnings=lint.warnings(rules, access, cases), cases=cases,
    )  # fmt: skip


def _bundle(documents: Sequence[Document], terms: ReviewTerms) -> bytes:
    """Return the bytes that the digest is of. File names without folders: a digest does not depend on the machine."""
    files = sorted(({"name": PurePath(d.name).name, "text": d.text} for d in documents), key=lambda f: (f["name"], f["text"]))
    return json.dumps(
        {"v": 1, "terms": asdict(terms), "files": files}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()


@dataclass(frozen=True, slots=True)
class _File:
    document: Document
    form: PolicyForm

    @property
    def name(self) -> str:
        return PurePath(self.document.name).name

    def line(self, where: Where) -> str:
        place = self.document.place(where)
        return f"{place.file}:{place.line}"


def _duplicate_packs(files: list[_File]) -> list[str]:
    seen: dict[str, _File] = {}
    problems: list[str] = []
    for file in files:
        pack = file.form.pack
        if pack is None:
            continue
        if pack in packs.DENY_PACKS and not file.form.floor:
            problems.append(file.document.place(("pack",)).say(f"{pack} is a deny pack; it needs floor: true"))
        if pack in seen:
            first = seen[pack].document.place(("pack",))
            problems.append(
                file.document.place(("pack",)).say(f"pack {pack!r} is loaded twice; first: {first.file}:{first.line}")
            )
        seen.setdefault(pack, file)
    return problems


def _default(files: list[_File], terms: ReviewTerms) -> tuple[ReviewTerms, list[str]]:
    given = [file for file in files if file.form.default is not None]
    problems = [file.document.key_place(("default",)).say("a second default:; an installation has one") for file in given[1:]]
    if not given or given[0].form.default is None:
        return terms, problems
    return _terms(given[0].form.default.review, terms), problems


def _terms(form: ReviewForm | None, base: ReviewTerms, risk: str | None = None) -> ReviewTerms:
    terms = replace(base, risk=Risk(risk)) if risk else base
    if form is None:
        return terms
    if form.needs:
        first, *also = (Need(tuple(need.groups), need.quorum) for need in form.needs)
        terms = replace(terms, groups=first.groups, quorum=first.quorum, also=tuple(also))
    elif form.groups or form.quorum:
        groups = tuple(form.groups) if form.groups else terms.groups
        terms = replace(terms, groups=groups, quorum=form.quorum or terms.quorum, also=() if form.groups else terms.also)
    terms = replace(
        terms,
        expires=form.expires or terms.expires,
        hold=form.hold or terms.hold,
        returns=terms.returns if form.return_ is None else form.return_,
        step_up=StepUp(form.step_up) if form.step_up else terms.step_up,
        scopes=tuple(form.scopes) if form.scopes else terms.scopes,
        escalate=form.escalate or terms.escalate,
    )
    if terms.step_up is StepUp.PASSKEY:
        terms = replace(terms, risk=Risk.CRITICAL, scopes=("once",))
    return terms


def _rules(file: _File, default: ReviewTerms) -> tuple[list[Rule], list[str]]:
    rules: list[Rule] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for index, form in enumerate(file.form.rules):
        where: Where = ("rules", index)
        if form.id in seen:
            first = file.document.place(("rules", seen[form.id], "id"))
            problems.append(
                file.document.place((*where, "id")).say(f"rule {form.id!r} is here twice; the first is in line {first.line}")
            )
            continue
        seen[form.id] = index
        try:
            condition = _condition(file.document, where, form)
        except PolicyError as error:
            problems.append(str(error))
            continue
        verdict = Verdict(form.decide)
        rules.append(
            Rule(
                name=f"{file.form.pack}/{form.id}", title=form.title, verdict=verdict, match=_match(form.match),
                condition=condition, message=form.message or form.title, hint=form.hint or "",
                terms=_terms(form.review, default, form.risk) if verdict is Verdict.REVIEW else None,
                observe="observe" in (form.mode, file.form.mode), opaque=form.opaque, place=file.line(where),
            )
        )  # fmt: skip
    return rules, problems


def _condition(document: Document, where: Where, form: RuleForm) -> Condition | None:
    if form.when is None:
        return None
    try:
        return compile_condition(form.when, per_effect=form.decide == "allow")
    except ConditionError as error:
        place = document.inside((*where, "when"), error.line, error.column)
        raise PolicyError(place.say(f"rule {form.id!r}: {error.message}")) from None


def _match(form: MatchForm | None) -> Match:
    if form is None:
        return Match()
    return Match(
        protocol=form.protocol or "",
        target=None if form.target is None else _targets(form.target),
        who=None if form.who is None else _who(form.who),
        verbs=frozenset(form.verbs or ()),
    )


def _who(form: WhoForm) -> Who:
    return Who(
        frozenset(form.groups or ()), frozenset(form.handles or ()), frozenset(form.subjects or ()), frozenset(form.kinds or ())
    )


def _targets(value: object) -> Targets:
    match value:
        case "*":
            return Targets(every=True)
        case list():
            return Targets(names=frozenset(value))
        case dict():
            return Targets(labels={k: frozenset((v,) if isinstance(v, str) else v) for k, v in value.items()})
        case _:
            raise PolicyError("targets of an unknown shape")  # the schema lets nothing else through


def _access(file: _File) -> list[AccessRule]:
    return [_access_rule(file, index, form) for index, form in enumerate(file.form.access)]


def _access_rule(file: _File, index: int, form: AccessForm) -> AccessRule:
    return AccessRule(
        name=f"{file.name}:access[{index}]", who=_who(form.who), targets=_targets(form.targets),
        accounts=frozenset(form.accounts or ()), roles=frozenset(form.roles or ()),
        databases=frozenset(form.databases or (ANY,)), place=file.line(("access", index)),
    )  # fmt: skip


# -- cases ----------------------------------------------------------------------------------------------------------------


def _cases(file: _File) -> list[Case]:
    pack = file.form.pack or ""
    cases = [_case(file, form, pack, ("cases", i)) for i, form in enumerate(file.form.cases)]
    for r, rule in enumerate(file.form.rules):
        cases += [_case(file, form, f"{pack}/{rule.id}", ("rules", r, "cases", i)) for i, form in enumerate(rule.cases)]
    return cases


def _case(file: _File, form: CaseForm, scope: str, where: Where) -> Case:
    labels: Mapping[str, str] = {"env": "prod"} if form.target is None else form.target
    asking = who.Principal(
        identity=who.Identity("case", form.as_.handle), handle=form.as_.handle, kind=who.Kind(form.as_.kind),
        credential=who.Credential(who.CredentialKind.TOKEN, "case"), groups=frozenset(form.as_.groups),
    )  # fmt: skip
    if form.sql is not None:
        target = Target("case", "postgres", labels, role=form.role, database="case")
        command = Command(Wire.POSTGRES, Kind.QUERY, form.sql.encode(), context=SqlContext(assume_tables=True))
    else:
        target = Target("case", "ssh", labels, account=form.account)
        text = (form.shell or form.operation or "").encode()
        stdin = None if form.stdin is None else HeldInput(form.stdin.encode())
        kind = Kind.EXEC if form.operation is None else kind_of(form.operation)
        command = Command(Wire.SSH, kind, text, stdin=stdin, context=ShellContext("bash"))
    case = Case(scope, command, asking, target, form.expect, rule=form.rule or "", place=file.line(where))
    return case if form.at is None else replace(case, at=form.at)


def _unknown_rules(cases: list[Case], rules: list[Rule], files: list[_File]) -> list[str]:
    """A case that names a rule which does not exist would never fail for the right reason."""
    known = {rule.name for rule in rules} | {
        "default",
        "interlock/unreadable",
        "interlock/too-many-effects",
    }
    broken = {rule.id for file in files for rule in file.form.rules}
    return [
        f"{case.place}: no rule {case.rule!r} in this policy"
        for case in cases
        if case.rule and case.rule not in known and case.rule.partition("/")[2] not in broken
    ]
