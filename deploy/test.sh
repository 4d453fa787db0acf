#!/usr/bin/env bash
# Installs what the tests need, starts the services, runs every test, stops the services.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/radarflow/target}"

services=$(deploy/services.sh up)
eval "$services"
trap 'deploy/services.sh down' EXIT
cargo test --workspace
