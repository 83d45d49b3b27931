"""How gunicorn runs Latchkey."""

import gc
import logging
import os

from gunicorn.http import parser

from config import load_settings

settings = load_settings(os.environ)
bind = settings["LATCHKEY_BIND"] or "127.0.0.1:8000"
if settings["PORT"] and not settings["LATCHKEY_BIND"]:  # as a PaaS has it
    bind = f"0.0.0.0:{settings['PORT']}"  # noqa: S104
workers = settings["WEB_CONCURRENCY"]
# Threads let others go on during bcrypt and fsync; bench/RESULTS.md has other numbers.
threads = 4  # which makes it a gthread worker
preload_app = True
keepalive = 95  # seconds, longer than the routers in front (AWS 60, Heroku 90)
control_socket_disable = True
# So much of a body that no view wanted is read after the answer, for 5 seconds at most:
# a proxy that is still sending says 502 otherwise. gunicorn has no setting for it.
parser._DRAIN_MAX_BYTES = 8_000_000
limit_request_line = 8190
limit_request_field_size = 16384
# Not even from this host does a client's SCRIPT_NAME or scheme choose the route.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
umask = 0o077  # a unix socket, and what SQLite writes, are for their owner only


def change_message(record: logging.LogRecord) -> bool:
    """Log a broken request without its words: they may be a token or a password."""
    if str(record.msg).startswith("Invalid request from"):
        record.msg = record.msg.partition(": ")[0]
    if record.msg == "Can't connect to %s":  # the port is taken, for example
        record.msg = "Cannot listen on %s: see LATCHKEY_BIND and PORT"
    return True


logging.getLogger("gunicorn.error").addFilter(change_message)


def when_ready(server: object) -> None:
    """Before the fork: what is loaded stays shared, untouched by the collector."""
    gc.collect()
    gc.freeze()
