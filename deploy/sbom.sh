#!/usr/bin/env bash
# What the program is made of, as CycloneDX: every crate that Cargo.lock names, with its checksum. deploy/sbom.sh > sbom.cdx.json
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
awk -F'"' -v version="$version" '
    BEGIN {
        printf "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.6\",\"version\":1,"
        printf "\"metadata\":{\"component\":{\"type\":\"application\",\"name\":\"radarflow\",\"version\":\"%s\"}},", version
        printf "\"components\":["
    }
    /^name = / { name = $2 }
    /^version = / { of = $2 }
    # Crates of our own have none.
    /^checksum = / {
        printf "%s\n{\"type\":\"library\",\"name\":\"%s\",\"version\":\"%s\",\"purl\":\"pkg:cargo/%s@%s\",", (n++ ? "," : ""), name, of, name, of
        printf "\"hashes\":[{\"alg\":\"SHA-256\",\"content\":\"%s\"}]}", $2
    }
    END { print "\n]}" }
' Cargo.lock
