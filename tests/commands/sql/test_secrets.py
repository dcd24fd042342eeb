"""Parameters that carry a secret are known by the column that they go to, whatever the statement around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.commands.model import Kind, SqlContext
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.catalog import Catalog, Relation
from interlock.commands.sql.secrets import is_secret

COLUMNS = ("id", "name", "password_hash")
USERS = Relation("public", "users", "table", columns=frozenset(COLUMNS), in_order=COLUMNS)
NOTES = Relation("public", "notes", "table", columns=frozenset(("id",)), in_order=("id",))
CATALOG = Catalog(
    relations={("public", "users"): USERS, ("public", "notes"): NOTES}, functions={}, operators={}, types={}, casts=(),
    server_version=150000, superuser=False, version="test",
)  # fmt: skip

FOUND = {
    "an INSERT that names its columns": ("INSERT INTO users (name, password) VALUES ($1, $2)", (2,)),
    "one of several rows": ("INSERT INTO users (token, name) VALUES ($1, $2), ($3, $4)", (1, 3)),
    "an INSERT that names none": ("INSERT INTO users VALUES ($1, $2, $3)", (3,)),
    "the same with its schema": ("INSERT INTO public.users VALUES ($1, $2, $3)", (3,)),
    "a table that nobody knows": ("INSERT INTO elsewhere VALUES ($1, $2, $3)", (1, 2, 3)),
    "an INSERT from a SELECT": ("INSERT INTO users (name, password) SELECT $1, $2", (2,)),
    "both sides of a UNION": ("INSERT INTO users (name, api_key) SELECT $1, $2 UNION ALL SELECT $3, $4", (2, 4)),
    "inside of a call": ("INSERT INTO users (name, password) VALUES ($1, crypt($2, gen_salt('bf')))", (2,)),
    "inside of a cast": ("INSERT INTO users (name, ssn) VALUES ($1, $2::text)", (2,)),
    "ON CONFLICT": ("INSERT INTO users (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET secret = $2", (2,)),
    "an UPDATE": ("UPDATE users SET name = $1, password = $2 WHERE id = $3", (2,)),
    "an UPDATE of a row": ("UPDATE users SET (name, password) = ($1, $2)", (2,)),
    "a comparison": ("SELECT id FROM users WHERE name = $1 AND token = $2", (2,)),
    "a comparison the other way": ("SELECT id FROM users u WHERE $1 = u.token", (1,)),
    "a list": ("DELETE FROM sessions WHERE token IN ($1, $2) AND id > $3", (1, 2)),
    "ANY": ("DELETE FROM sessions WHERE token = ANY($1)", (1,)),
    "a hash that is compared": ("SELECT password_hash = crypt($1, password_hash) FROM users WHERE id = $2", (1,)),
    "a named argument": ("SELECT log_in(user_name => $1, user_password => $2)", (2,)),
    "a subquery": ("SELECT 1 WHERE EXISTS (SELECT FROM users WHERE api_key = $1)", (1,)),
    "DML in WITH": ("WITH n AS (UPDATE users SET token = $1 RETURNING id) SELECT id FROM n WHERE id = $2", (1,)),
    "MERGE": (
        "MERGE INTO users u USING (SELECT $1::int AS id) s ON u.id = s.id WHEN MATCHED THEN UPDATE SET token = $2",
        (2,),
    ),
    "MERGE that inserts": (
        "MERGE INTO users u USING new n ON u.id = n.id WHEN NOT MATCHED THEN INSERT (id, password) VALUES ($1, $2)", (2,),
    ),
    "PREPARE": ("PREPARE p AS UPDATE users SET password = $1 WHERE id = $2", (1,)),
    "nothing secret": ("UPDATE users SET name = $1 WHERE id = $2", ()),
}  # fmt: skip


@pytest.mark.parametrize("what", FOUND)
def test_parameters_are_known_by_their_column(what: str) -> None:
    text, numbers = FOUND[what]
    analysis = analyze_sql(text.encode(), SqlContext(catalog=CATALOG), Kind.BIND)
    assert analysis.unreadable is None
    assert analysis.secrets == numbers


W = "hunter2 hunter2"
LITERALS = {
    "an INSERT": f"INSERT INTO users (name, password) VALUES ('bob', '‹{W}›')",
    "one that names no columns": f"INSERT INTO users VALUES (1, 'bob', '‹{W}›')",
    "one of two that name none": (
        f"WITH a AS (INSERT INTO notes VALUES (1) RETURNING id) INSERT INTO users VALUES (1, 'bob', '‹{W}›')"
    ),
    "one inside of another": (
        f"WITH a AS (INSERT INTO users VALUES (1, 'bob', '‹{W}›') RETURNING id) INSERT INTO notes (id) SELECT id FROM a"
    ),
    "one inside of its rows": (
        f"INSERT INTO notes (id) WITH a AS (INSERT INTO users VALUES (1, 'bob', '‹{W}›') RETURNING id) SELECT id FROM a"
    ),
    "one behind EXPLAIN": f"EXPLAIN ANALYZE INSERT INTO users VALUES (1, 'bob', '‹{W}›')",
    "a table without secrets": "INSERT INTO notes VALUES (1)",
    "a table that nobody knows": f"INSERT INTO elsewhere VALUES (‹1›, '‹bob›', '‹{W}›')",
    "several rows": f"INSERT INTO users (token, name) VALUES ('‹{W}›', 'a'), ('‹x›', 'b')",
    "an UPDATE": f"UPDATE users SET name = 'bob', password = '‹{W}›' WHERE id = 7",
    "an UPDATE of a row": f"UPDATE users SET (name, password) = ('bob', '‹{W}›')",
    "ON CONFLICT": f"INSERT INTO users (name) VALUES ('bob') ON CONFLICT (name) DO UPDATE SET secret = '‹{W}›'",
    "a comparison": f"SELECT id FROM users WHERE name = 'bob' AND token = '‹{W}›'",
    "a list": f"DELETE FROM sessions WHERE token IN ('‹{W}›', '‹b›') AND id > 3",
    "a number": "UPDATE users SET pin = ‹1234›, name = '5'",
    "a number below zero": "UPDATE users SET pin = -‹1234›",
    "bits": "UPDATE users SET pin = ‹B'0101'›, token = ‹x'1f'›",
    "escapes": r"UPDATE users SET password = ‹E'hunter\x32 it\'s'›, name = E'b\x6fb'",
    "code points": r"UPDATE users SET password = ‹U&'h!0075nter2'› UESCAPE '!', name = 'bob'",
    "dollars": f"UPDATE users SET password = ‹$q${W}$q$›, name = $$bob$$",
    "two lines": f"UPDATE users SET password = '‹a'\n'{W}›'",
    "a quote inside": "UPDATE users SET password = '‹it''s hunter2›', name = 'bob'",
    "casts": f"UPDATE users SET password = '‹{W}›'::text, token = CAST('‹{W}›' AS varchar), secret = text '‹{W}›'",
    "put together": f"UPDATE users SET password = '‹a›' || '‹{W}›' WHERE name = 'bob'",
    "a call": f"UPDATE users SET password = crypt('‹{W}›', gen_salt('‹bf›'))",
    "pgcrypto elsewhere": f"SELECT pgp_sym_decrypt(data, '‹{W}›') FROM notes WHERE id = 7",
    "a CASE": f"UPDATE users SET password = CASE WHEN id = ‹1› THEN '‹{W}›' ELSE password END",
    "a subquery": f"UPDATE users SET password = (SELECT '‹{W}›' LIMIT ‹1›) WHERE id = 7",
    "rows of VALUES": f"INSERT INTO users (name, password) SELECT a, b FROM (VALUES ('‹bob›', '‹{W}›')) v(a, b)",
    "rows of VALUES and a star": f"INSERT INTO users (name, password) SELECT * FROM (VALUES ('‹bob›', '‹{W}›')) v",
    "rows of WITH": f"WITH v(a, b) AS (VALUES ('‹bob›', '‹{W}›')) INSERT INTO users (name, password) SELECT a, b FROM v",
    "columns of VALUES": f"SELECT * FROM (VALUES ('bob', '‹{W}›')) v(name, password)",
    "columns of WITH": f"WITH v(name, password) AS (SELECT 'bob', '‹{W}›') SELECT name FROM v",
    "an UPDATE from elsewhere": f"UPDATE users u SET password = v.b FROM (VALUES (‹1›, '‹{W}›')) v(a, b) WHERE u.id = v.a",
    "a MERGE from elsewhere": (
        f"MERGE INTO users u USING (VALUES (‹1›, '‹{W}›')) v(a, b) ON u.id = v.a WHEN MATCHED THEN UPDATE SET token = v.b"
    ),
    "a MERGE that names no columns": (
        f"MERGE INTO users u USING new n ON u.id = n.id WHEN NOT MATCHED THEN INSERT VALUES (n.id, 'bob', '‹{W}›')"
    ),
    "a UNION": f"INSERT INTO users (name, api_key) SELECT 'a', '‹{W}›' UNION ALL SELECT 'b', '‹{W}›'",
    "a named argument": f"SELECT log_in(user_name => 'bob', user_password => '‹{W}›')",
    "a key of JSON": f"SELECT id FROM users WHERE data ->> 'api_key' = '‹{W}›'",
    "a path of JSON": f"UPDATE users SET data = jsonb_set(data, '{{password}}', '‹\"{W}\"›')",
    "an object of JSON": f"SELECT jsonb_build_object('‹name›', '‹bob›', 'password', '‹{W}›')",
    "a setting": f"SET app.api_key = '‹{W}›'",
    "a setting by function": f"SELECT set_config('app.secret', '‹{W}›', false)",
    "a role's setting": f"ALTER ROLE bob SET app.token TO '‹{W}›'",
    "a role's password": f"ALTER ROLE bob PASSWORD '‹{W}›' VALID UNTIL 'infinity'",
    "a role's password, escaped": r"ALTER ROLE bob ENCRYPTED PASSWORD ‹E'hunter\x32'› VALID UNTIL 'infinity'",
    "a role's password in dollars": f"CREATE USER bob PASSWORD ‹$${W}$$›",
    "a user mapping": f"CREATE USER MAPPING FOR bob SERVER s OPTIONS (user 'bob', password '‹{W}›')",
    "a user mapping that changes": f"ALTER USER MAPPING FOR bob SERVER s OPTIONS (SET password '‹{W}›')",
    "a connection string": f"CREATE SUBSCRIPTION s CONNECTION '‹host=x password=''{W}''›' PUBLICATION p",
    "a connection string elsewhere": f"SELECT dblink_connect('‹host=x password=''{W}''›')",
    "a connection string, escaped": r"SELECT dblink_connect(‹E'host=x pass\x77ord=hunter2'›)",
    "a statement in a string": f"SELECT dblink_exec('c', '‹INSERT INTO u (password) VALUES (''{W}'')›')",
    "a block": f"DO ‹$b$ BEGIN INSERT INTO u (password) VALUES ('{W}'); END $b$›",
    "a function": f"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS '‹UPDATE u SET token = ''{W}''›'",
    "a default": f"CREATE TABLE u (id int, password varchar(72) DEFAULT '‹{W}›' CHECK (id > 3))",
    "a new default": f"ALTER TABLE u ALTER password SET DEFAULT '‹{W}›'",
    "a table from rows": f"CREATE TABLE u (name, password) AS VALUES ('bob', '‹{W}›')",
    "a view": f"CREATE VIEW v (name, password) AS SELECT 'bob', '‹{W}›'",
    "PREPARE": f"PREPARE p AS UPDATE users SET password = '‹{W}›' WHERE id = 7",
    "EXECUTE": f"EXECUTE known ('bob', '‹{W}›')",
    "EXECUTE of what nobody knows": f"EXECUTE unknown ('‹bob›', '‹{W}›')",
    "PREPARE and EXECUTE": f"PREPARE p2 AS INSERT INTO users (password) VALUES ($1); EXECUTE p2 ('‹{W}›')",
    "one of several statements": f"SELECT 'a'; UPDATE users SET password = '‹{W}›'; SELECT 'b'",
    "behind a comment": f"/* ä 'x' */ UPDATE users /* 'y' */ SET name = 'ü', password = /* 'z' */ '‹{W}›' -- 'end'",
    "EXPLAIN": f"EXPLAIN UPDATE users SET password = '‹{W}›'",
    "a cursor": f"DECLARE c CURSOR FOR SELECT * FROM users WHERE token = '‹{W}›'",
    "COPY": f"COPY (SELECT id FROM users WHERE token = '‹{W}›') TO STDOUT",
    "in other letters": f"UPDATE users SET U&\"p\\0061ssword\" = '‹{W}›', name = 'bob'",
    "nothing": "UPDATE users SET name = 'bob', note = 'forgot the password' WHERE id = 7 AND kind LIKE 'a%'",
    "NULL and DEFAULT": "UPDATE users SET password = NULL, token = DEFAULT, secret = ''",
    "how passwords are kept": "SET password_encryption = 'scram-sha-256'",
    "a length": "CREATE TABLE u (password varchar(72) CHECK (length('x') > 3))",
}  # fmt: skip
"""What must be hidden is between ‹ and ›, and nothing else may be."""


@pytest.mark.parametrize("what", LITERALS)
def test_literals_are_known_by_where_they_go(what: str) -> None:
    marked = LITERALS[what]
    text = marked.replace("‹", "").replace("›", "").encode()
    prepared = {"known": "PREPARE known AS INSERT INTO users (name, password) VALUES ($1, $2)"}
    analysis = analyze_sql(text, SqlContext(catalog=CATALOG, prepared=prepared), Kind.QUERY)
    assert analysis.unreadable is None, analysis.unreadable
    pieces, at = [], 0
    for start, end in analysis.concealed:
        pieces += (text[at:start], "‹".encode(), text[start:end], "›".encode())
        at = end
    assert b"".join((*pieces, text[at:])).decode() == marked


def test_columns_that_a_temporary_table_may_have_are_not_trusted() -> None:
    text = b"INSERT INTO users VALUES (1, 'hunter2', 'x')"
    known = analyze_sql(text, SqlContext(catalog=CATALOG), Kind.QUERY)
    tainted = analyze_sql(text, SqlContext(catalog=CATALOG, tainted=True), Kind.QUERY)
    assert [text[a:b] for a, b in known.concealed] == [b"x"]
    assert [text[a:b] for a, b in tainted.concealed] == [b"1", b"hunter2", b"x"]


@pytest.mark.parametrize("text", ["UPDATE users SET password = 'hunter2' WHERE", "SELECT " + "(" * 3000 + "'token'" + ")" * 3000])
def test_what_has_no_tree_is_hidden_whole(text: str) -> None:
    analysis = analyze_sql(text.encode(), SqlContext(catalog=CATALOG), Kind.QUERY)
    assert analysis.concealed == ((0, len(text)),)


_VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8, max_size=30)


@given(
    value=_VALUE, how=st.sampled_from(["'", "E", "$", "U"]), around=st.sampled_from(["{}", "lower({})", "{}::text", "'a' || {}"])
)  # fmt: skip
def test_a_secret_in_any_spelling_is_inside_of_what_is_hidden(value: str, how: str, around: str) -> None:
    written = {
        "'": "'" + value.replace("'", "''") + "'",
        "E": "E'" + "".join(f"\\u{ord(c):04x}" for c in value) + "'",
        "$": f"$zz${value}$zz$",
        "U": "U&'" + "".join(f"\\{ord(c):04x}" for c in value) + "'",
    }[how]
    text = f"UPDATE users SET name = 'bob', password = {around.format(written)} WHERE id = 7".encode()
    analysis = analyze_sql(text, SqlContext(catalog=CATALOG), Kind.QUERY)
    if analysis.unreadable is not None:  # a character that is never taken
        assert analysis.concealed == ((0, len(text)),)
        return
    inner = written[1:-1].encode() if how == "'" else written.encode()
    assert any(inner in text[start:end] for start, end in analysis.concealed)


@pytest.mark.parametrize(
    "name",
    ["password", "Password", "user_password", "passwordHash", "pwd", "api_key", "apiKey", "APIKey", "access_token", "ssn", "SSN",
     "social_security_number", "card_number", "cvv", "client_secret", "private_key", "credentials", "pin"],
)  # fmt: skip
def test_names_of_secret_columns(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["id", "name", "shipping", "opinion", "spinner", "key", "number", "passenger", "compass", "tokenizer", "panel", ""]
)
def test_names_of_other_columns(name: str) -> None:
    assert not is_secret(name)


@given(st.text(max_size=40))
def test_any_name_is_one_or_not(name: str) -> None:
    assert is_secret(name) in (True, False)
