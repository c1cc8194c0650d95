"""Run by Alembic: applies migrations on the connection, and inside the transaction, that `database` opened."""

from __future__ import annotations

from alembic import context

from chaku.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # true of SQLite as well once BEGIN is ours
)
with context.begin_transaction():
    context.run_migrations()
