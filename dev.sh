#!/bin/sh
# sh dev.sh run | test | check: makes .venv, installs what is needed, and does it.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    { echo "latchkey needs python3 3.11 or newer with venv: apt-get install python3-venv" >&2; exit 1; }

install() {  # once for each content of the requirements file
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    cmp -s "$1" ".venv/$1" || { .venv/bin/pip install -q --disable-pip-version-check -r "$1" && cp "$1" .venv/; }
    PATH="$PWD/.venv/bin:$PATH"
}

case "${1:-}" in
run)
    install requirements.txt
    flask --app wsgi db upgrade
    if [ -z "$(flask --app wsgi users list)" ]; then
        password=$(python -c 'import secrets; print(secrets.token_urlsafe(16))')
        echo "$password" | flask --app wsgi users add admin --password-stdin >/dev/null
        printf '\n  Sign in as  admin\n  Password    %s   (shown this once)\n\n' "$password"
    fi
    exec gunicorn wsgi:app ;;
test)
    install requirements-dev.txt
    shift
    exec python -m pytest "$@" ;;
check)
    install requirements-dev.txt
    ruff format --check .
    ruff check .
    mypy
    exec python -m pytest --cov --cov-report=term-missing:skip-covered --cov-fail-under=95 ;;
*)
    echo "usage: sh dev.sh run | test | check" >&2
    exit 2 ;;
esac
