"""What Slack shows of a request: within its limits whatever the request, inert whatever the text, whole or not approvable."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block as SdkBlock

from harness.budget import examples
from harness.people import BOB, CAROL
from harness.requests import ANALYSIS, SHELL, SQL, START, TERMS, draft
from harness.slack import buttons_of, misshapen, misshapen_form, text_of
from interlock.approvals import desk
from interlock.approvals.channels.slack import blocks, forms
from interlock.approvals.model import ApprovalRequest, Presence, RequestDraft, Scope, State, Vote, VoteVerdict
from interlock.approvals.portrait import chat_portrait
from interlock.commands.model import BindValue, Effect, HeldInput, Opaque
from interlock.policy.model import Risk, StepUp

LINK = "https://interlock.example/console/approvals/req_1"


def asked(of: RequestDraft | None = None, **changes: Any) -> ApprovalRequest:
    request = desk.open_request(of or draft(), request_id="req_1", nonce="ab" * 16, match="hmac:x", now=START)
    return replace(request, **changes)


def shown(request: ApprovalRequest, *, link: str = LINK) -> list[blocks.Block]:
    message = blocks.message(request, link=link)
    assert misshapen(message) == ""
    for block in message:  # slack-sdk knows limits too, from another hand than ours
        parsed = SdkBlock.parse(json.loads(json.dumps(block)))
        assert parsed is not None
        parsed.validate_json()
    return message


def offers(message: list[blocks.Block]) -> list[str]:
    return buttons_of({"blocks": message})


def vote(who: Any, verdict: VoteVerdict = VoteVerdict.APPROVE, **changes: Any) -> Vote:
    return Vote(who, str(who.subject), "slack", "T/U", verdict, "sha256:x", START, groups=("sre",), **changes)


# -- any request -----------------------------------------------------------------------------------------------------------

hostile = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="\u202e\u200b<!@#>|*_`~&;:/\n\t ax", max_size=4_000),
    st.sampled_from(
        ["<!channel>", "<https://evil.example|ok>", "```", "*x*", ":+1:", "&lt;", "\x1b[2J", "a" * 20_000, "\n" * 500]
    ),
)
values = st.builds(
    BindValue, st.one_of(st.none(), st.binary(max_size=50)), st.just(0), st.just(25), st.one_of(st.none(), hostile)
)
commands = st.one_of(
    st.builds(
        lambda text, stdin, env: replace(SHELL, text=text, stdin=stdin, env=tuple(env)),
        st.one_of(st.binary(min_size=1, max_size=2_000), hostile.map(lambda t: t.encode("utf-8", "replace") or b"x")),
        st.one_of(st.none(), st.binary(max_size=3_000).map(HeldInput)),
        st.lists(st.tuples(st.sampled_from(["LANG", "COLORTERM"]), hostile), max_size=3),
    ),
    st.builds(
        lambda text, binds: replace(SQL, text=text.encode("utf-8", "replace") or b"x", binds=tuple(binds)),
        hostile,
        st.lists(values, max_size=25),
    ),
)
analyses = st.builds(
    lambda names, opaque, notes: replace(
        ANALYSIS,
        effects=tuple(Effect("delete", name, program="rm", argv=("rm", name)) for name in names),
        opaque=tuple(Opaque("command-substitution", text, 0, 1) for text in opaque),
        notes=tuple(notes),
    ),
    st.lists(hostile, max_size=40), st.lists(hostile, max_size=5), st.lists(hostile, max_size=5),
)  # fmt: skip
requests = st.builds(
    lambda command, analysis, said, facts, groups, state, reasons: asked(
        draft(command, analysis=analysis, said=said, facts=tuple(facts), terms=replace(TERMS, groups=tuple(groups), quorum=2)),
        state=state,
        votes=tuple(vote(BOB, reason=reason) for reason in reasons),
    ),
    commands, analyses, hostile, st.lists(hostile, max_size=5), st.lists(hostile, min_size=1, max_size=10),
    st.sampled_from(State), st.lists(hostile, max_size=12),
)  # fmt: skip


@settings(max_examples=examples(150), deadline=None)
@given(request=requests)
def test_any_request_fits_and_is_either_whole_or_not_approvable(request: ApprovalRequest) -> None:
    message = shown(request)
    offered = blocks.APPROVE in offers(message)
    assert offered <= (request.state is State.PENDING)
    if request.state is State.PENDING:
        assert offered == blocks.approvable(request)  # what a click is checked against is what the message offered
    if offered:
        view, text = chat_portrait(request), text_of(message)
        assert view.complete
        stdin = view.stdin.lines if view.stdin is not None else ()
        for part in (*view.command.lines, *stdin, *view.binds, *view.surroundings, *view.effects, *view.opaque, *view.notes):
            assert part in text
    assert misshapen_form(forms.deny_form("x", blocks.summary(request))) == ""


@settings(max_examples=examples(100), deadline=None)
@given(text=hostile)
def test_nothing_that_people_wrote_leaves_rich_text(text: str) -> None:
    """The types that Slack reads markup in (mrkdwn, markdown, sections, contexts) do not occur at all."""
    said = replace(draft(replace(SHELL, text=text.encode("utf-8", "replace") or b"x")), said=text, facts=(text,))
    body = json.dumps(shown(asked(said, votes=(vote(BOB, reason=text),))))
    for kind in (
        "mrkdwn",
        "markdown",
        "section",
        "context",
        "user",
        "usergroup",
        "broadcast",
        "channel",
        "emoji",
        "link",
        "date",
    ):
        assert f'"type": "{kind}"' not in body


# -- what is shown ---------------------------------------------------------------------------------------------------------


def test_a_message_says_who_for_whom_where_why_and_what() -> None:
    text = text_of(shown(asked(replace(draft(), said="cleaning up", facts=("about 12 rows",)))))
    for part in (
        "A command waits for you", "claude-ci", "owned by alice", "web-1 as deploy", "linux/recursive-delete: It deletes a tree.",
        "sudo rm -rf /var/lib/pg", "Its input", "yes", "about 12 rows", "Written by the agent, checked by nobody", "cleaning up",
        "one person of sre", "2026-01-02 02:28 UTC", "req_1",
    ):  # fmt: skip
        assert part in text


def test_buttons_carry_only_the_id_and_the_nonce() -> None:
    message = shown(asked())
    values = [b.get("value") for block in message if block["type"] == "actions" for b in block["elements"]]
    assert values == [f"req_1 {'ab' * 16}", f"req_1 {'ab' * 16}", None]


@pytest.mark.parametrize(
    ("scopes", "offered"),
    [(("once",), ["approve"]), (("once", "exact"), ["choose"]), (("exact",), ["choose"]), (("rule_in_session",), [])],
)
def test_where_a_rule_offers_scopes_the_button_asks_and_where_none_is_left_there_is_none(
    scopes: tuple[str, ...], offered: list[str]
) -> None:
    """The command has input, so the scope that is bound to its words can't be given."""
    request = asked(draft(terms=replace(TERMS, scopes=scopes)))
    assert offers(shown(request)) == [*offered, "deny", "open"]
    assert blocks.approvable(request) == bool(offered)


