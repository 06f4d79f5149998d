#!/bin/bash
# Starts keywardd dev and takes a short tour through it. Every step is real and its outcome is checked. With --stay the
# daemon then goes on until Ctrl-C, else it is stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

stay=no
if [ "${1:-}" = --stay ]; then
	stay=yes
	shift
fi
dir=${1:-.keyward}
mkdir -p "$(dirname "$dir")"
dir=$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")
work=$(mktemp -d)
daemon=

# keywardctl finds the daemon by this.
export KEYWARD_SOCKET=$dir/admin.sock
ctl=$PWD/bin/keywardctl

finish() {
	status=$?
	trap - EXIT INT TERM
	if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
		kill -TERM "$daemon"
		wait "$daemon" || status=1
	fi
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT
trap 'exit 0' INT TERM

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# show runs a command and prints it as a person in $work would type it.
show() {
	local line=${*//"$work/"/}
	printf '  $ %s\n' "${line//"$PWD/bin/"/}"
	"$@" 2>&1 | plain
}
plain() { sed "s|$work/||g; s/^/    /"; }
fail() { echo "THE TOUR FAILED: $*" >&2; exit 1; }

step "1. Starting keywardd dev in $dir"
bin/keywardd dev --dir "$dir" >"$work/welcome" &
daemon=$!
for _ in $(seq 300); do
	# The daemon prints its welcome when the socket answers.
	if [ -s "$work/welcome" ]; then break; fi
	kill -0 "$daemon" 2>/dev/null || { wait "$daemon" || true; daemon=; fail "keywardd did not start; it says why above"; }
	sleep 0.1
done
[ -s "$work/welcome" ] || fail "keywardd is not ready after 30 s"
echo "  It runs, with two SoftHSM2 tokens as HSMs, as process $daemon."

# key NAME ARGUMENTS... makes a key called alias/tour-NAME, or takes the one of an earlier tour.
key() {
	local alias=alias/tour-$1
	shift
	if "$ctl" key describe "$alias" >/dev/null 2>&1; then
		echo "  $alias is there from an earlier tour."
	else
		show "$ctl" key create --alias "$alias" "$@"
	fi
}

step "2. A software key for files, and a hardware key for releases"
key files --instance kst-software --spec Aliyun_AES_256
key release --instance kst-hardware --spec EC_P256 --usage SIGN/VERIFY
key archive --instance kst-hardware --spec RSA_3072 --usage SIGN/VERIFY
show "$ctl" key list

step "3. Encrypting a file of 16 MiB, and decrypting it"
head -c 16777216 /dev/urandom >"$work/secret.bin"
show "$ctl" encrypt --key alias/tour-files "$work/secret.bin"
cmp -s "$work/secret.bin" "$work/secret.bin.age" && fail "the encrypted file is the plain one"
show "$ctl" decrypt --out "$work/again.bin" "$work/secret.bin.age"
cmp "$work/secret.bin" "$work/again.bin" || fail "the decrypted file differs"
echo "  The decrypted file is the same, octet for octet."

step "4. A byte of the encrypted file is changed: it must be refused"
cp "$work/secret.bin.age" "$work/changed.age"
printf '\xff\x00\xff' | dd of="$work/changed.age" bs=1 seek=9000000 conv=notrunc status=none
if "$ctl" decrypt --out "$work/changed.bin" "$work/changed.age" 2>"$work/refused"; then
	fail "a changed file was decrypted"
fi
[ ! -e "$work/changed.bin" ] || fail "something was written of a changed file"
plain <"$work/refused"

step "5. Signing a file in the HSM, and verifying it with plain OpenSSL"
for name in release archive; do
	show "$ctl" sign --force --key "alias/tour-$name" --out "$work/$name.sig" "$work/secret.bin"
	"$ctl" key public-key "alias/tour-$name" >"$work/$name.pem"
	show openssl dgst -sha256 -verify "$work/$name.pem" -signature "$work/$name.sig" "$work/secret.bin"
	if openssl dgst -sha256 -verify "$work/$name.pem" -signature "$work/$name.sig" "$work/changed.age" >/dev/null 2>&1; then
		fail "OpenSSL takes the signature for another file"
	fi
done
echo "  OpenSSL takes both signatures for this file, and for no other."

step "6. How keyward is"
show "$ctl" status

step "The tour is over: all steps worked."
if [ "$stay" = no ]; then
	exit 0
fi
cat "$work/welcome"
echo
echo "keywardd goes on. Ctrl-C stops it."
wait "$daemon" || fail "keywardd ended by itself"
daemon=
