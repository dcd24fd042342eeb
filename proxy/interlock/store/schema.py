"""The tables, once, for both engines (architecture.md, "Where state lives").

Knows columns and types. Must not know what a state means or who may do what: that is the desk's and the directory's.
The migrations in `migrations/versions` build exactly this; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    # At run time the class is not subscriptable.
    _Moment = TypeDecorator[datetime]
else:
    _Moment = TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Moment(_Moment):
    """A UTC instant as microseconds since 1970: exact, and compares the same way in both engines."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _of_principal(table: str) -> list[Column[str] | ForeignKeyConstraint]:
    return [
        Column("issuer", String(255), nullable=False),
        Column("subject", String(255), nullable=False),
        ForeignKeyConstraint(
            ["issuer", "subject"], ["principals.issuer", "principals.subject"],
            ondelete="CASCADE", name=f"fk_{table}_principal",
        ),
    ]  # fmt: skip


# -- the directory ----------------------------------------------------------------------------------------------------

principals = Table(
    "principals",
    metadata,
    Column("issuer", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("handle", String(63), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("owner_issuer", String(255)),
    Column("owner_subject", String(255)),
    Column("disabled", Boolean, nullable=False),
    Column("passphrase", Text),  # Argon2id, PHC string
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),  # when authority was last gained
    Column("changed_by", String(512), nullable=False, server_default=""),
    Column("confirmed", Moment),  # when another administrator confirmed that gain
    Column("confirmed_by", String(512), nullable=False, server_default=""),
    PrimaryKeyConstraint("issuer", "subject"),
    UniqueConstraint("handle"),
    CheckConstraint("kind in ('human', 'agent', 'service')", name="kind"),
)

ssh_keys = Table(
    "ssh_keys",
    metadata,
    Column("fingerprint", String(64), primary_key=True),  # SHA256:…
    *_of_principal("ssh_keys"),
    Column("blob", LargeBinary, nullable=False),  # the public key in RFC 4253 §6.6 form
    Column("comment", String(255), nullable=False),
    Column("created", Moment, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    *_of_principal("tokens"),
    Column("hash", LargeBinary, nullable=False),  # SHA-256 of an opaque token of full entropy
    Column("created", Moment, nullable=False),
    Column("expires", Moment),
    UniqueConstraint("hash"),
)

scram_verifiers = Table(
    "scram_verifiers",
    metadata,
    Column("id", String(32), primary_key=True),
    *_of_principal("scram_verifiers"),
    Column("salt", LargeBinary, nullable=False),
    Column("iterations", Integer, nullable=False),
    Column("stored_key", LargeBinary, nullable=False),
    Column("server_key", LargeBinary, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment),
)

memberships = Table(
    "memberships",
    metadata,
    *_of_principal("memberships"),
    Column("name", String(255), nullable=False),
    Column("created", Moment, nullable=False),
    PrimaryKeyConstraint("issuer", "subject", "name"),
)

links = Table(
    "links",
    metadata,
    *_of_principal("links"),
    Column("other_issuer", String(255), nullable=False),
    Column("other_subject", String(255), nullable=False),
    Column("created", Moment, nullable=False),
    PrimaryKeyConstraint("issuer", "subject", "other_issuer", "other_subject"),
)

teams_identities = Table(
    "teams_identities",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("oid", String(64), nullable=False),
    *_of_principal("teams_identities"),
    Column("created", Moment, nullable=False),
    PrimaryKeyConstraint("tenant", "oid"),
)

slack_identities = Table(
    "slack_identities",
    metadata,
    Column("team", String(32), nullable=False),
    Column("user", String(32), nullable=False),
    *_of_principal("slack_identities"),
    Column("created", Moment, nullable=False),
    PrimaryKeyConstraint("team", "user"),
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("id", String(1366), primary_key=True),  # credential id, base64url (at most 1023 bytes, WebAuthn Level 3 §4)
    *_of_principal("passkeys"),
    Column("public_key", LargeBinary, nullable=False),  # COSE
    Column("sign_count", BigInteger, nullable=False),
    Column("name", String(255), nullable=False),
    Column("created", Moment, nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("value", String(512), nullable=False),
    Column("at", Moment, nullable=False),
    Column("by", String(512), nullable=False),
    Column("why", Text, nullable=False),
)

idp_groups = Table(
    "idp_groups",
    metadata,
    # What an identity provider said of somebody at their last login there.
    *_of_principal("idp_groups"),
    Column("source", String(255), nullable=False),
    Column("names", Text, nullable=False),  # JSON
    Column("learned", Moment, nullable=False),
    PrimaryKeyConstraint("issuer", "subject", "source"),
)

scim_users = Table(
    "scim_users",
    metadata,
    Column("id", String(40), primary_key=True),
    *_of_principal("scim_users"),
    Column("user_name", String(255), nullable=False),
    Column("external_id", String(255), nullable=False),
    Column("display", String(255), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    UniqueConstraint("user_name"),
)

scim_groups = Table(
    "scim_groups",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("display", String(127), nullable=False),
    Column("external_id", String(255), nullable=False),
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    UniqueConstraint("display"),
)

scim_members = Table(
    "scim_members",
    metadata,
    *_of_principal("scim_members"),
    Column("group", String(40), nullable=False),  # id of a SCIM group
    Column("name", String(127), nullable=False),  # its name, as rules read it
    Column("created", Moment, nullable=False),
    PrimaryKeyConstraint("issuer", "subject", "group"),
)

logins = Table(
    "logins",
    metadata,
    Column("id", String(40), primary_key=True),
    *_of_principal("logins"),
    Column("hash", LargeBinary, nullable=False, unique=True),  # SHA-256 of the session's token
    Column("provider", String(255), nullable=False),
    Column("account", String(255), nullable=False),  # the subject there
    Column("session", String(255), nullable=False),  # the provider's own (sid), empty where it has none
    Column("groups", Text, nullable=False),  # JSON: what the provider said of them at this login
    Column("assurance", Text, nullable=False),  # JSON
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
)

derived = Table(
    "derived_credentials",
    metadata,
    Column("id", String(64), primary_key=True),  # serial of a certificate, id of a password
    *_of_principal("derived_credentials"),
    Column("kind", String(16), nullable=False),
    Column("parent", String(255), nullable=False),  # the login, token or jti that it came from, and ends with
    Column("key", String(64), nullable=False),  # fingerprint of the certified key, empty for a password
    Column("groups", Text, nullable=False),  # JSON: what the parent brought beyond the directory
    Column("origins", Text, nullable=False, server_default="[]"),  # JSON: the issuers' tokens behind the parent
    Column("expires", Moment, nullable=False),
)

exchanged = Table(
    "exchanged_credentials",
    metadata,
    # A bearer token (`key`) or a Postgres password (`stored_key` and what follows it), and who holds it for whom. Not a foreign
    # key: who holds one need not be in the directory.
    Column("id", String(40), primary_key=True),
    Column("holder", Text, nullable=False),  # JSON: the principal, with its chain
    Column("facts", String(64), nullable=False),  # SHA-256 of what the directory said of everybody in it
    Column("parents", Text, nullable=False),  # JSON: idents of what it was given for
    Column("key", LargeBinary, nullable=False),  # SHA-256 of a token
    Column("stored_key", LargeBinary, nullable=False),
    Column("server_key", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("iterations", Integer, nullable=False),
    Column("expires", Moment, nullable=False),
    Index(None, "expires"),
)

logouts = Table(
    "logouts",
    metadata,
    # What an identity provider said is over: its tokens from before are refused, for as long as any can live.
    Column("provider", String(255), nullable=False),
    Column("account", String(255), nullable=False),
    Column("session", String(255), nullable=False),
    Column("issued", Moment, nullable=False),
    Column("until", Moment, nullable=False),
    PrimaryKeyConstraint("provider", "account", "session"),
    Index(None, "until"),
)

# -- approvals --------------------------------------------------------------------------------------------------------

requests = Table(
    "requests",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("presence", String(16), nullable=False),
    Column("digest", String(80), nullable=False),
    Column("match_hmac", String(96), nullable=False),
    Column("issuer", String(255), nullable=False),  # of the requester; not a foreign key: a request outlives a directory entry
    Column("subject", String(255), nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("decided_at", Moment),
    Column("valid_until", Moment),
    Column("target", String(63), nullable=False, server_default=""),
    Column("rule", String(255), nullable=False, server_default=""),
    Column("successor", String(40), nullable=False, server_default=""),
    Column("escalated_at", Moment),
    Column("form", LargeBinary, nullable=False),  # the frozen part, approvals/portable.py
    CheckConstraint(
        "state in ('pending', 'approved', 'denied', 'expired', 'cancelled', 'superseded', 'consumed', 'lapsed', 'revoked')",
        name="state",
    ),
    CheckConstraint("presence in ('held', 'returned')", name="presence"),
    Index(None, "match_hmac", "state"),
    # The same thing is asked once at a time (property 30); `match` has the requester in it.
    Index(
        "uq_requests_pending_match",
        "match_hmac",
        unique=True,
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
    Index(None, "state", "expires"),
    # What was asked last time: the same requester, target and rule.
    Index(None, "issuer", "subject", "target", "rule"),
)

votes = Table(
    "votes",
    metadata,
    Column("request", String(40), ForeignKey("requests.id", ondelete="CASCADE"), nullable=False),
    Column("issuer", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("place", Integer, nullable=False),  # order of counting
    Column("event", String(255), nullable=False),
    Column("form", LargeBinary, nullable=False),
    Column("verdict", String(16), nullable=False),
    # One person, one vote (and the way from approving to denying): the database itself refuses a second one, whatever
    # the process believes.
    PrimaryKeyConstraint("request", "issuer", "subject", "verdict"),
)

grants = Table(
    "grants",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("request", String(40), ForeignKey("requests.id", ondelete="CASCADE"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("issuer", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("created", Moment, nullable=False),
    Column("valid_until", Moment, nullable=False),
    Column("form", LargeBinary, nullable=False),
    UniqueConstraint("request"),
    CheckConstraint("state in ('active', 'expired', 'revoked')", name="state"),
    Index(None, "state", "valid_until"),
)

locks = Table(
    "locks",
    metadata,
    # Whoever kept asking for what was denied: nothing is asked for them until then.
    Column("issuer", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("since", Moment, nullable=False),
    Column("until", Moment, nullable=False),
    PrimaryKeyConstraint("issuer", "subject"),
)

glass = Table(
    "glass",
    metadata,
    # Every approval that broke the glass, until and after somebody else looked at it.
    Column("request", String(40), ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("broken", Moment, nullable=False),
    Column("reviewed", Moment),
    Column("reviewer", String(512), nullable=False, server_default=""),
    Column("note", Text, nullable=False, server_default=""),
)

ledger = Table(
    "ledger",
    metadata,
    # One row. `generation` counts every write to approvals; the log mirrors it, so that a restored backup shows.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
    Column("high_water", Moment, nullable=False),
    Column("match_key", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

# -- channels ---------------------------------------------------------------------------------------------------------

messages = Table(
    "messages",
    metadata,
    # Which message of a channel shows which request: a restart updates it, and an answer from elsewhere is refused.
    Column("channel", String(32), nullable=False),
    Column("request", String(40), ForeignKey("requests.id", ondelete="CASCADE"), nullable=False),
    Column("conversation", String(512), nullable=False),
    Column("message", String(512), nullable=False),
    Column("settled", String(16), nullable=False, server_default=""),  # the final state that it was left with
    PrimaryKeyConstraint("channel", "request", "conversation"),
)

conversations = Table(
    "conversations",
    metadata,
    # Where a channel can write without having been written to: learned from authenticated deliveries alone.
    Column("channel", String(32), nullable=False),
    Column("key", String(255), nullable=False),  # a person's account, `place:ID` or `left:ID`
    Column("conversation", String(512), nullable=False),
    Column("created", Moment, nullable=False),
    PrimaryKeyConstraint("channel", "key"),
)

deliveries = Table(
    "deliveries",
    metadata,
    # What was delivered already: a signed message is taken once.
    Column("channel", String(32), nullable=False),
    Column("ident", String(128), nullable=False),
    Column("seen", Moment, nullable=False),
    PrimaryKeyConstraint("channel", "ident"),
    Index(None, "seen"),
)

outbox = Table(
    "outbox",
    metadata,
    # What still has to be sent to a webhook; `id` is the idempotency key.
    Column("id", String(40), primary_key=True),
    Column("channel", String(32), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Moment, nullable=False),
    Column("created", Moment, nullable=False),
    Index(None, "channel", "due"),
)
