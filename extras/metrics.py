"""GET /metrics: what the database holds, in the text format of Prometheus.

All are gauges: ``flask prune`` deletes rows. Every worker and host answers the same.
"""

from datetime import timedelta

import sqlalchemy as sa
from flask import Blueprint, Flask, abort

from auth import bearer_tokens, good_key
from models.database import db, utcnow

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TEXT = """\
# HELP latchkey_active_keys API keys that are active.
# TYPE latchkey_active_keys gauge
latchkey_active_keys {active}
# HELP latchkey_expiring_keys Active API keys that expire within so many days.
# TYPE latchkey_expiring_keys gauge
latchkey_expiring_keys{{days="7"}} {within_7_days}
latchkey_expiring_keys{{days="30"}} {within_30_days}
# HELP latchkey_sessions Sessions that have not ended.
# TYPE latchkey_sessions gauge
latchkey_sessions {sessions}
# HELP latchkey_events_last_hour Audit events of the last hour.
# TYPE latchkey_events_last_hour gauge
"""
EVENT = 'latchkey_events_last_hour{{event="{event}",reason="{reason}"}} {count}\n'
COUNTS = sa.text("""
    SELECT count(*) AS active,
        count(CASE WHEN expires_at < :in_7_days THEN 1 END) AS within_7_days,
        count(CASE WHEN expires_at < :in_30_days THEN 1 END) AS within_30_days,
        (SELECT count(*) FROM sessions WHERE expires_at > :now) AS sessions
    FROM api_keys WHERE revoked_at IS NULL AND expires_at > :now
""")
# Of an hour, because a long audit trail takes seconds to count. No client chooses a
# reason; that of prune is a text, with numbers.
EVENTS = sa.text("""
    SELECT event, coalesce(reason, '') AS reason, count(*) AS count FROM audit_events
    WHERE created_at > :hour_ago AND event <> 'pruned'
    GROUP BY event, reason ORDER BY event, reason
""")

bp = Blueprint("metrics", __name__)


def register(app: Flask) -> None:
    app.register_blueprint(bp)


@bp.get("/metrics")
def metrics() -> tuple[str, dict[str, str]]:
    """The gauges, for whoever has an API key."""
    if not any(map(good_key, bearer_tokens())):
        abort(401)
    now = utcnow()
    moments = {
        "now": now,
        "in_7_days": now + timedelta(days=7),
        "in_30_days": now + timedelta(days=30),
        "hour_ago": now - timedelta(hours=1),
    }
    # As SQLite stores them: UTC without a zone.
    times = {name: f"{time:%Y-%m-%d %H:%M:%S}" for name, time in moments.items()}
    counts = db.session.execute(COUNTS, times).mappings().one()
    events = db.session.execute(EVENTS, times).mappings()
    text = TEXT.format(**counts) + "".join(EVENT.format(**event) for event in events)
    return text, {"Content-Type": CONTENT_TYPE}
