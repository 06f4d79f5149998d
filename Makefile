# keyward. On a fresh Debian 12 with Go, "make run" shows it at work and "make test" proves it.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GO          ?= go
DIR         ?= .keyward
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The day of the build: the daemon does not believe a clock before it.
BUILT       ?= $(shell date -u -d @$${SOURCE_DATE_EPOCH:-$$(date +%s)} +%F)

# What building, running and testing need beside Go.
PACKAGES := gcc libc6-dev pkg-config libssl-dev openssl curl softhsm2 opensc \
	openssh-client openssh-server valgrind p11-kit p11-kit-modules gnutls-bin libengine-pkcs11-openssl libnss3-tools nginx-light openjdk-17-jdk-headless man-db

.DEFAULT_GOAL := help
.PHONY: help deps build module run tour test check bench benchpkcs11 benchxki packages appliance faults faulty fuzz clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

deps: ## install the Debian packages that are missing
	@scripts/deps.sh $(PACKAGES)

build: module ## build bin/keywardd, bin/keywardctl and bin/libkeyward-pkcs11.so
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '-X github.com/keyward/keyward/daemon.release=$(VERSION) -X github.com/keyward/keyward/daemon.built=$(BUILT)' -o bin/keywardd ./daemon/keywardd
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X github.com/keyward/keyward/ctl.Version=$(VERSION)' -o bin/keywardctl ./ctl/keywardctl

# The PKCS #11 module, which other people's programs load: C11, libc, and every warning that there is.
MODULE_FLAGS := -ffile-prefix-map=$(CURDIR)=. -std=c11 -D_GNU_SOURCE -O2 -g -fPIC -fvisibility=hidden -fstack-protector-strong -D_FORTIFY_SOURCE=2 -pthread \
	-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
	-Wvla -Wcast-qual -Wcast-align -Wwrite-strings -Wundef -Wformat=2 -Wnull-dereference -Wimplicit-fallthrough -Wpointer-arith -Werror
# major.minor of the release, for C_GetInfo; 0.0 for what is none.
MODULE_VERSION := $(shell echo '$(VERSION)' | sed -nE 's/^v?([0-9]{1,2})\.([0-9]{1,2}).*/-DMODULE_MAJOR=\1 -DMODULE_MINOR=\2/p')
MODULE_LINK  := -shared -Wl,--version-script=pkcs11front/module/module.map -Wl,-z,defs,-z,relro,-z,now,-z,noexecstack

MODULE := bin/libkeyward-pkcs11.so
module: $(MODULE) ## build bin/libkeyward-pkcs11.so, the PKCS #11 module

$(MODULE): $(wildcard pkcs11front/module/*.[ch]) pkcs11front/module/module.map Makefile
	@mkdir -p $(@D)
	$(CC) $(MODULE_FLAGS) $(MODULE_VERSION) $(MODULE_LINK) -o $@ pkcs11front/module/*.c

run: deps build ## start keywardd dev, take a tour through it, and stay until Ctrl-C
	@scripts/tour.sh --stay $(DIR)

tour: deps build ## the same tour, then stop
	@scripts/tour.sh $(DIR)

check: ## formatting, vet, staticcheck
	@unformatted="$$(gofmt -l $$(git ls-files '*.go'))"; \
	if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# Tests that compute for long and hand nothing from one goroutine to another that others don't: they run once, without the race detector. So
# do the programs from outside, beside the pool's tests, as both wait a lot.
SLOW      := ^Test(PoolIsolated|Faults|CKREverywhere|CKRElsewhere|BadImportsTakeNothingDown|ScarceSessions|CeremonyInterrupted|ImportFaults|PinnedImportFaults|ImportFailover|RecoverECPublic|Wycheproof|Import|Service|CertificateRequests|SecondaryUsage|KeyUsesInHSM)$$
SLOW_DIRS := ./hsmpool ./kms ./kms/softkey

test: deps check module ## run every test, most under the race detector; the long ones once more at full size
	$(GO) test -race -p 3 -timeout 14m -skip '$(SLOW)' $$($(GO) list ./... | grep -v -e /e2e -e '/hsmpool$$')
	$(GO) test -race -timeout 14m -skip '$(SLOW)' ./hsmpool & pool=$$!; \
	$(GO) test -p 1 -timeout 14m -run '$(SLOW)' $(SLOW_DIRS) & slow=$$!; \
	failed=0; $(GO) test -timeout 14m ./e2e || failed=1; wait $$pool || failed=1; wait $$slow || failed=1; exit $$failed
	KEYWARD_TEST_LONG=1 $(GO) test -timeout 5m -run 'TestBitFlips|TestLargeFile' ./keystore/boltstore ./e2e

bench: deps build ## Go benchmarks, one short round each
	$(GO) test -run '^$$' -bench . -benchtime 200ms ./...

benchpkcs11: deps build ## the PKCS #11 door beside p11-kit's server and SoftHSM2 alone, as ratios: three to seven minutes
	@scripts/bench-pkcs11.sh

benchxki: deps ## 1,800 requests of external keys a second for 30 s, twice: members of 2 ms a call, and one of them killed half-way
	KEYWARD_BENCH_SECONDS=30 $(GO) test -run '^$$' -bench Proxy -benchtime 1x ./e2e

packages: deps ## build the .deb and the .rpm for this machine's architecture into dist/; ARCH=arm64 for another
	@scripts/packages.sh $(or $(ARCH),$(shell $(GO) env GOHOSTARCH)) $(VERSION)

appliance: deps ## install the package on a Debian 12 that boots in a container, and use, upgrade, break, remove and purge it. For root
	@scripts/appliance.sh

faults: deps ## at least 200 faults of HSMs under load: a minute or two
	KEYWARD_TEST_FAULTS=208 $(GO) test -timeout 20m -v -run TestFaults ./hsmpool

faulty: deps ## build modules that wrap SoftHSM2 and fail on order, for bench --fault; never to be installed
	$(GO) run ./hsmpool/hsmtest/faulty/build -dir bin/faulty faulty east west
	@echo 'Made bin/faulty/faulty.so, and east.so and west.so for one member each. They are for trying out, never to be installed:'
	@echo 'whoever can write the .control file beside one can stop the HSM behind it. keywardctl bench --help says how they are used.'

fuzz: ## each fuzz target for a few seconds
	@scripts/fuzz.sh 5s
	@mkdir -p bin
	$(CC) -std=c11 -D_GNU_SOURCE -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fsanitize-coverage=trace-pc -o bin/fuzz-answers \
		pkcs11front/module/test/fuzz.c $(addprefix pkcs11front/module/,calls.c wire.c attribute.c mechanism.c)
	bin/fuzz-answers -t 5 pkcs11front/module/test/corpus

clean: ## remove what was built, but no keys
	rm -rf bin dist
