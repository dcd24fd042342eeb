"""Secrets never reach a chat, and nothing that looks like one hides what would run (property 33; threats.md, A7)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import analyses
from harness.budget import examples
from harness.requests import START, draft
from interlock.approvals import detectors
from interlock.approvals.desk import open_request
from interlock.approvals.digest import request_digest
from interlock.approvals.model import ApprovalRequest, RequestDraft
from interlock.approvals.portrait import Portrait, chat_portrait, portrait
from interlock.approvals.redaction import MAX_READ, MAX_SHOWN, redacted
from interlock.commands.model import Analysis, BindValue, Command, Effect
from interlock.identity import tokens

AWS = "AKIA" + "IOSFODNN7EXAMPLE"
GITHUB = "ghp_" + "a1B2c3D4e5" * 4
WORD = "hunter2hunter2"

SECRETS = {
    f"echo {AWS}": AWS,
    f"echo {GITHUB}": GITHUB,
    "echo sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc": "4eC39HqLyjWDarjtT1zdp7dc",
    "echo xoxb-" + "1234567890-abcdefghij": "1234567890-abcdefghij",
    "echo glpat-" + "x9Y8z7W6v5U4t3S2r1Q0": "x9Y8z7W6v5U4t3S2r1Q0",
    "echo AIza" + "SyA1234567890abcdefghijklmnopqrstuv": "SyA1234567890abcdefghijklmnopqrstuv",
    "echo eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IifQ.c2lnbmF0dXJl": "c2lnbmF0dXJl",
    f"curl https://bob:{WORD}@example.com/": WORD,
    f"PGPASSWORD={WORD} psql": WORD,
    f"mysqldump --password={WORD} shop": WORD,
    f"deploy --token {WORD}": WORD,
    f"mysql -u root -p{WORD} shop": WORD,
    "mysqldump --password 'two words' shop": "words",
    'mysqldump --password="quo\\"ted-end" shop': "ted-end",
    f"mysql -p'{WORD} {WORD}' shop": WORD,
    f"sshpass -p {WORD} ssh web": WORD,
    f"AWS_SECRET_ACCESS_KEY={WORD} aws s3 ls": WORD,
    f"redis-cli -u redis://:{WORD}@cache:6379": WORD,
    f'curl -d \'{{"password": "{WORD} {WORD}"}}\' https://example.com': WORD,
    f"curl -H 'Authorization: Bearer {WORD}' https://example.com": WORD,
    f"curl -u bob:{WORD} https://example.com": WORD,
    f"echo 'password={WORD}'": WORD,
    f'echo \'{{"api_key": "{WORD}"}}\'': WORD,
    "echo Zx9Kq2Lm8Rt4Yw7Bn3Vc": "Zx9Kq2Lm8Rt4Yw7Bn3Vc",
    "echo wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY": "K7MDENG",
}
SECRETS_OF_SQL = {
    f"ALTER ROLE bob PASSWORD '{WORD}'": WORD,
    f"CREATE ROLE bob LOGIN ENCRYPTED PASSWORD '{WORD}'": WORD,
    f"SELECT * FROM keys WHERE key = '{GITHUB}'": GITHUB,
}
HARMLESS = [
    "git checkout 3f5a2c1d9e8b7a6f5e4d3c2b1a0f9e8d7c6b5a4f",
    "docker pull web@sha256:" + "ab12" * 16,
    "ls /srv/MyApplication2024/releases/Version12/SharedResources",
    "systemctl restart my-very-long-service-name-with-many-words",
    "kubectl get pod web-7d4b9c6f5d-x2x4z",
    "SELECT id FROM t WHERE u = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'",
]

HIDING = {
    "what is deleted": f"rm -rf {AWS}",
    "a part of what is deleted": f"rm -rf /srv/{AWS}",
    "what is read": f"cat /srv/{AWS}",
    "the new owner of a file": f"chown {AWS} /srv/x",
    "what else changes": f"echo {AWS}; touch /srv/x",
    "an expansion": f"rm -rf ${{{AWS}}}",
    "the program": f"{AWS} /srv",
    "a program in a folder": f"/usr/bin/{GITHUB}",
    "an option's value": f"tail -n {AWS} /var/log/syslog",
    "an option": f"ls --{AWS}",
    "code of a shell": f"sh -c 'rm {AWS}'",
    "code of another language": f"awk '{{print {AWS}}}' x",
    "a second literal beside it": f"echo '{AWS}''; rm -rf /'",
    "a here-document": f"cat <<END\n{AWS}\nEND",
    "a pipe into a shell": f"echo {AWS} | sh",
    "a pipe into a file": f"echo {AWS} | tee /etc/cron.d/x",
    "a redirection": f"echo x > {AWS}",
    "an assignment": f"TOKEN={AWS} ls",
    "a command substitution": f"echo $(rm {AWS})",
    "a variable that looks like a password": 'echo password="$(rm -rf /)"',
    "a payload that looks like a password": "mysql --password=xyz;rm$IFS-rf$IFS/srv",
    "a comment": f"ls # {AWS}",
    "a URL that is a path": f"rm https://bob:{WORD}@example.com",
    "a URL with another host behind": f"curl https://bob:{WORD}@good.example@evil.example/",
    "beside something unknown": f"echo {AWS}; ./deploy",
}
HIDING_IN_SQL = {
    "a table": f'DELETE FROM "{AWS}"',
    "a column": f'SELECT "{AWS}" FROM t',
    "code": f"DO 'begin perform {AWS}; end'",
    "code in dollars": f"DO $${AWS}$$",
    "an escape string": f"SELECT E'{AWS}'",
    "a setting": f"SET app.x = '{AWS}'",
    "a default": f"ALTER TABLE t ALTER c SET DEFAULT '{AWS}'",
    "a path of COPY": f"COPY t FROM '/srv/{AWS}'",
    "a program of COPY": f"COPY t FROM PROGRAM 'echo {AWS}'",
    "a function's argument": f"SELECT query_to_xml('delete from {AWS}', true, true, '')",
    "a comment": f"SELECT 1 -- {AWS}",
    "a password with a statement behind": f"ALTER ROLE bob PASSWORD '{WORD}'; DO $$ begin end $$",
}
STAYS = [
    f"echo {AWS}",
    f"grep '{GITHUB}' /var/log/syslog",
    f"grep -c {GITHUB} /var/log/syslog; uptime",
    f"curl https://bob:{WORD}@example.com/x",
    f"curl -o /tmp/x https://bob:{WORD}@example.com/x; uptime",
]


def asked(made: tuple[Command, Analysis]) -> RequestDraft:
    return draft(made[0], analysis=made[1])


def opened(found: RequestDraft) -> ApprovalRequest:
    return open_request(found, request_id="req_1", nonce="n" * 32, match="hmac", now=START)


def chat(found: RequestDraft) -> Portrait:
    return chat_portrait(opened(found))


def everything(view: Portrait) -> str:
    return repr(view)


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_of_shell_commands_never_reach_a_chat(text: str) -> None:
    view = chat(asked(analyses.shell(text)))
    assert SECRETS[text] not in everything(view)
    assert any("hidden; the page shows it all" in note for note in view.notes)


@pytest.mark.parametrize("text", SECRETS_OF_SQL)
def test_secrets_of_sql_never_reach_a_chat(text: str) -> None:
    view = chat(asked(analyses.sql(text)))
    assert SECRETS_OF_SQL[text] not in everything(view)
    assert view.chat_approvable


@pytest.mark.parametrize("text", HARMLESS)
def test_names_and_hashes_are_no_secrets(text: str) -> None:
    assert detectors.find(text.encode()) == ()


@pytest.mark.parametrize("prefix", [value for name, value in sorted(vars(tokens).items()) if name.endswith("_PREFIX")])
def test_every_secret_that_we_issue_is_known_for_one(prefix: str) -> None:
    """For what it is: a string that only looks random would leave the approve button to the shape of the text around it."""
    secret = tokens.new_secret(prefix, bytes)
    (hit,) = detectors.find(f"psql 'x {secret} y'".encode())
    assert (hit.certain, hit.end - hit.start) == (True, len(secret))


@pytest.mark.parametrize("how", HIDING)
def test_nothing_hides_in_shell_text_by_looking_like_a_token(how: str) -> None:
    """Whatever is hidden and could be more than a value takes the approve button with it."""
    found = redacted(asked(analyses.shell(HIDING[how])))
    assert found.text.spans
    assert not found.chat_approvable
    assert not chat(asked(analyses.shell(HIDING[how]))).chat_approvable


@pytest.mark.parametrize("how", HIDING_IN_SQL)
def test_nothing_hides_in_sql_by_looking_like_a_token(how: str) -> None:
    found = redacted(asked(analyses.sql(HIDING_IN_SQL[how])))
    assert found.text.spans
    assert not found.chat_approvable


@pytest.mark.parametrize("text", STAYS)
def test_a_hidden_value_can_be_approved_and_the_reviewer_is_told(text: str) -> None:
    view = chat(asked(analyses.shell(text)))
    assert view.chat_approvable
    assert view.complete
    assert "⟦hidden: about" in "".join(view.command.lines)
    assert view.notes[0].startswith("1 secret of about ")


IN_A_SECRET_COLUMN = {
    "plain": (f"UPDATE users SET name = 'bob', password = '{WORD}' WHERE id = 7", True),
    "short": ("UPDATE users SET name = 'bob', password = 'tiny' WHERE id = 7", True),
    "escaped": (rf"UPDATE users SET password = E'\x68unter2' || '{WORD}' WHERE id = 7", False),
    "in dollars": (f"UPDATE users SET password = $${WORD}$$ WHERE id = 7", False),
    "a number": ("UPDATE users SET name = 'bob', pin = 73519 WHERE id = 7", False),
    "given to a function": (f"UPDATE users SET password = crypt('{WORD}', 'tiny') WHERE id = 7", False),
    "compared": (f"DELETE FROM users WHERE token = '{WORD}'", True),
    "a user mapping": (f"CREATE USER MAPPING FOR bob SERVER s OPTIONS (user 'bob', password '{WORD}')", False),
    "said in a block": (f"DO $$ BEGIN INSERT INTO u (password) VALUES ('{WORD}'); END $$", False),
    "with what does not parse": (f"UPDATE users SET password = '{WORD}' WHERE", False),
}


@pytest.mark.parametrize("how", IN_A_SECRET_COLUMN)
def test_a_literal_for_a_secret_column_is_hidden_whatever_it_looks_like(how: str) -> None:
    """And unless it is provably nothing but a value, the approve button goes with it."""
    text, approvable = IN_A_SECRET_COLUMN[how]
    made = analyses.sql(text)
    view = chat(asked(made))
    for secret in (WORD, "tiny", "73519", "x68unter2"):
        assert secret not in everything(view)
    assert any("hidden" in note for note in view.notes)
    assert view.chat_approvable == approvable
    page = portrait(opened(asked(made)))
    assert "".join(page.command.lines).count("hidden") == 0
    assert any(note.startswith("Secret by where ") for note in page.notes)


def test_so_many_secrets_that_nothing_is_left_to_show() -> None:
    """Bulk rows: each is hidden, and the message says how many there were."""
    rows = ", ".join(f"({n}, '{WORD}{n}')" for n in range(200))
    view = chat(asked(analyses.sql(f"INSERT INTO users (id, password) VALUES {rows}")))
    assert WORD not in everything(view)


def test_the_page_shows_what_chat_hides_and_the_digest_covers_the_raw_bytes() -> None:
    one, other = (opened(asked(analyses.shell(f"echo {s}"))) for s in (AWS, AWS[:-1] + "F"))
    assert AWS in "".join(portrait(one).command.lines)
    assert chat_portrait(one).command.lines == chat_portrait(other).command.lines
    assert request_digest(one) != request_digest(other)


def test_what_is_torn_by_quotes_is_shown_as_it_stands() -> None:
    """A mark never covers a quote: neither the end of one literal nor the start of the next can be under it."""
    found = redacted(asked(analyses.shell(f"echo '{AWS[:10]}'\"{AWS[10:]}\" 'password={WORD}''; rm x'")))
    assert [found.text.raw[start:end] for start, end in found.text.spans] == [WORD.encode()]
    assert not found.chat_approvable


def test_secrets_in_input_values_and_prose_are_hidden_too() -> None:
    held = chat(asked(analyses.shell("tee /srv/config", stdin=f"password={WORD}\n".encode())))
    assert WORD not in everything(held)
    assert not held.chat_approvable
    bound = chat(asked(analyses.sql("SELECT * FROM t WHERE k = $1", BindValue(GITHUB.encode(), shown=GITHUB))))
    assert GITHUB not in everything(bound)
    assert bound.chat_approvable
    called = chat(asked(analyses.sql("SELECT query_to_xml($1, true, true, '')", BindValue(GITHUB.encode(), shown=GITHUB))))
    assert not called.chat_approvable
    said = chat(replace(asked(analyses.shell("uptime")), said=f"I use {GITHUB}"))
    assert GITHUB not in everything(said)
    assert not said.chat_approvable


@pytest.mark.parametrize(
    ("value", "shown"), [(WORD.encode(), WORD), (b"tiny", "tiny"), (b"\xff\x00raw", None)], ids=["text", "short", "not readable"]
)
def test_a_value_for_a_secret_column_is_hidden_whatever_it_looks_like(value: bytes, shown: str | None) -> None:
    made = analyses.sql(
        "UPDATE users SET name = $1, password = $2 WHERE id = 7", BindValue(b"bob", shown="bob"), BindValue(value, shown=shown)
    )
    view = chat(asked(made))
    assert WORD not in everything(view) and value.hex() not in everything(view) and "tiny" not in everything(view)
    assert view.binds[0] == "$1 = bob"
    assert view.binds[1].startswith("$2 (secret) = ")
    assert any("hidden" in note for note in view.notes)
    assert view.chat_approvable == (shown is not None)
    page = portrait(opened(asked(made)))
    assert page.binds[1] == f"$2 (secret) = {shown}" or shown is None


def test_a_secret_that_is_null_or_empty_is_shown_as_that() -> None:
    made = analyses.sql("UPDATE users SET password = $1, token = $2", BindValue(None), BindValue(b"", shown=""))
    assert chat(asked(made)).binds == ("$1 (secret) = NULL", "$2 (secret) = ")


def test_what_a_secret_column_takes_is_hidden_in_the_words_as_well() -> None:
    made = analyses.sql("UPDATE users SET password = $1", BindValue(WORD.encode(), shown=WORD))
    assert WORD not in everything(chat(replace(asked(made), said=f"the new one is {WORD}")))


def test_a_doubled_quote_does_not_end_a_password() -> None:
    view = chat(asked(analyses.sql("ALTER ROLE bob PASSWORD 'it''s-hunter2'")))
    assert "hunter2" not in everything(view)
    assert not view.chat_approvable


def test_a_value_is_hidden_in_the_words_about_it_as_well() -> None:
    view = chat(asked(analyses.shell(f"rm -rf /srv/{AWS}")))
    assert view.effects == ("deletes /srv/⟦hidden: about 20 characters⟧ and everything below it, by force",)


def test_words_are_ready_to_print_in_any_encoding() -> None:
    found = redacted(asked(analyses.shell(f"echo {AWS}")))
    assert found.shown(f"uses {AWS} \u202e") == "uses ⟦hidden: about 20 characters⟧ ⟦U+202E right-to-left override⟧"
    found.shown(f"{GITHUB}").encode()  # no stand-in is left in it


def test_a_private_key_is_hidden_to_its_end_or_to_the_end_of_all() -> None:
    begin, end = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
    (hit,) = detectors.find(f"x {begin}\nabc\n{end} y".encode())
    assert (hit.start, hit.name) == (2, "a private key")
    assert hit.end == len(f"x {begin}\nabc\n{end}")
    unended = f"x {begin}\nabc {begin} y".encode()
    assert [(h.start, h.end) for h in detectors.find(unended)] == [(2, len(unended))]


@pytest.mark.parametrize(
    "piece", ["-----BEGIN PRIVATE KEY-----", "password=", "a://b:", "eyJaaaaaaaa.", "--p", " mysql ", "ghp_", "aB3"]
)
def test_a_long_text_is_read_only_so_far_and_never_shown_unread(piece: str) -> None:
    """256 KiB cost no more than MAX_READ, and what was not read is not shown."""
    text = (piece * (256 * 1024 // len(piece))).encode()
    command, analysis = analyses.sql("SELECT 1")
    found = redacted(draft(replace(command, text=text), analysis=analysis))
    assert len(found.text.raw) == MAX_SHOWN
    assert MAX_SHOWN < MAX_READ < len(text)
    assert found.text.display(30, 400).cut
    assert not chat(draft(replace(command, text=text), analysis=analysis)).chat_approvable


def test_a_secret_across_the_end_of_what_is_shown_is_hidden() -> None:
    command, analysis = analyses.sql("SELECT 1")
    text = b"x " * (MAX_SHOWN // 2 - 5) + GITHUB.encode() + b" y" * MAX_SHOWN
    found = redacted(draft(replace(command, text=text), analysis=analysis))
    assert found.text.spans == ((MAX_SHOWN - 10, MAX_SHOWN),)


def test_too_many_hits_hide_everything() -> None:
    text = (
        b" ".join(b"AKIA%016d" % n for n in range(100))
        .replace(b"0", b"A")
        .replace(b"1", b"B")
        .replace(b"8", b"C")
        .replace(b"9", b"D")
    )
    assert [(h.start, h.end) for h in detectors.find(text)] == [(0, len(text))]


OTHER = "ASIA" + "ABCDEFGHIJKLMNOP"
PIECES = [
    "echo ",
    "rm ",
    "grep ",
    "curl ",
    "ls ",
    "'",
    '"',
    " ",
    " ",
    ";",
    "|",
    "$(",
    ")",
    "\n",
    "sh -c ",
    "-",
    "--",
    "=",
    "#",
    "/",
    "x",
]
PIECES_OF_SQL = [
    "SELECT ", "DELETE FROM ", "UPDATE t SET c = ", "t", " WHERE c = ", "'", "'", '"', "--", "/*", "*/", "E", "$$", ";", "\n",
    ", ", "SET x = ", "DO ", "'t'::regclass", "format(", ")", "ALTER ROLE r PASSWORD ",
]  # fmt: skip


def texts(pieces: list[str]) -> st.SearchStrategy[str]:
    """Return texts with the token somewhere in them, whole ones and torn ones."""
    some = st.lists(st.sampled_from(pieces), max_size=6).map("".join)
    return st.tuples(some, some).map(lambda both: f"{both[0]}{AWS}{both[1]}")


def does(made: tuple[Command, Analysis]) -> set[Effect]:
    return {replace(effect, argv=()) for effect in made[1].effects}


@settings(max_examples=examples(150), deadline=None)
@given(texts(PIECES))
@example(f"echo {AWS}")
@example(f"grep '{AWS}' x; ls")
def test_what_is_hidden_in_an_approvable_shell_text_changes_nothing_of_what_it_does(text: str) -> None:
    """The property behind all of the above: with any other value in its place, the command does the very same."""
    made = analyses.shell(text)
    found = redacted(asked(made))
    if found.text.spans and found.chat_approvable:
        assert does(made) == does(analyses.shell(text.replace(AWS, OTHER)))


@settings(max_examples=examples(300), deadline=None)
@given(texts(PIECES_OF_SQL))
@example(f"DELETE FROM t WHERE c = '{AWS}'")
def test_what_is_hidden_in_an_approvable_sql_text_changes_nothing_of_what_it_does(text: str) -> None:
    made = analyses.sql(text)
    found = redacted(asked(made))
    if found.text.spans and found.chat_approvable:
        assert does(made) == does(analyses.sql(text.replace(AWS, OTHER)))


def test_expiry_is_told_of_pending_requests_only() -> None:
    request = opened(asked(analyses.shell("uptime")))
    assert chat_portrait(request, START + timedelta(seconds=60)).left == "expires in 14m"
    assert chat_portrait(request).left == ""
