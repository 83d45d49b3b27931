# Latchkey in a container. docs/deploy.md says how to run it; compose.yaml adds PostgreSQL.
FROM python:3.13-slim

WORKDIR /opt/latchkey
COPY requirements.txt .
# Wheels only: there is no compiler.
RUN pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.txt
COPY . .
# Without a setting the database is a SQLite file in this volume.
RUN useradd --uid 10001 --no-create-home latchkey \
    && install -d -m 700 -o latchkey -g latchkey /var/lib/latchkey

USER 10001
ENV DATABASE_URL=sqlite:////var/lib/latchkey/latchkey.db \
    FLASK_APP=wsgi \
    PORT=8000 \
    PYTHONUNBUFFERED=1 \
    WEB_CONCURRENCY=2
VOLUME /var/lib/latchkey
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python3", "-c", "import os, urllib.request; \
    urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=5)"]
# The tables first, as their owner only may read the file; then the service is process 1.
CMD ["sh", "-c", "umask 077 && flask db upgrade && exec gunicorn wsgi:app"]
