"""The directory, the requests with their votes, and the ledger. A migration is history: it never imports the live schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("high_water", sa.BigInteger(), nullable=False),
        sa.Column("match_key", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_ledger_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger")),
    )
    op.create_table(
        "principals",
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("handle", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("owner_issuer", sa.String(length=255), nullable=True),
        sa.Column("owner_subject", sa.String(length=255), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("passphrase", sa.Text(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind in ('human', 'agent', 'service')", name=op.f("ck_principals_kind")),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_principals")),
        sa.UniqueConstraint("handle", name=op.f("uq_principals_handle")),
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("presence", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("match_hmac", sa.String(length=96), nullable=False),
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("valid_until", sa.BigInteger(), nullable=True),
        sa.Column("form", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("presence in ('held', 'returned')", name=op.f("ck_requests_presence")),
        sa.CheckConstraint(
            "state in ('pending', 'approved', 'denied', 'expired', 'cancelled', 'superseded', 'consumed', 'lapsed', 'revoked')",
            name=op.f("ck_requests_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_match_hmac_state"), "requests", ["match_hmac", "state"], unique=False)
    op.create_index(op.f("ix_requests_state_expires"), "requests", ["state", "expires"], unique=False)
    op.create_index(
        "uq_requests_pending_match",
        "requests",
        ["match_hmac"],
        unique=True,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "links",
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("other_issuer", sa.String(length=255), nullable=False),
        sa.Column("other_subject", sa.String(length=255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["issuer", "subject"], ["principals.issuer", "principals.subject"], name="fk_links_principal", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("issuer", "subject", "other_issuer", "other_subject", name=op.f("pk_links")),
    )
    op.create_table(
        "memberships",
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["issuer", "subject"],
            ["principals.issuer", "principals.subject"],
            name="fk_memberships_principal",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("issuer", "subject", "name", name=op.f("pk_memberships")),
    )
    op.create_table(
        "scram_verifiers",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("iterations", sa.Integer(), nullable=False),
        sa.Column("stored_key", sa.LargeBinary(), nullable=False),
        sa.Column("server_key", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["issuer", "subject"],
            ["principals.issuer", "principals.subject"],
            name="fk_scram_verifiers_principal",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scram_verifiers")),
    )
    op.create_table(
        "ssh_keys",
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("comment", sa.String(length=255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["issuer", "subject"], ["principals.issuer", "principals.subject"], name="fk_ssh_keys_principal", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_ssh_keys")),
    )
    op.create_table(
        "teams_identities",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["issuer", "subject"],
            ["principals.issuer", "principals.subject"],
            name="fk_teams_identities_principal",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "oid", name=op.f("pk_teams_identities")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["issuer", "subject"], ["principals.issuer", "principals.subject"], name="fk_tokens_principal", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
    )
    op.create_table(
        "votes",
        sa.Column("request", sa.String(length=40), nullable=False),
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(length=255), nullable=False),
        sa.Column("form", sa.LargeBinary(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["request"], ["requests.id"], name=op.f("fk_votes_request"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("request", "issuer", "subject", "verdict", name=op.f("pk_votes")),
    )
