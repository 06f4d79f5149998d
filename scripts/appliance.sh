#!/bin/bash
# Installs the packages on a Debian 12 that boots in a container, and does with it what administrators do: packaging/appliance. For root. The tree of Debian is made
# once, and kept in TREE. --if-possible: where no container can be started, it says so and ends well.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=${TREE:-/var/tmp/keyward-appliance/tree}
impossible=1
[ "${1:-}" = --if-possible ] && impossible=0
give_up() {
	echo "make appliance: $1" >&2
	exit $impossible
}
[ "$(id -u)" = 0 ] || give_up "it boots a container, which takes root: sudo make appliance"
scripts/deps.sh debootstrap systemd-container procps util-linux lintian
packages=systemd,systemd-sysv,dbus,libssl3,openssl,softhsm2,opensc,libengine-pkcs11-openssl,p11-kit,p11-kit-modules,init-system-helpers,procps
if [ "$(cat "$tree/.whole" 2>/dev/null)" != "$packages" ]; then
	rm -rf "$tree"
	mkdir -p "$(dirname "$tree")"
	# From where this machine has its own packages.
	mirror=$({ sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources; sed -nE 's/^deb (\[[^]]*\] )?([^ ]+).*/\2/p' /etc/apt/sources.list; } 2>/dev/null | head -1 || true) # there is one of the two
	debootstrap --variant=minbase --include="$packages" bookworm "$tree" "$mirror" >"$tree.log" 2>&1 ||
		{ tail -20 "$tree.log" >&2; give_up "there is no tree of Debian to boot"; }
	echo "$packages" >"$tree/.whole"
fi
systemd-nspawn --quiet --directory "$tree" --volatile=overlay --register=no --keep-unit --private-network --console=pipe /usr/bin/true >"$tree.log" 2>&1 ||
	{ cat "$tree.log" >&2; give_up "no container can be started here"; }
dist=$(mktemp -d)
trap 'rm -rf "$dist"' EXIT
for version in 1.0.0 1.0.1; do DIST=$dist FORMATS=deb scripts/packages.sh amd64 $version >/dev/null; done
lintian --allow-root --fail-on error,warning,info "$dist"/keyward_1.0.0-1_amd64.deb
${CC:-gcc} -std=c11 -D_GNU_SOURCE -O2 -pthread -o "$dist/bench" pkcs11front/module/test/bench.c -ldl
chmod 755 "$dist"
KEYWARD_TREE=$tree KEYWARD_DIST=$dist KEYWARD_PROGRAMS=$dist go test -tags appliance -count 1 -v -timeout 15m ./packaging/appliance
