"""Alembic's entry: runs the migrations on the connection that `store.engine` hands over. There is no alembic.ini."""

from __future__ import annotations

from alembic import context

from interlock.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite can't ALTER most things
)
with context.begin_transaction():
    context.run_migrations()
