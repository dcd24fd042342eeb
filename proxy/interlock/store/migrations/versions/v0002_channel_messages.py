"""Which message of a channel shows which request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "messages",
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("request", sa.String(length=40), nullable=False),
        sa.Column("conversation", sa.String(length=512), nullable=False),
        sa.Column("message", sa.String(length=512), nullable=False),
        sa.ForeignKeyConstraint(["request"], ["requests.id"], name=op.f("fk_messages_request"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("channel", "request", name=op.f("pk_messages")),
    )