@pytest.mark.parametrize("terms", [replace(TERMS, risk=Risk.CRITICAL), replace(TERMS, step_up=StepUp.PASSKEY)])
def test_a_critical_rule_offers_review_and_sign_and_deny(terms: Any) -> None:
    message = shown(asked(draft(terms=terms)))
    assert offers(message) == ["deny", "open"]
    assert "Review and sign" in text_of(message)


def test_what_does_not_fit_is_answered_on_the_page() -> None:
    long = replace(SHELL, text=b"\n".join(b"echo %d" % n for n in range(400)))
    message = shown(asked(draft(long)))
    assert offers(message) == ["deny", "open"]
    assert "This is not all of it" in text_of(message) and "See everything" in text_of(message)


def test_deceptions_are_visible_and_said() -> None:
    message = shown(asked(draft(replace(SHELL, text="echo safe\u202e; rm -rf /".encode()))))
    text = text_of(message)
    assert "\u202e" not in json.dumps(message, ensure_ascii=False) and "U+202E" in text and "Careful" in text


def test_a_quorum_says_how_far_it_is() -> None:
    terms = replace(TERMS, quorum=2)
    text = text_of(shown(asked(draft(terms=terms), votes=(vote(BOB),))))
    assert "2 different people of sre" in text and "1 of 2 approvals" in text and "bob approved it" in text


def test_an_approval_that_is_not_used_yet_can_still_be_denied() -> None:
    message = shown(asked(state=State.APPROVED, votes=(vote(CAROL),)))
    assert offers(message) == ["deny", "open"]


@pytest.mark.parametrize("state", [s for s in State if s.terminal])
def test_what_is_over_has_no_answers(state: State) -> None:
    assert offers(shown(asked(state=state))) == ["open"]
    assert offers(shown(asked(state=state), link="")) == []


def test_an_agent_that_left_is_said_to_have_left() -> None:
    assert "has left" in text_of(shown(asked(presence=Presence.RETURNED)))


def test_an_escalated_request_says_so() -> None:
    assert "more people are told" in text_of(shown(asked(escalated_at=START)))


def test_the_line_on_a_locked_phone_never_has_the_command() -> None:
    assert blocks.summary(asked()) == "claude-ci waits for an answer at web-1"
    assert "Denied" in blocks.summary(asked(state=State.DENIED))


# -- forms -----------------------------------------------------------------------------------------------------------------


def test_the_form_offers_each_scope_in_the_words_of_the_desk() -> None:
    scopes = (
        (Scope.ONCE, "once: this command"),
        (Scope.EXACT, "exactly this"),
        (Scope.RULE_IN_SESSION, "rm on /tmp/x and below"),
    )
    form = forms.approve_form("sealed", "who and where", scopes, 60)
    assert misshapen_form(form) == ""
    assert "rm on /tmp/x and below" in text_of(form["blocks"])
    (select,) = [b["element"] for b in form["blocks"] if b.get("block_id") == "scope"]
    assert [o["value"] for o in select["options"]] == ["once", "exact", "rule_in_session"]
