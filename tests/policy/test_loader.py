"""Loading: whole or not at all, every problem with its place, and nothing in YAML that could surprise or exhaust."""

from __future__ import annotations

import time
from pathlib import Path
from textwrap import dedent

import pytest

from interlock.errors import PolicyError
from interlock.policy import packs
from interlock.policy.document import MAX_BYTES, MAX_DEPTH, Document
from interlock.policy.engine import PolicySet
from interlock.policy.loader import load
from interlock.policy.source import LivePolicy

PACK = "version: 1\npack: p\nrules:\n"


def loaded(tmp_path: Path, text: str) -> PolicySet:
    path = tmp_path / "site.yaml"
    path.write_text(dedent(text))
    return load([path])


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        loaded(tmp_path, text)
    return str(caught.value)


def caret(message: str) -> str:
    """Return what stands in the source line from the caret on."""
    lines = message.splitlines()
    row = next(i for i, line in enumerate(lines) if line.strip("| ") == "^")
    return lines[row - 1][lines[row].index("^") :]


@pytest.mark.parametrize(
    ("when", "message", "at"),
    [
        ('effects.exists(e, e.vreb == "delete")', "undefined field 'vreb'.*did you mean 'verb'", '.vreb == "delete"'),
        ('efects.exists(e, e.verb == "delete")', "undeclared reference to 'efects'.*did you mean 'effects'", "efects"),
        ("command.text == 1", "no matching overload", "== 1"),
        ("time.hour", "must be true or false; this is INT", "time.hour"),
        ("effects.exists(e, ", "Syntax error", ""),
        ('effect.verb == "read"', "only allow rules see one effect", ".verb"),
        ('effects.exists(e, e.verb == "delte")', "'delte' is never a value of verb; did you mean 'delete'", '"delte"'),
        ('effects.exists(e, e.verb in ["read", "wirte"])', "'wirte' is never a value of verb", '"wirte"'),
        ('effects.exists(e, "reed" == e.verb)', "'reed' is never a value of verb", '"reed"'),
        ('time.weekday == "mon"', "'mon' is never a value of weekday; did you mean 'monday'", '"mon"'),
        ('principal.kind != "robot"', "'robot' is never a value of kind", '"robot"'),
        ('command.kind == "agent"', "'agent' is never a value of kind", '"agent"'),
        ('command.text.matches("[")', "does not compile", '"["'),
        ('command.text.matches(r"(?=x)")', "does not compile", 'r"(?=x)"'),
        ("dyn(1) == 1", "dyn", "dyn(1)"),
        ('command.text.startsWith(b"x")', "no matching overload", "("),
    ],
)
def test_a_mistake_in_a_condition_stops_the_load_at_its_place(tmp_path: Path, when: str, message: str, at: str) -> None:
    import re

    said = refused(tmp_path, PACK + f"  - id: a\n    title: A\n    when: {when}\n    decide: deny\n")
    assert said.startswith(f"{tmp_path}/site.yaml:6:")
    assert re.search(message, said), said
    if at:
        assert caret(said).startswith(at), said


