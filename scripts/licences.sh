#!/bin/bash
# Prints Debian's copyright file: keyward's licence, and those of all modules that its programs are linked with.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=$1

cat <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: keyward
Source: https://github.com/keyward/keyward

Files: *
Copyright: The keyward project
License: Apache-2.0
 On Debian systems the text of this licence is in
 /usr/share/common-licenses/Apache-2.0.
Comment:
 The programs are linked with the modules below, whose licences follow.
END
# module, version, folder: of everything that either program has in it, but for keyward itself
{
	GOARCH=$arch CGO_ENABLED=1 go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./daemon/keywardd
	GOARCH=$arch CGO_ENABLED=0 go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./ctl/keywardctl
	echo "the Go standard library, $(go env GOVERSION) $(go env GOROOT)"
} | sort -u | while read -r line; do
	dir=${line##* } what=${line% *}
	[ -n "$dir" ] || continue
	texts=()
	for text in "$dir"/LICENSE* "$dir"/LICENCE* "$dir"/COPYING* "$dir"/NOTICE*; do
		[ -f "$text" ] && texts+=("$text")
	done
	if [ ${#texts[@]} -eq 0 ]; then
		echo "scripts/licences.sh: $what has no licence in $dir" >&2
		exit 1
	fi
	printf ' .\n %s:\n .\n' "$what"
	for text in "${texts[@]}"; do
		if grep -q 'Apache License' "$text" && grep -q 'Version 2.0, January 2004' "$text"; then
			printf ' The Apache License, version 2.0: see above.\n'
			continue
		fi
		sed -e 's/\r$//' -e 's/[[:space:]]*$//' -e 's/^$/./' -e 's/^/ /' "$text"
	done
done
