"""Credentials that were exchanged, and logouts at identity providers: both outlive a restart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("derived_credentials", sa.Column("origins", sa.Text(), server_default="[]", nullable=False))
    op.create_table(
        "exchanged_credentials",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("facts", sa.String(length=64), nullable=False),
        sa.Column("parents", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("stored_key", sa.LargeBinary(), nullable=False),
        sa.Column("server_key", sa.LargeBinary(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("iterations", sa.Integer(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exchanged_credentials")),
    )
    op.create_index(op.f("ix_exchanged_credentials_expires"), "exchanged_credentials", ["expires"])
    op.create_table(
        "logouts",
        sa.Column("provider", sa.String(length=255), nullable=False),
        sa.Column("account", sa.String(length=255), nullable=False),
        sa.Column("session", sa.String(length=255), nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "account", "session", name=op.f("pk_logouts")),
    )
    op.create_index(op.f("ix_logouts_until"), "logouts", ["until"])
