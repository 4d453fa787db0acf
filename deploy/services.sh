#!/usr/bin/env bash
# Starts the services that tests use, from Debian's packages, on free ports in a temporary directory.
#
#   eval "$(deploy/services.sh up)"     starts them and prints the environment to use
#   deploy/services.sh down             stops them (RADARFLOW_SERVICES names the directory)
set -euo pipefail

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

install_missing() {
    local missing=()
    [ -n "$(postgres_bin)" ] || missing+=(postgresql)
    command -v python3 >/dev/null || missing+=(python3)
    [ ${#missing[@]} -eq 0 ] && return
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

postgres_bin() { find /usr/lib/postgresql -maxdepth 3 -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -n 1; }

# Postgres does not run as root.
as_postgres() { if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

up() {
    install_missing
    local dir bin port
    dir=$(mktemp -d "${TMPDIR:-/tmp}/radarflow-services.XXXXXX")
    chmod 755 "$dir"
    bin=$(postgres_bin)
    port=$(free_port)
    mkdir "$dir/postgres"
    [ "$(id -u)" -ne 0 ] || chown postgres "$dir/postgres"
    as_postgres "$bin/initdb" -D "$dir/postgres/data" -U postgres --auth=trust --no-sync >"$dir/initdb.log" 2>&1
    as_postgres "$bin/pg_ctl" -D "$dir/postgres/data" -w -l "$dir/postgres/log" \
        -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir/postgres" start >&2
    echo "export RADARFLOW_SERVICES=$dir"
    echo "export RADARFLOW_TEST_POSTGRES=postgres://postgres@127.0.0.1:$port"
}

down() {
    local dir=${RADARFLOW_SERVICES:?names the directory that up made}
    as_postgres "$(postgres_bin)/pg_ctl" -D "$dir/postgres/data" -m immediate stop >&2 || true
    rm -rf "$dir"
}

case "${1:-}" in
up) up ;;
down) down ;;
*) sed -n '2,6p' "$0" && exit 2 ;;
esac
