#!/bin/bash
# Builds the .deb and the .rpm of one architecture into dist/: packages.sh ARCH VERSION. FORMATS and DIST say otherwise. The same commit, Go and compiler give the same octets.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=$1 version=$2

# What the package managers order: releases by their numbers, and everything else before the first of them.
if [[ $version =~ ^v?([0-9]+\.[0-9]+.*)$ ]]; then
	package_version=${BASH_REMATCH[1]}
	if [[ $package_version =~ ^(.*)-([0-9]+)-g([0-9a-f]+)(-dirty)?$ ]]; then # commits after a tag
		package_version=${BASH_REMATCH[1]}+${BASH_REMATCH[2]}.g${BASH_REMATCH[3]}${BASH_REMATCH[4]}
	fi
	package_version=${package_version//-dirty/+dirty}
	package_version=${package_version//-/\~} # 1.0.0-rc1 is before 1.0.0
else
	package_version=0~git$(git log -1 --format=%cd --date=format:%Y%m%d%H%M%S).$version
fi
package_version=${package_version//-dirty/+dirty}
if [ "${3:-}" = --version ]; then # nothing else
	echo "$package_version"
	exit
fi
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
day=$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)

case $arch in
amd64) triplet=x86_64-linux-gnu ;;
arm64) triplet=aarch64-linux-gnu ;;
*) echo "packages are made for amd64 and arm64, not for $arch" >&2; exit 2 ;;
esac
cc=${CC:-gcc} strip=strip objdump=objdump
if [ "$arch" != "$(go env GOHOSTARCH)" ]; then
	if ! command -v "$triplet-gcc" >/dev/null || [ ! -e "/usr/lib/$triplet/libcrypto.so" ]; then
		echo "for $arch this machine needs a compiler and OpenSSL: dpkg --add-architecture $arch && apt-get update && apt-get install gcc-$triplet libssl-dev:$arch" >&2
		exit 1
	fi
	cc=$triplet-gcc strip=$triplet-strip objdump=$triplet-objdump
	export PKG_CONFIG_LIBDIR=/usr/lib/$triplet/pkgconfig:/usr/share/pkgconfig
fi

tools=$PWD/bin/tools
GOBIN=$tools go -C packaging/tools install tool

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
umask 022
mkdir -p "$stage"/usr/{bin,share/{man/man{1,5,8},bash-completion/completions,fish/vendor_completions.d,doc/keyward,keyward},lib/{systemd/system,sysusers.d,tmpfiles.d}}

hardened='-Wl,-z,relro,-z,now'
export GOARCH=$arch CGO_ENABLED=1 CC=$cc CGO_LDFLAGS="-O2 -g $hardened"
go build -trimpath -buildvcs=false -buildmode=pie -ldflags "-s -w -linkmode=external -X github.com/keyward/keyward/daemon.release=$version -X github.com/keyward/keyward/daemon.built=$day" \
	-o "$stage/usr/bin/keywardd" ./daemon/keywardd
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X github.com/keyward/keyward/ctl.Version=$version" -o "$stage/usr/bin/keywardctl" ./ctl/keywardctl
"$strip" -R .comment "$stage/usr/bin/keywardd"
make -s module CC="$cc" VERSION="$version" MODULE="$work/libkeyward-pkcs11.so"
"$strip" --strip-unneeded -R .comment "$work/libkeyward-pkcs11.so"