def test_a_block_condition_names_its_own_line(tmp_path: Path) -> None:
    said = refused(
        tmp_path, PACK + "  - id: a\n    title: A\n    decide: deny\n    when: |\n      true &&\n      target.nmae == 'x'\n"
    )
    assert said.startswith(f"{tmp_path}/site.yaml:9:13: rule 'a': undefined field 'nmae'")
    assert caret(said).startswith(".nmae")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\n", r"1:10: Input should be 1"),
        ("pack: p\n", r"'version' is missing"),
        ("version: 1\nrulez: []\n", r"2:1: unknown key 'rulez'; did you mean 'rules'"),
        (PACK + "  - {id: a, title: A, decide: deny, whem: x}\n", r"4:37: unknown key 'whem'; did you mean 'when'"),
        (PACK + "  - {id: a, title: A, decide: block}\n", r"4:31: Input should be 'allow', 'deny' or 'review'"),
        (PACK + "  - {id: A, title: A, decide: deny}\n", r"4:10: String should match pattern"),
        (PACK + "  - {id: a, title: A, decide: deny}\n  - {id: a, title: B, decide: deny}\n", r"5:10: rule 'a' is here twice"),
        (PACK + "  - {id: a, title: A, decide: deny, decide: allow}\n", r"4:37: 'decide' is here twice"),
        (PACK + "  - {id: a, title: A, decide: deny, review: {}}\n", r"review: belongs to a rule with decide: review"),
        (PACK + "  - {id: a, title: A, decide: deny, opaque: true}\n", r"opaque: belongs to a rule with decide: allow"),
        (PACK + "  - {id: a, title: A, decide: allow, risk: low}\n", r"risk: belongs to a rule with decide: review"),
        (PACK + "  - {id: a, title: A, decide: review, review: {expires: 15 minutes}}\n", r"write a duration as"),
        (PACK + "  - {id: a, title: A, decide: review, review: {expires: 0}}\n", r"write a duration as"),
        (PACK + "  - {id: a, title: A, decide: review, review: {quorum: 0}}\n", r"greater than or equal to 1"),
        (PACK + "  - {id: a, title: A, decide: review, review: {groups: []}}\n", r"at least 1 item"),
        (PACK + "  - {id: a, title: A, decide: review, review: {scopes: [exact]}}\n", r"once is always among them"),
        (PACK + "  - {id: a, title: A, decide: review, risk: low, review: {step_up: passkey}}\n", r"makes the rule critical"),
        (PACK + "  - {id: a, title: A, decide: deny, match: {verbs: [delte]}}\n", r"'delte' is no verb; did you mean 'delete'"),
        (PACK + "  - {id: a, title: A, decide: deny, match: {target: {}}}\n", r"give labels"),
        (PACK + "  - {id: a, title: A, decide: deny, match: {target: prod}}\n", r"give labels"),
        (
            PACK + "  - {id: a, title: A, decide: deny, match: {target: {env: yes}}}\n",
            r"YAML reads yes as bool; put it",
        ),
        (PACK + "  - {id: a, title: A, decide: deny, match: {target: {tier: 1}}}\n", r"label 'tier': give a text"),
        (PACK + "  - {id: a, title: A, decide: deny, cases: [{expect: deny}]}\n", r"either sql:, shell: or operation:"),
        (
            PACK + "  - {id: a, title: A, decide: deny, cases: [{sql: x, expect: block}]}\n",
            r"Input should be 'allow', .* or 'none'",
        ),
        (PACK + "  - {id: a, title: A, decide: deny, cases: [{sql: x, expect: deny, at: '14:00'}]}\n", r"a time with its zone"),
        ("version: 1\ncases:\n  - {sql: x, expect: deny, rule: p/nope}\n", r"3: no rule 'p/nope'"),
        ("version: 1\nrules: [{id: a, title: A, decide: deny}]\n", r"rules need pack:"),
        ("version: 1\npacks: [postgress]\n", r"2:9: no shipped pack 'postgress'; did you mean 'postgres"),
        ("version: 1\npacks: [../../etc/passwd]\n", r"no shipped pack"),
        ("version: 1\naccess: [{who: {}, targets: {env: prod}, accounts: [x]}]\n", r"name somebody"),
        ("version: 1\naccess: [{who: {groups: []}, targets: {env: prod}, accounts: [x]}]\n", r"at least 1 item"),
        ("version: 1\naccess: [{who: {groups: [x]}, targets: {env: prod}}]\n", r"opens nothing"),
        ("version: 1\naccess: [{who: {groups: [x]}, accounts: [x]}]\n", r"'targets' is missing"),
        ("version: 1\naccess: [{who: {groups: [x]}, targets: {}, accounts: [x]}]\n", r"give labels"),
        ("version: 1\ndefault: {allow: true}\n", r"unknown key 'allow'"),
        ("version: 1\ndefault: {review: }\n", r"no value; remove the key"),
        ("version: 1\npack: p\nfloor: true\nmode: observe\n", r"observe never applies to a deny pack"),
        ("version: 1\npack: p\nfloor: true\nrules: [{id: a, title: A, decide: deny, mode: observe}]\n", r"observe never applies"),
        ("version: 1\npack: p\nfloor: true\nrules: [{id: a, title: A, decide: review}]\n", r"deny rules only"),
        ("version: 1\npack: linux-deny\nrules: [{id: a, title: A, decide: deny, mode: observe}]\n", r"needs floor: true"),
        ("version: 1\nmode: observe\n", r"belongs to a pack"),
        ("- version: 1\n", r"a policy file is a mapping"),
        ("", r"empty"),
        ("a: [b\n", r"2:1: not YAML"),
        ("version: &x 1\n", r"1:10: anchors"),
        ("version: *x\n", r"aliases"),
        ("version: !!python/object/apply:os.system [id]\n", r"tags"),
        ("version: !!int '1'\n", r"tags"),
        ("version: 1\n---\nversion: 1\n", r"2:1: one document a file"),
        ("version: 1\n<<: {pack: p}\n", r"a key must be plain text"),
        ("version: 1\n? [a]\n: b\n", r"a key must be plain text"),
        ("version: 0x1\n", r"YAML reads 0x1 as int; put it in quotes"),
        ("version: 01\n", r"YAML reads 01 as int"),
        ("version: 1\npack: 2026-01-01\n", r"YAML reads 2026-01-01 as timestamp"),
    ],
)
def test_what_is_refused_and_where(tmp_path: Path, text: str, message: str) -> None:
    import re

    said = refused(tmp_path, text)
    assert re.search(message, said), said
    assert said.startswith(f"{tmp_path}/site.yaml:"), said


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nrulez: []\npck: p\n")
    (tmp_path / "b.yaml").write_text(
        PACK + "  - {id: a, title: A, decide: deny, when: nope}\n  - {id: b, title: B, decide: deny, when: '1'}\n"
    )
    with pytest.raises(PolicyError) as caught:
        load([tmp_path])
    places = [line.split(": ")[0] for line in str(caught.value).splitlines() if line.startswith(str(tmp_path))]
    assert [place.rsplit("/", 1)[1] for place in places] == ["a.yaml:2:1", "a.yaml:3:1", "b.yaml:4:43", "b.yaml:5:44"]


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "content",
    [
        bomb().encode(),
        b"[" * 500_000,
        b"{a: " * 200_000,
        b"- " * 400_000,
        b"x" * (MAX_BYTES + 1),
        b"version: 1\n" + b"".join(b"k%d: 1\n" % i for i in range(99_000)),
        b"\xff\xfe",
        b"version: 1\0",
        b"version: \x07",
        b"%YAML 9.9\n---\nversion: 1",
        "version: \u202e1".encode(),
    ],
    ids=["alias bomb", "lists", "maps", "dashes", "large", "many keys", "utf-16", "nul", "bell", "yaml 9", "bidi"],
)
def test_hostile_yaml_is_an_error_and_cheap(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    began = time.monotonic()
    with pytest.raises(PolicyError) as caught:
        load([path])
    assert time.monotonic() - began < 5
    assert len(str(caught.value)) < 20_000_000


def test_nesting_is_bounded_exactly() -> None:
    Document("x", b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(PolicyError, match="nested deeper"):
        Document("x", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_a_huge_policy_loads(tmp_path: Path) -> None:
    when = 'effects.exists(e, e.verb == "delete" && e.object.startsWith("/srv/{}"))'
    (tmp_path / "big.yaml").write_text(
        PACK + "".join(f"  - {{id: r{i}, title: R, decide: deny, when: '{when.format(i)}'}}\n" for i in range(1000))
    )
    began = time.monotonic()
    assert len(load([tmp_path]).rules) == 1000
    assert time.monotonic() - began < 20


def test_files_folders_and_missing_ones(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="can't be read: No such file"):
        load([tmp_path / "nope.yaml"])
    with pytest.raises(PolicyError, match=r"no \*\.yaml in this folder"):
        load([tmp_path])
    with pytest.raises(PolicyError, match="no policy files"):
        load([])
    (tmp_path / "a.yaml").write_text("version: 1\n")
    (tmp_path / "notes.txt").write_text("no policy")
    assert load([tmp_path, tmp_path / "a.yaml"]).digest == load([tmp_path]).digest


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "b.yaml")
    (tmp_path / "b.yaml").symlink_to(tmp_path / "a.yaml")
    with pytest.raises(PolicyError, match="can't be read"):
        load([tmp_path])


def test_the_permissive_policy_of_the_tests_allows_what_no_shipped_pack_does() -> None:
    """The third-party suites run under it: no deny pack, opaque allowed. It says so when it is checked."""
    policy = load([Path(__file__).parents[1] / "data" / "policies" / "permissive.yaml"])
    assert [rule.opaque for rule in policy.rules] == [True]
    assert any("nobody knows what they would do" in warning for warning in policy.warnings)
    assert any("allows everything" in warning for warning in policy.warnings)


def test_a_pack_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(PACK + "  - {id: a, title: A, decide: deny}\n")
    (tmp_path / "b.yaml").write_text(PACK + "  - {id: b, title: B, decide: deny}\n")
    with pytest.raises(PolicyError, match=r"b\.yaml:2:7: pack 'p' is loaded twice; first: .*a\.yaml:2"):
        load([tmp_path])


def test_shipped_packs_by_name(tmp_path: Path) -> None:
    named = loaded(tmp_path, "version: 1\npacks: [postgres, postgres-deny]\n")
    assert {rule.pack for rule in named.rules} == {"postgres", "postgres-deny"}
    twice = load([tmp_path / "site.yaml", packs.shipped() / "postgres.yaml"])
    assert len(twice.rules) == len(named.rules)


class TestReload:
    def test_swap_and_keep(self, tmp_path: Path) -> None:
        path = tmp_path / "site.yaml"
        path.write_text(PACK + "  - {id: a, title: A, decide: deny}\n")
        live = LivePolicy([path])
        first = live.current
        assert live.reload() is first

        path.write_text(PACK + "  - {id: a, title: A, decide: dny}\n")
        with pytest.raises(PolicyError):
            live.reload()
        assert live.current is first

        path.unlink()
        with pytest.raises(PolicyError):
            live.reload()
        assert live.current is first

        path.write_text(PACK + "  - {id: a, title: A, decide: allow}\n")
        second = live.reload()
        assert live.current is second
        assert second.digest != first.digest
        assert set(live.files()) == {first.digest.removeprefix("sha256:"), second.digest.removeprefix("sha256:")}

    def test_nothing_starts_without_a_policy(self, tmp_path: Path) -> None:
        with pytest.raises(PolicyError):
            LivePolicy([tmp_path / "nope.yaml"])


def two(first: str, second: str) -> str:
    return f"  - {{id: a, title: A, {first}}}\n  - {{id: b, title: B, {second}}}\n"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("  - {id: a, title: A, decide: allow}\n", "p/a allows everything on every target"),
        ("  - {id: a, title: A, decide: deny}\n", "p/a denies everything"),
        ("  - {id: a, title: A, decide: allow, opaque: true}\n", "nobody knows what they would do"),
        ("  - {id: a, title: A, decide: deny, when: 1 == 1}\n", "reads no fact"),
        ("  - {id: a, title: A, decide: deny, mode: observe}\n", "p/a is in observe mode"),
        ('  - {id: a, title: A, decide: allow, when: command.text == "x"}\n', "looks at the command and not at `effect`"),
        ("  - {id: a, title: A, decide: allow, when: effects.size() == 1}\n", "only the effect being judged"),
        (two("decide: deny, when: time.hour < 6", "decide: deny, when: time.hour  < 6"), "p/b says the same as p/a"),
        (two("decide: review, when: time.hour < 6", "decide: deny, when: time.hour < 6"), "p/a is never reached: p/b"),
        ("  - {id: a, title: A, decide: deny}\n", "p/a has no case that hits"),
        ("  - {id: a, title: A, decide: deny}\n", "p/a has no near miss"),
        ("  - {id: a, title: A, decide: deny}\n", "nobody can open any target"),
    ],
)
def test_lint(tmp_path: Path, rules: str, message: str) -> None:
    assert any(message in warning for warning in loaded(tmp_path, PACK + rules).warnings)
