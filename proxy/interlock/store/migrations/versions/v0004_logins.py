"""Logins at the identity provider, and what was issued to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "logins",
        sa.Column("id", sa.String(length=40), nullable=False),
        *_of_principal(),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.String(length=255), nullable=False),
        sa.Column("account", sa.String(length=255), nullable=False),
        sa.Column("session", sa.String(length=255), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("assurance", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        _owned("logins"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logins")),
        sa.UniqueConstraint("hash", name=op.f("uq_logins_hash")),
    )
    op.create_table(
        "derived_credentials",
        sa.Column("id", sa.String(length=64), nullable=False),
        *_of_principal(),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("parent", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        _owned("derived_credentials"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_derived_credentials")),
    )


def _of_principal() -> list[sa.Column[str]]:
    return [
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
    ]


def _owned(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["issuer", "subject"], ["principals.issuer", "principals.subject"], name=op.f(f"fk_{table}_principal"), ondelete="CASCADE"
    )
