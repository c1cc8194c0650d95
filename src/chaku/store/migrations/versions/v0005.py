"""Scopes of API keys: what the holder of each may do. Keys made before could do everything, and keep it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The default is for the rows that there are: a new key always says its scopes.
    op.add_column("api_keys", sa.Column("scopes", sa.Text, nullable=False, server_default="infer metrics page"))


def downgrade() -> None:
    op.drop_column("api_keys", "scopes")
