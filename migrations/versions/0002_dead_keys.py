"""indexes by which dead keys are found and pruned"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.create_index("ix_api_keys_expires_at", "api_keys", ["expires_at"])
    op.create_index("ix_api_keys_revoked_at", "api_keys", ["revoked_at"])


def downgrade():
    op.drop_index("ix_api_keys_revoked_at", "api_keys")
    op.drop_index("ix_api_keys_expires_at", "api_keys")
