"""Expiry and limits of API keys, what was used of them, and the price of each request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("api_keys", sa.Column("expires_at", moment))
    op.add_column("api_keys", sa.Column("limits", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("api_keys", sa.Column("revision", sa.Integer, nullable=False, server_default="0"))
    op.add_column("usage", sa.Column("dollars", sa.Float, nullable=False, server_default="0"))
    op.create_table(
        "rate_counters",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("used", sa.Float, nullable=False),
        sa.Column("counted_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("subject", "kind", name="pk_rate_counters"),
    )


def downgrade() -> None:
    op.drop_table("rate_counters")
    op.drop_column("usage", "dollars")
    for column in ("revision", "limits", "expires_at"):
        op.drop_column("api_keys", column)
