"""Grants, locks, broken glass, passkeys, Slack accounts, confirmed reviewers, and what channels remember."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _principal(table: str) -> tuple[sa.Column[str], sa.Column[str], sa.ForeignKeyConstraint]:
    return (
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["issuer", "subject"], ["principals.issuer", "principals.subject"],
            name=op.f(f"fk_{table}_principal"), ondelete="CASCADE",
        ),
    )  # fmt: skip


def _request(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["request"], ["requests.id"], name=op.f(f"fk_{table}_request"), ondelete="CASCADE")


def upgrade() -> None:
    _directory()
    _approvals()
    _channels()


def _directory() -> None:
    op.add_column("principals", sa.Column("changed_by", sa.String(length=512), nullable=False, server_default=""))
    op.add_column("principals", sa.Column("confirmed", sa.BigInteger()))
    op.add_column("principals", sa.Column("confirmed_by", sa.String(length=512), nullable=False, server_default=""))
    op.create_table(
        "slack_identities",
        sa.Column("team", sa.String(length=32), nullable=False),
        sa.Column("user", sa.String(length=32), nullable=False),
        *_principal("slack_identities"),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team", "user", name=op.f("pk_slack_identities")),
    )
    op.create_table(
        "passkeys",
        sa.Column("id", sa.String(length=1366), nullable=False),
        *_principal("passkeys"),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passkeys")),
    )


def _approvals() -> None:
    for name, length in (("target", 63), ("rule", 255), ("successor", 40)):
        op.add_column("requests", sa.Column(name, sa.String(length=length), nullable=False, server_default=""))
    op.add_column("requests", sa.Column("escalated_at", sa.BigInteger()))
    op.create_index(op.f("ix_requests_issuer_subject_target_rule"), "requests", ["issuer", "subject", "target", "rule"])
    op.create_table(
        "grants",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("request", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=False),
        sa.Column("form", sa.LargeBinary(), nullable=False),
        _request("grants"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint("request", name=op.f("uq_grants_request")),
        sa.CheckConstraint("state in ('active', 'expired', 'revoked')", name=op.f("ck_grants_state")),
    )
    op.create_index(op.f("ix_grants_state_valid_until"), "grants", ["state", "valid_until"])
    op.create_table(
        "locks",
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_locks")),
    )
    op.create_table(
        "glass",
        sa.Column("request", sa.String(length=40), nullable=False),
        sa.Column("broken", sa.BigInteger(), nullable=False),
        sa.Column("reviewed", sa.BigInteger()),
        sa.Column("reviewer", sa.String(length=512), nullable=False, server_default=""),
        sa.Column("note", sa.Text(), nullable=False, server_default=""),
        _request("glass"),
        sa.PrimaryKeyConstraint("request", name=op.f("pk_glass")),
    )


def _channels() -> None:
    # A request may be shown in several conversations now. What is posted stays known, or it would be posted again.
    columns = ("channel", "request", "conversation", "message")
    kept = op.get_bind().execute(sa.select(sa.table("messages", *map(sa.column, columns)))).all()
    op.drop_table("messages")
    messages = op.create_table(
        "messages",
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("request", sa.String(length=40), nullable=False),
        sa.Column("conversation", sa.String(length=512), nullable=False),
        sa.Column("message", sa.String(length=512), nullable=False),
        sa.Column("settled", sa.String(length=16), nullable=False, server_default=""),
        _request("messages"),
        sa.PrimaryKeyConstraint("channel", "request", "conversation", name=op.f("pk_messages")),
    )
    op.bulk_insert(messages, [dict(zip(columns, row, strict=True)) for row in kept])
    op.create_table(
        "conversations",
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("conversation", sa.String(length=512), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "key", name=op.f("pk_conversations")),
    )
    op.create_table(
        "deliveries",
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("ident", sa.String(length=128), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "ident", name=op.f("pk_deliveries")),
    )
    op.create_index(op.f("ix_deliveries_seen"), "deliveries", ["seen"])
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(op.f("ix_outbox_channel_due"), "outbox", ["channel", "due"])
