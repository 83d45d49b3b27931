"""How gunicorn runs Latchkey."""

import os

from config import settings

found = settings(os.environ)
everywhere = f"0.0.0.0:{found['PORT']}"  # noqa: S104  # a PaaS sets PORT and routes to it
bind = everywhere if os.environ.get("PORT") else found["LATCHKEY_BIND"]
bind = os.environ.get("LATCHKEY_BIND") or bind
workers = found["WEB_CONCURRENCY"]
worker_class, threads = "gthread", 4  # bcrypt and fsync let others go on meanwhile
preload_app = True  # workers share memory
control_socket_disable = True
limit_request_line, limit_request_field_size = 8190, 16384  # what is absurd gets our own answer
umask = 0o077  # the SQLite file is for its owner only
