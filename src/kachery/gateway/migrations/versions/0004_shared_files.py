"""Programs that wait for their user to sign in, and files with a visibility of their own (the broker's protocol)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "device_codes",
        sa.Column("device_hash", sa.String(64), nullable=False),
        sa.Column("user_hash", sa.String(64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("user", sa.String(200), nullable=True),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name=op.f("fk_device_codes_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_hash", name=op.f("pk_device_codes")),
        sa.UniqueConstraint("user_hash", name=op.f("uq_device_codes_user_hash")),
    )
    op.create_table(
        "shared_files",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("name", sa.String(500), nullable=False),
        sa.Column("file_class", sa.String(10), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("zone", sa.String(200), nullable=False),
        sa.Column("sha1", sa.String(40), nullable=True),
        sa.Column("scope", sa.String(10), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["users.name"], name=op.f("fk_shared_files_owner"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["zone"], ["zones.name"], name=op.f("fk_shared_files_zone"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shared_files")),
    )
    with op.batch_alter_table("shared_files", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_shared_files_name"), ["name"], unique=False)
        batch_op.create_index(batch_op.f("ix_shared_files_sha256"), ["sha256"], unique=False)
    op.create_table(
        "shared_with",
        sa.Column("file", sa.String(32), nullable=False),
        sa.Column("team", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(["file"], ["shared_files.id"], name=op.f("fk_shared_with_file"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("file", "team", name=op.f("pk_shared_with")),
    )
