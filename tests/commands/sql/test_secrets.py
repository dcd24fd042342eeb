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
CATALOG = Catalog(
    relations={("public", "users"): USERS}, functions={}, operators={}, types={}, casts=(), server_version=150000,
    superuser=False, version="test",
)  # fmt: skip

FOUND = {
    "an INSERT that names its columns": ("INSERT INTO users (name, password) VALUES ($1, $2)", (2,)),
    "one of several rows": ("INSERT INTO users (token, name) VALUES ($1, $2), ($3, $4)", (1, 3)),
    "an INSERT that names none": ("INSERT INTO users VALUES ($1, $2, $3)", (3,)),
    "the same with its schema": ("INSERT INTO public.users VALUES ($1, $2, $3)", (3,)),
    "a table that nobody knows": ("INSERT INTO elsewhere VALUES ($1, $2, $3)", ()),
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
