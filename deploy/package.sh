#!/usr/bin/env bash
# Makes a Debian package and a tarball of a built program: deploy/package.sh [--binary FILE] [--out DIR]
# Without --binary the release is built first. The same sources and compiler give the same bytes. PACKAGE_COMPRESSION is
# dpkg-deb's: xz, zstd, none.
set -euo pipefail
cd "$(dirname "$0")/.."

binary="" out=dist
while [ $# -gt 0 ]; do
    case "$1" in
        --binary) binary=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) echo "deploy/package.sh [--binary FILE] [--out DIR]" >&2; exit 2 ;;
    esac
done

SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || echo 0)}"
export SOURCE_DATE_EPOCH
if [ -z "$binary" ]; then
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/radarflow/target}"
    cargo build --release --locked --workspace --bin radarflow
    binary=$CARGO_TARGET_DIR/release/radarflow
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/deb

install -D -m 0755 "$binary" "$root/usr/bin/radarflow"
if command -v strip > /dev/null; then strip "$root/usr/bin/radarflow"; fi
radarflow=$root/usr/bin/radarflow
# Nothing of this machine's configuration is asked for.
tell() { (cd "$work" && env -i HOME="$work" COLUMNS=80 "$radarflow" "$@"); }

install -D -m 0644 deploy/debian/radarflow.service "$root/usr/lib/systemd/system/radarflow.service"
install -D -m 0644 deploy/debian/sysusers.conf "$root/usr/lib/sysusers.d/radarflow.conf"
install -d -m 0750 "$root/etc/radarflow"
tell config init --data-dir /var/lib/radarflow "$root/etc/radarflow/radarflow.toml" > /dev/null
chmod 0640 "$root/etc/radarflow/radarflow.toml"

install -d "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
    "$root/usr/share/fish/vendor_completions.d" "$root/usr/share/man/man1" "$root/usr/share/doc/radarflow"
tell completions bash > "$root/usr/share/bash-completion/completions/radarflow"
tell completions zsh > "$root/usr/share/zsh/vendor-completions/_radarflow"
tell completions fish > "$root/usr/share/fish/vendor_completions.d/radarflow.fish"
tell man "$root/usr/share/man/man1" > /dev/null
gzip -9n "$root"/usr/share/man/man1/*.1

doc=$root/usr/share/doc/radarflow
install -m 0644 README.md ARCHITECTURE.md query/SRQL.md deploy/radarflow.example.toml "$doc/"
cp -r docs "$doc/book"
cp -r deploy/grafana deploy/prometheus "$doc/"
deploy/sbom.sh > "$doc/sbom.cdx.json"
for what in lake postgres; do tell docs "$what" > "$doc/$what.md"; done
{
    echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    echo "Upstream-Name: radarflow"
    echo
    echo "Files: *"
    echo "Copyright: the authors of Radarflow"
    echo "License: Apache-2.0"
    echo " On Debian systems the licence is in /usr/share/common-licenses/Apache-2.0."
} > "$doc/copyright"
find "$root/usr/share" -type f -exec chmod 0644 {} +
find "$root/usr" -type d -exec chmod 0755 {} +

# The least version of the C library that has what the program asks for.
libc=$(objdump -T "$radarflow" 2> /dev/null | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -1 || true)
install -d "$root/DEBIAN"
{
    echo "Package: radarflow"
    echo "Version: $version"
    echo "Architecture: $architecture"
    echo "Maintainer: Radarflow <radarflow@example.net>"
    echo "Section: net"
    echo "Priority: optional"
    echo "Depends: libc6 (>= ${libc:-2.36}), libgcc-s1, libstdc++6, ca-certificates, passwd"
    echo "Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)"
    echo "Homepage: https://github.com/radarflow/radarflow"
    echo "Description: network monitoring in one program"
    echo " Takes inventories, sweeps, NetFlow, IPFIX, sFlow, syslog, SNMP traps and OTLP; keeps devices,"
    echo " health and alerts correct after every input; writes Postgres, a Delta lake and webhooks."
} > "$root/DEBIAN/control"
echo /etc/radarflow/radarflow.toml > "$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do install -m 0755 "deploy/debian/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find usr etc -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum > DEBIAN/md5sums)

mkdir -p "$out"
find "$root" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
deb=$out/radarflow_${version}_$architecture.deb
dpkg-deb --root-owner-group -Z"${PACKAGE_COMPRESSION:-xz}" --build "$root" "$deb" > /dev/null

# The tarball has the same, without what belongs to a Debian machine.
name=radarflow-$version-$(uname -m)-linux
tree=$work/$name
mkdir -p "$tree/bin" "$tree/share"
cp "$radarflow" "$tree/bin/"
cp -r "$root/usr/share/man" "$root/usr/share/bash-completion" "$root/usr/share/zsh" "$root/usr/share/fish" "$tree/share/"
cp -r "$doc" "$tree/doc"
mkdir -p "$tree/systemd"
cp deploy/debian/radarflow.service "$tree/systemd/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -c "$name" \
    | gzip -n > "$out/$name.tar.gz"
(cd "$out" && sha256sum "$(basename "$deb")" "$name.tar.gz" > SHA256SUMS)
echo "$deb"
echo "$out/$name.tar.gz"
