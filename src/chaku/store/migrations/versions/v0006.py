"""Battles, votes and comparisons; what is excluded from ratings, and what published ratings rest on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "contestants",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("system", sa.JSON()),
        sa.Column("sampling", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contestants"),
    )
    op.create_table(
        "battles",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("visitor", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("contestant_a", sa.Text, nullable=False),
        sa.Column("contestant_b", sa.Text, nullable=False),
        sa.Column("conversation_a", sa.Text, nullable=False),
        sa.Column("conversation_b", sa.Text, nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.Column("publish", sa.Boolean, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_battles"),
        sa.ForeignKeyConstraint(["owner_id"], ["api_keys.id"], name="fk_battles_owner_id"),
        sa.ForeignKeyConstraint(["contestant_a"], ["contestants.id"], name="fk_battles_contestant_a"),
        sa.ForeignKeyConstraint(["contestant_b"], ["contestants.id"], name="fk_battles_contestant_b"),
    )
    op.create_index("ix_battles_visitor_created_at", "battles", ["visitor", "created_at"])
    # Without a foreign key, which SQLite can't drop again.
    op.add_column("conversations", sa.Column("battle_id", sa.Text))
    op.create_index("ix_conversations_battle_id", "conversations", ["battle_id"])
    op.create_table(
        "votes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("battle_id", sa.Text, nullable=False),
        sa.Column("visitor", sa.Text, nullable=False),
        sa.Column("choice", sa.Text, nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("publish", sa.Boolean, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("superseded_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_votes"),
        sa.UniqueConstraint("battle_id", "token", name="uq_votes_battle_id_token"),
        sa.ForeignKeyConstraint(["battle_id"], ["battles.id"], name="fk_votes_battle_id", ondelete="CASCADE"),
    )
    holds = sa.text("superseded_at IS NULL")
    op.create_index("uq_votes_active", "votes", ["battle_id"], unique=True, sqlite_where=holds, postgresql_where=holds)
    op.create_index("ix_votes_visitor", "votes", ["visitor"])
    op.create_table(
        "comparisons",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("vote_id", sa.Text),
        sa.Column("is_example", sa.Boolean, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("model_a", sa.Text, nullable=False),
        sa.Column("model_b", sa.Text, nullable=False),
        sa.Column("outcome", sa.JSON(), nullable=False),
        sa.Column("prompt_id", sa.Text),
        sa.Column("cluster", sa.Text),
        sa.Column("category", sa.Text),
        sa.Column("language", sa.Text),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("judge", sa.Text),
        sa.Column("voter", sa.Text),
        sa.Column("style_a", sa.JSON()),
        sa.Column("style_b", sa.JSON()),
        sa.Column("counted", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("consent", sa.Boolean),
        sa.Column("created", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_comparisons"),
        sa.ForeignKeyConstraint(["vote_id"], ["votes.id"], name="fk_comparisons_vote_id", ondelete="CASCADE"),
    )
    op.create_index("ix_comparisons_vote_id", "comparisons", ["vote_id"])
    op.create_index("ix_comparisons_voter", "comparisons", ["voter"])
    op.create_index("ix_comparisons_models", "comparisons", ["model_a", "model_b"])
    op.create_table(
        "exclusions",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("lifted_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_exclusions"),
    )
    op.create_table(
        "rating_snapshots",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("data_sha256", sa.Text, nullable=False),
        sa.Column("num_games", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rating_snapshots"),
    )
    op.create_table(
        "rated_comparisons",
        sa.Column("snapshot_id", sa.Text, nullable=False),
        sa.Column("comparison_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", "comparison_id", name="pk_rated_comparisons"),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["rating_snapshots.id"], name="fk_rated_comparisons_snapshot_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_rated_comparisons_comparison_id", "rated_comparisons", ["comparison_id"])


def downgrade() -> None:
    for table in ("rated_comparisons", "rating_snapshots", "exclusions", "comparisons", "votes"):
        op.drop_table(table)
    op.execute("DELETE FROM conversations WHERE battle_id IS NOT NULL")
    op.drop_index("ix_conversations_battle_id", "conversations")
    op.drop_column("conversations", "battle_id")
    op.drop_table("battles")
    op.drop_table("contestants")
