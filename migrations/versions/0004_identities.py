"""users of an identity provider, who may have no password"""

import sqlalchemy as sa
from alembic import op

import models.database

revision = "0004"
down_revision = "0003"

NO_PASSWORD = "$2b$12$" + "." * 53  # noqa: S105 (a hash that no password has)


def upgrade():
    with op.batch_alter_table("users") as users:
        users.alter_column("password_hash", existing_type=sa.String(60), nullable=True)
    op.create_table(
        "identities",
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("issuer", "subject"),
    )
    op.create_table(
        "provider_sessions",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("sid", sa.String(length=255), nullable=True),
        sa.Column(
            "auth_time", models.database.UTCDateTime(timezone=True), nullable=True
        ),
        sa.ForeignKeyConstraint(["digest"], ["sessions.digest"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest"),
    )


def downgrade():
    op.drop_table("provider_sessions")
    op.drop_table("identities")
    users = sa.table("users", sa.column("password_hash"))
    without = users.c.password_hash.is_(None)
    op.execute(sa.update(users).where(without).values(password_hash=NO_PASSWORD))
    with op.batch_alter_table("users") as users:
        users.alter_column("password_hash", existing_type=sa.String(60), nullable=False)
