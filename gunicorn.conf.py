"""How gunicorn runs Latchkey."""

import gc
import logging
import os

from config import settings


def unquoted(record: logging.LogRecord) -> bool:
    """A broken request is logged without its words: they may be a token or a password."""
    if str(record.msg).startswith("Invalid request from"):
        record.msg = record.msg.partition(": ")[0]
    return True


logging.getLogger("gunicorn.error").addFilter(unquoted)
found = settings(os.environ)
paas = os.environ.get("PORT") and not os.environ.get("LATCHKEY_BIND")  # it routes to that port
bind = f"0.0.0.0:{found['PORT']}" if paas else found["LATCHKEY_BIND"]  # noqa: S104
workers = found["WEB_CONCURRENCY"]
# Threads let others go on during bcrypt and fsync; bench/RESULTS.md has what other numbers cost.
worker_class, threads, preload_app = "gthread", 4, True
control_socket_disable = True
limit_request_line, limit_request_field_size = 8190, 16384  # what is absurd gets our own answer
# From a gateway on this host gunicorn would take a client's SCRIPT_NAME: it chooses the route.
forwarder_headers, secure_scheme_headers = "", {}  # type: ignore[var-annotated]
umask = 0o077  # the SQLite file is for its owner only


def when_ready(server: object) -> None:
    """Before the fork: the workers share what was loaded, and their collector leaves it alone."""
    gc.collect()
    gc.freeze()
