#!/bin/bash
# Measures the PKCS #11 door with the same program through four modules, one after the other in each round: keyward's module and p11-kit's
# client on one daemon, p11-kit's server over SoftHSM2, and SoftHSM2 itself. Prints operations a second, the median of the rounds, and each
# one's ratio to SoftHSM2 and to p11-kit's server. The keys are hardware keys of the daemon; those for AES-GCM are session keys.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-2} rounds=${ROUNDS:-3}
softhsm=/usr/lib/softhsm/libsofthsm2.so
client=$(ls /usr/lib/*/pkcs11/p11-kit-client.so)
work=$(mktemp -d)
daemon='' server=''
finish() {
	status=$?
	trap - EXIT INT TERM
	for process in $daemon $server; do kill -TERM "$process" 2>/dev/null && wait "$process" || true; done
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM

${CC:-cc} -std=c11 -D_GNU_SOURCE -O2 -pthread -o "$work/bench" pkcs11front/module/test/bench.c -ldl

bin/keywardd dev --dir "$work/k" >"$work/welcome" 2>"$work/log" &
daemon=$!
until [ -s "$work/welcome" ]; do
	kill -0 "$daemon" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
	sleep 0.1
done
export KEYWARD_SOCKET=$work/k/admin.sock KEYWARD_PKCS11_SOCKET=$work/k/pkcs11.sock
bin/keywardctl key create --alias alias/p256 --instance kst-hardware --spec EC_P256 --usage SIGN/VERIFY >/dev/null 2>&1
bin/keywardctl key create --alias alias/rsa --instance kst-hardware --spec RSA_2048 --usage SIGN/VERIFY >/dev/null 2>&1

export SOFTHSM2_CONF=$work/softhsm2.conf
mkdir "$work/tokens"
printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$work/tokens" >"$SOFTHSM2_CONF"
softhsm2-util --init-token --free --label bench --so-pin 12345678 --pin 1234 >/dev/null
for key in "--key-type EC:prime256v1 --label p256 --id 01" "--key-type rsa:2048 --label rsa --id 02"; do
	# shellcheck disable=SC2086
	pkcs11-tool --module "$softhsm" --token-label bench --login --pin 1234 --keypairgen $key >/dev/null 2>&1
done
# p11-kit's server says where it is, and goes on.
p11-kit server --provider "$softhsm" --name "$work/server.sock" --foreground 'pkcs11:token=bench' >"$work/server" 2>&1 &
server=$!
until [ -S "$work/server.sock" ]; do
	kill -0 "$server" 2>/dev/null || { cat "$work/server" >&2; exit 1; }
	sleep 0.1
done

slot=$(pkcs11-tool --module bin/libkeyward-pkcs11.so -L 2>/dev/null | awk '/token label/ { if (/kst-hardware/) print n; n++ }')
# run NAME OPERATION THREADS: the rate, or nothing if the module can't do it
run() {
	local key=()
	case $2 in p256 | rsa) key=(-k "$2") ;; esac
	case $1 in
	keyward) "$work/bench" -n "$3" -t "$seconds" -s "$slot" "${key[@]}" "$PWD/bin/libkeyward-pkcs11.so" "$2" ;;
	p11-kit-client) P11_KIT_SERVER_ADDRESS=unix:path=$work/k/pkcs11.sock "$work/bench" -n "$3" -t "$seconds" -s "$slot" "${key[@]}" "$client" "$2" ;;
	p11-kit-server) P11_KIT_SERVER_ADDRESS=unix:path=$work/server.sock "$work/bench" -n "$3" -t "$seconds" -p 1234 "${key[@]}" "$client" "$2" ;;
	softhsm2) "$work/bench" -n "$3" -t "$seconds" -p 1234 "${key[@]}" "$softhsm" "$2" ;;
	esac 2>>"$work/errors" | awk '{ sub("/s", "", $4); print $4 }'
}

modules=(keyward p11-kit-client p11-kit-server softhsm2)
printf '%-8s %7s  %12s %15s %15s %12s   %s\n' OPERATION THREADS "${modules[@]}" 'KEYWARD/SERVER  KEYWARD/SOFTHSM2'
for operation in random p256 rsa gcm; do
	for threads in 1 2 4 16; do
		for module in "${modules[@]}"; do : >"$work/$module.rates"; done
		for _ in $(seq "$rounds"); do
			for module in "${modules[@]}"; do run "$module" "$operation" "$threads" >>"$work/$module.rates" || true; done
		done
		rates=()
		for module in "${modules[@]}"; do
			rates+=("$(sort -n "$work/$module.rates" | awk '{ v[NR] = $1 } END { print NR == 0 ? "-" : v[int((NR + 1) / 2)] }')")
		done
		echo "$operation $threads ${rates[*]}" | awk '
			function ratio(a, b) { return a == "-" || b == "-" || b == 0 ? "-" : sprintf("%.2f", a / b) }
			{ printf "%-8s %7d  %12s %15s %15s %12s   %14s  %16s\n", $1, $2, $3, $4, $5, $6, ratio($3, $5), ratio($3, $6) }'
	done
done
[ ! -s "$work/errors" ] || { echo; echo "What could not be done:"; sort "$work/errors" | uniq -c; }
