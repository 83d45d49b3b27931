"""How gunicorn runs Latchkey. The environment is checked in config.py, before this."""

import os

port = os.environ.get("PORT")
bind = os.environ.get("LATCHKEY_BIND") or (f"0.0.0.0:{port}" if port else "127.0.0.1:8000")  # noqa: S104
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
worker_class, threads = "gthread", 4  # bcrypt and fsync let others go on meanwhile
preload_app = True  # a bad setting stops the start in one line; workers share memory
control_socket_disable = True
limit_request_field_size = 16384  # an absurd Authorization header gets our 401
umask = 0o077  # the SQLite file is for its owner only
