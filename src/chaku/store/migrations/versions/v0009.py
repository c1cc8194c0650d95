"""Whose words are in a snapshot of training data."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "snapshot_visitors",
        sa.Column("snapshot_id", sa.Text, sa.ForeignKey("rating_snapshots.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("visitor", sa.Text, primary_key=True),
    )
    op.create_index("ix_snapshot_visitors_visitor", "snapshot_visitors", ["visitor"])


def downgrade() -> None:
    op.drop_table("snapshot_visitors")
