"""Messages that are deleted, and can be restored."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    some = sa.text("deleted_at IS NOT NULL")
    op.create_index("ix_messages_deleted_at", "messages", ["deleted_at"], sqlite_where=some, postgresql_where=some)


def downgrade() -> None:
    op.drop_index("ix_messages_deleted_at", "messages")
    op.drop_column("messages", "deleted_at")
