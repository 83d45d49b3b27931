"""A line on standard error for each audit event and, if wanted, for each request.

The audit trail stays the authority: a crash may lose the line of a committed event.
"""

import json
import logging
from functools import partial
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from flask import Flask
from marshmallow import Schema

from config import read_settings, text
from models.audit_event import AuditEvent
from models.database import db, utcnow
from origin import request_origin

log = logging.getLogger("latchkey")
settings: dict[str, str] = {}  # of the process


class Settings(Schema):
    LATCHKEY_LOG = text("text", "text|json", "text or json")
    LATCHKEY_ACCESS_LOG = text("off", "on|off", "on or off")


def register(app: Flask) -> None:
    """Register it before gateway, which finds the client's address."""
    settings.update(read_settings(Settings(), app.config["ENVIRON"]))
    app.teardown_appcontext(log_committed)
    verification = logging.getLogger("models.verification")
    verification.setLevel(logging.INFO)
    verification.addFilter(log_refused_key)
    if settings["LATCHKEY_ACCESS_LOG"] == "on":
        app.wsgi_app = partial(log_request, app.wsgi_app)  # type: ignore[method-assign]


def write(event: str, **members: str | None) -> None:
    """Write a line; percent-encoded or in JSON, so that nobody forges one."""
    members = {"time": f"{utcnow():%Y-%m-%dT%H:%M:%SZ}", "event": event, **members}
    line = json.dumps(members)
    if settings["LATCHKEY_LOG"] == "text":
        pairs = members.items()
        line = " ".join(f"{name}={quote(value or '-', '/:%')}" for name, value in pairs)
    log.warning(line)  # without a handler, Python shows warnings and nothing less


@sa.event.listens_for(AuditEvent, "after_insert")
def remember(mapper: Any, connection: Any, row: AuditEvent) -> None:
    """Keep what is inserted for ``log_committed``; the row's own values may expire."""
    if row.event == "pruned":
        return  # that command itself tells what it did
    members = {
        "event": row.event,
        "user_id": row.user_id,
        "key_id": row.api_key_id,
        "ip": row.ip,
        "reason": row.reason,
    }
    db.session.info.setdefault("inserted", []).append((row, members))


def log_committed(error: BaseException | None) -> None:
    """Log at the end of a request what is committed and was not deleted again.

    A log-in deletes the failed attempt that it has committed at first.
    """
    inserted = db.session.info.get("inserted", [])
    if inserted:
        db.session.rollback()
    for row, members in inserted:
        if sa.inspect(row).persistent:
            write(**members)


def log_refused_key(record: Any) -> bool:
    """Log a refused key: a filter, which lets other records of its logger pass."""
    if record.msg != "auth_failed":
        return True
    write(
        event="auth_failed",
        user_id=record.audit["user_id"],
        key_id=record.audit["id"],
        ip=record.audit["ip"],
        reason=record.audit["refusal"],
    )
    return False


def log_request(application: Any, environ: Any, start_response: Any) -> Any:
    """Answer a request and log it, without its query and without any token."""

    def respond(status: str, *headers: Any) -> Any:
        write("request", **request_origin(environ)._asdict(), status=status[:3])
        return start_response(status, *headers)

    return application(environ, respond)