# The rest is the same for each architecture, and made by programs for this one.
unset GOARCH CC CGO_LDFLAGS
ctl=$work/keywardctl
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$ctl" ./ctl/keywardctl
mkdir "$work/man"
go run ./packaging/man "$work/man" "$package_version" "$day" configs/keyward.toml
for page in "$work"/man/*; do gzip -9nc "$page" >"$stage/usr/share/man/man${page##*.}/$(basename "$page").gz"; done
"$ctl" completion bash >"$stage/usr/share/bash-completion/completions/keywardctl"
"$ctl" completion zsh >"$work/_keywardctl"
"$ctl" completion fish >"$stage/usr/share/fish/vendor_completions.d/keywardctl.fish"
cp systemd/*.service systemd/*.socket "$stage/usr/lib/systemd/system/"
cp systemd/keyward.sysusers "$stage/usr/lib/sysusers.d/keyward.conf"
cp systemd/keyward.tmpfiles "$stage/usr/lib/tmpfiles.d/keyward.conf"
# keywardctl init writes the members of this machine beside it.
awk '/^\[\[member\]\]/ { sample = 1; print "# keywardctl init writes such rows into conf.d/hsm.toml." } /^# Each \[\[share\]\]/ { sample = 0 }
	{ print (sample && /^[^#]/ ? "# " : "") $0 }' configs/keyward.toml >"$stage/usr/share/keyward/keyward.toml"

doc=$stage/usr/share/doc/keyward
cp README.md SECURITY.md ARCHITECTURE.md "$doc/"
cp -r docs "$doc/docs"
gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
scripts/licences.sh "$arch" >"$doc/copyright"
for program in daemon/keywardd ctl/keywardctl; do
	cgo=1; [ $program = ctl/keywardctl ] && cgo=0
	GOARCH=$arch CGO_ENABLED=$cgo GOFLAGS=-trimpath "$tools/cyclonedx-gomod" app -json -std -noserial -notimestamp -main $program -output "$doc/$(basename $program).cdx.json" . 2>"$work/sbom.log" ||
		{ cat "$work/sbom.log" >&2; exit 1; }
	sed -i -E "s/v0\.0\.0-[0-9]{14}-[0-9a-f]{12}(\+dirty)?/v$package_version/g" "$doc/$(basename $program).cdx.json" # the tool knows the source, not the release
done
{
	echo "keyward ($package_version-1) unstable; urgency=medium"
	printf '\n  * What has changed is in changelog.gz.\n\n'
	echo " -- The keyward project <maintainers@keyward.example>  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$work/changelog.Debian.gz"

# The newest version of the C library that what is linked with it asks for.
GLIBC=$("$objdump" -T "$stage/usr/bin/keywardd" "$work/libkeyward-pkcs11.so" | sed -nE 's/.*GLIBC_([0-9]+\.[0-9]+).*/\1/p' | sort -Vu | tail -1)
export ARCH=$arch PACKAGE_VERSION=$package_version STAGE=$stage GLIBC
dist=${DIST:-dist}
mkdir -p "$dist"
for format in ${FORMATS:-deb rpm}; do
	lib=$stage/usr/lib/$triplet/pkcs11
	zsh=$stage/usr/share/zsh/vendor-completions
	[ $format = rpm ] && lib=$stage/usr/lib64/pkcs11 zsh=$stage/usr/share/zsh/site-functions
	rm -rf "$stage/usr/lib64" "$stage/usr/lib/$triplet" "$stage/usr/share/zsh" "$doc"/{changelog.Debian.gz,LICENSE}
	mkdir -p "$lib" "$zsh"
	cp "$work/_keywardctl" "$zsh/"
	install -m 644 "$work/libkeyward-pkcs11.so" "$lib/"
	if [ $format = deb ]; then
		cp "$work/changelog.Debian.gz" "$doc/"
		mkdir -p "$stage/usr/share/lintian/overrides"
		cp packaging/deb/lintian-overrides "$stage/usr/share/lintian/overrides/keyward"
	else
		rm -rf "$stage/usr/share/lintian"
		cp LICENSE "$doc/" # Debian has it already
	fi
	find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	"$tools/nfpm" package --config packaging/nfpm.yaml --packager $format --target "$dist/" >"$work/nfpm.log" || { cat "$work/nfpm.log" >&2; exit 1; }
done
ls -l "$dist"/*"$package_version"*
