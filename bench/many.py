"""Do listing, the audit trail and pruning stay fast with 200,000 keys of 40,000 users?

python -m bench.many [--sizes 2000 200000]
"""

import argparse
import tempfile
import time
from datetime import timedelta
from statistics import median

import sqlalchemy as sa
from click.testing import CliRunner
from flask.cli import FlaskGroup
from servers import Postgres

from app import create_app
from bench.setup import FILL, fill, insert
from models.database import db, utcnow
from models.session import Session
from models.user import User

TRAIL = """INSERT INTO audit_events
    (created_at, event, user_id, api_key_id, method, path)
    {n} SELECT '2026-01-01 00:00:00', 'created', 'u' || ((i + 4) / 5), 'k' || i,
        'POST', '/' FROM n"""
OLD = """UPDATE {table} SET {column} = '2020-01-01 00:00:00'
    WHERE id IN (SELECT id FROM {table} LIMIT {count})"""


def median_ms(call, times=50):
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append((time.perf_counter() - began) * 1000)
    return median(found)


def measure(name, url, size):
    fill(url, size, 1)
    app = create_app({"DATABASE_URL": url})
    with app.app_context():
        n = FILL[db.engine.dialect.name][0]
        insert(TRAIL.format(n=n), size)
        for table, column in (
            ("api_keys", "revoked_at"),
            ("audit_events", "created_at"),
        ):
            old = OLD.format(table=table, column=column, count=size // 100)
            db.session.execute(sa.text(old))
        db.session.execute(sa.text("ANALYZE"))
        session = Session.start(db.session.get(User, "u300"))
        session.expires_at = utcnow() + timedelta(days=1)
        db.session.commit()
        head = {"Authorization": f"Bearer {session.token}"}
    http, keys = app.test_client(), "/api/me/api-keys"
    times = [
        median_ms(lambda path=path: http.get(path, headers=head).get_data())
        for path in (
            keys,
            f"{keys}/audit",
            f"{keys}/audit?event=created&api_key_id=k1500",
        )
    ]
    began = time.perf_counter()
    flask, words = FlaskGroup(create_app=lambda: app), ["prune", "--days", "1000"]
    output = CliRunner().invoke(flask, words).output.strip()
    seconds = time.perf_counter() - began
    cells = " | ".join(f"{each:.1f}" for each in times)
    print(f"| {name} | {size:,} | {cells} | {seconds:.2f}: {output} |", flush=True)
    with app.app_context():
        db.engine.dispose()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 200_000])
    print("| database | keys | list ms | audit ms | audit of a key ms | prune s |")
    print("|---" * 6 + "|")
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-") as home:
        for size in parser.parse_args().sizes:
            measure("SQLite", f"sqlite:///{home}/{size}.db", size)
            postgres = Postgres()
            measure("PostgreSQL", postgres.url, size)
            postgres.remove()


if __name__ == "__main__":
    main()
