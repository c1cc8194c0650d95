"""Leases: which gateways run, by the database's clock, and which of them writes an answer. Feedback on messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "gateways",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("renewed_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gateways"),
    )
    op.add_column("messages", sa.Column("gateway_id", sa.Text))
    op.create_table(
        "feedback",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("visitor", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("consent", sa.Boolean, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.UniqueConstraint("message_id", "visitor", name="uq_feedback_message_id_visitor"),
        sa.ForeignKeyConstraint(
            ["conversation_id", "message_id"],
            ["messages.conversation_id", "messages.id"],
            name="fk_feedback_conversation_id_message_id",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    op.drop_table("feedback")
    op.drop_column("messages", "gateway_id")
    op.drop_table("gateways")
