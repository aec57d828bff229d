"""Zones say whether they keep what resources bring; those that there are do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("zones", schema=None) as batch_op:
        batch_op.add_column(sa.Column("keep_on_demand", sa.Integer(), nullable=True))
    op.execute("UPDATE zones SET keep_on_demand = 1")
