"""the network of a log-in's address, by which the throttle counts"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.add_column(
        "audit_events", sa.Column("network", sa.String(length=45), nullable=True)
    )
    op.create_index(
        "ix_audit_events_network", "audit_events", ["event", "network", "created_at"]
    )
    op.drop_index("ix_audit_events_ip", "audit_events")


def downgrade():
    op.create_index("ix_audit_events_ip", "audit_events", ["event", "ip", "created_at"])
    op.drop_index("ix_audit_events_network", "audit_events")
    op.drop_column("audit_events", "network")
