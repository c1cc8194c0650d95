"""Visitors: keys and guests in one table, so that chats, battles and usage belong to either."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Foreign keys follow a table that is renamed, in both databases: owners of chats now are visitors.
    op.drop_index("uq_api_keys_active_name", "api_keys")
    op.rename_table("api_keys", "visitors")
    op.add_column("visitors", sa.Column("kind", sa.Text, nullable=False, server_default="key"))
    is_active_key = sa.text("revoked_at IS NULL AND kind = 'key'")
    op.create_index(
        "uq_visitors_active_name",
        "visitors",
        ["name"],
        unique=True,
        sqlite_where=is_active_key,
        postgresql_where=is_active_key,
    )


def downgrade() -> None:
    op.drop_index("uq_visitors_active_name", "visitors")
    op.drop_column("visitors", "kind")
    op.rename_table("visitors", "api_keys")
    is_active = sa.text("revoked_at IS NULL")
    op.create_index(
        "uq_api_keys_active_name", "api_keys", ["name"], unique=True, sqlite_where=is_active, postgresql_where=is_active
    )
