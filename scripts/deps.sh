#!/bin/bash
# Installs the Debian packages named as arguments, if they are missing. With nothing missing it does nothing.
set -euo pipefail

if ! command -v dpkg-query >/dev/null; then
	echo "This is not a Debian system; make sure that you have what these Debian packages hold: $*"
	exit 0
fi
missing=()
for package in "$@"; do
	# A line for each architecture that it is there of.
	if ! dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed; then
		missing+=("$package")
	fi
done
if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi

as_root=()
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "Missing are: ${missing[*]}. Install them as root: apt-get install ${missing[*]}" >&2
		exit 1
	fi
	as_root=(sudo)
fi
echo "Installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
