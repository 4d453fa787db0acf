#!/usr/bin/env bash
# Starts the services that tests use, from packages, on free ports in a temporary directory: Postgres and NATS from
# Debian's, Apache Kafka (KRaft, one node) from its jars by Maven. Installs the tools that tests run beside them.
#
#   eval "$(deploy/services.sh up)"     starts them and prints the environment to use
#   deploy/services.sh down             stops them (RADARFLOW_SERVICES names the directory)
#   deploy/services.sh install          only installs what is missing
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kafka_version=4.1.0
cache="${XDG_CACHE_HOME:-$HOME/.cache}/radarflow"
kafka_jars="$cache/kafka-$kafka_version"
jdbc_version=42.7.7
jdbc_jars="$cache/jdbc-$jdbc_version"
# Another list of packages is another folder.
python="$cache/python-5"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

has() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

install_missing() {
    local missing=()
    [ -n "$(postgres_bin)" ] || missing+=(postgresql)
    has python3 || missing+=(python3)
    has nats-server || missing+=(nats-server)
    has javac || missing+=(default-jdk-headless)
    has softflowd || missing+=(softflowd)
    has snmptrap || missing+=(snmp)
    has prometheus-alertmanager || missing+=(prometheus-alertmanager)
    has logger || missing+=(bsdutils)
    has openssl || missing+=(openssl)
    has systemd-analyze || missing+=(systemd)
    has objdump || missing+=(binutils)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ -d "$kafka_jars" ] && [ -d "$jdbc_jars" ] || has mvn || missing+=(maven)
    if [ ${#missing[@]} -gt 0 ]; then
        local as_root=()
        [ "$(id -u)" -eq 0 ] || as_root=(sudo)
        "${as_root[@]}" apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
            "${missing[@]}" >&2
    fi
    [ -d "$kafka_jars" ] || fetch_jars kafka "$kafka_version" "$kafka_jars"
    [ -d "$jdbc_jars" ] || fetch_jars jdbc "$jdbc_version" "$jdbc_jars"
    [ -d "$python" ] || make_python
}

# The readers and clients of another language, whole or not at all. Its scripts know where it is made.
make_python() {
    rm -rf "$python.unfinished"
    python3 -m venv "$python.unfinished" >&2
    "$python.unfinished/bin/python" -m pip install -q --disable-pip-version-check \
        deltalake duckdb pyarrow grpcio grpcio-tools websockets schemathesis \
        adbc-driver-manager adbc-driver-flightsql "psycopg[binary]" sqlalchemy \
        oidc-provider-mock aiosmtpd opentelemetry-sdk opentelemetry-exporter-otlp >&2
    mv -T "$python.unfinished" "$python"
}

# The jars that a pom names, whole or not at all: its name, the version, where to.
fetch_jars() {
    local unfinished
    mkdir -p "$cache"
    unfinished=$(mktemp -d "$3.XXXXXX")
    mvn -q -B -f "$here/$1/pom.xml" "-D$1.version=$2" \
        dependency:copy-dependencies -DoutputDirectory="$unfinished" >&2
    mv -T "$unfinished" "$3"
}

postgres_bin() { find /usr/lib/postgresql -maxdepth 3 -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -n 1; }

# Postgres does not run as root.
as_postgres() { if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

# Waits until something listens.
await_port() {
    for _ in $(seq 600); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo "nothing listens on port $1; see the logs in $dir" >&2
    return 1
}

up_postgres() {
    local bin port
    bin=$(postgres_bin)
    port=$(free_port)
    mkdir "$dir/postgres"
    [ "$(id -u)" -ne 0 ] || chown postgres "$dir/postgres"
    as_postgres "$bin/initdb" -D "$dir/postgres/data" -U postgres --auth=trust --no-sync >"$dir/initdb.log" 2>&1
    as_postgres "$bin/pg_ctl" -D "$dir/postgres/data" -w -l "$dir/postgres/log" \
        -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir/postgres" start >&2
    echo "export RADARFLOW_TEST_POSTGRES=postgres://postgres@127.0.0.1:$port"
}

up_nats() {
    local port
    port=$(free_port)
    PATH="$PATH:/usr/sbin" nats-server -js -sd "$dir/nats" -a 127.0.0.1 -p "$port" >"$dir/nats.log" 2>&1 &
    echo $! >"$dir/nats.pid"
    await_port "$port"
    echo "export RADARFLOW_TEST_NATS=nats://127.0.0.1:$port"
}

up_kafka() {
    local port secure controller
    port=$(free_port)
    secure=$(free_port)
    controller=$(free_port)
    # Who comes by the second listener needs TLS and a password.
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
        -keyout "$dir/kafka.key" -out "$dir/kafka.pem" 2>"$dir/openssl.log"
    cat "$dir/kafka.key" "$dir/kafka.pem" >"$dir/kafka.keystore"
    cat >"$dir/kafka.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,SASL_SSL://127.0.0.1:$secure,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,SASL_SSL://127.0.0.1:$secure
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$dir/kafka.keystore
log.dirs=$dir/kafka
num.partitions=2
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
    java -cp "$kafka_jars/*" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c "$dir/kafka.properties" \
        --add-scram 'SCRAM-SHA-256=[name=radarflow,password=hush]' >"$dir/kafka.log" 2>&1
    java -Xmx512m -cp "$kafka_jars/*" kafka.Kafka "$dir/kafka.properties" >>"$dir/kafka.log" 2>&1 &
    echo $! >"$dir/kafka.pid"
    await_port "$port"
    echo "export RADARFLOW_TEST_KAFKA=127.0.0.1:$port"
    echo "export RADARFLOW_TEST_KAFKA_SECURE=127.0.0.1:$secure RADARFLOW_TEST_KAFKA_CA=$dir/kafka.pem"
}

up() {
    install_missing
    dir=$(mktemp -d "${TMPDIR:-/tmp}/radarflow-services.XXXXXX")
    chmod 755 "$dir"
    echo "export RADARFLOW_SERVICES=$dir"
    echo "export RADARFLOW_TEST_PYTHON=$python/bin/python"
    echo "export RADARFLOW_TEST_JDBC=$jdbc_jars"
    up_postgres
    up_nats
    up_kafka
}

down() {
    local dir=${RADARFLOW_SERVICES:?names the directory that up made}
    as_postgres "$(postgres_bin)/pg_ctl" -D "$dir/postgres/data" -m immediate stop >&2 || true
    for service in nats kafka; do
        kill -KILL "$(cat "$dir/$service.pid")" 2>/dev/null || true
    done
    rm -rf "$dir"
}

case "${1:-}" in
up) up ;;
down) down ;;
install) install_missing ;;
*) sed -n '2,8p' "$0" && exit 2 ;;
esac
