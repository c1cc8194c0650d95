"""Sessions of the page; a conversation's system prompt, model and settings; how long an answer took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "sessions",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("last_seen_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_sessions"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_sessions_key_id"),
    )
    op.create_index("ix_sessions_last_seen_at", "sessions", ["last_seen_at"])
    op.add_column("conversations", sa.Column("system", sa.JSON()))
    op.add_column("conversations", sa.Column("model", sa.Text))
    op.add_column("conversations", sa.Column("settings", sa.JSON()))
    op.add_column("messages", sa.Column("timings", sa.JSON()))


def downgrade() -> None:
    op.drop_column("messages", "timings")
    for column in ("settings", "model", "system"):
        op.drop_column("conversations", column)
    op.drop_table("sessions")
