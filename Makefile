# make          build bin/relay
# make test     everything that must hold: lint, tests (installs what they need)
# make docs     write the generated tables of README.md and docs/
# make pack     write the archives of files that are part of the binary
# make man      write the manual pages into MANDIR (man/)
# make demo     the main job in one terminal
# make interop  requests for the platforms' own libraries to verify
# make browser  stories of the page in a real Chromium; screenshots land in .artifacts/
# make images   the pictures of README.md, of relay demo --page
# make deploy   check examples/deploy with the types and tools of those who read them
# make bench    benchmarks, for reading, not for passing
# make fuzz     every fuzz target for FUZZTIME
# make soak     the long crash loops, and attacks on the gates
# make performance  measure what docs/performance.md tells; alone on the machine, ten minutes
# make figures  what neighbours, backlogs and limits come to; alone on the machine, half an hour

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   = -s -w -X main.version=$(VERSION)
TOOL      = $(GO) tool -modfile=.tools/go.mod
FUZZTIME ?= 30s
MANDIR   ?= man

# Where tests of the page leave screenshots, and what a failed one has seen.
export RELAY_ARTIFACTS ?= $(abspath .artifacts)

# SQLite is 150,000 lines of Go that a compiler made from C, run by one goroutine:
# looking for races in them costs minutes and can find nothing.
RACE = -race -gcflags='github.com/ncruces/go-sqlite3-wasm/...=-race=false'

# Files with misspelt words on purpose (what the operator may have typed), and lists of others.
QUOTED = ':!policy/testdata' ':!*.sum' ':!*lock.json'

.PHONY: build test lint lint-format lint-modules lint-vet lint-staticcheck lint-errors lint-zerolog lint-deadcode lint-spelling lint-darwin vuln setup interop browser images deploy pack docs man demo bench fuzz soak figures performance

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./relay

# The race detector costs five times the CPU, and allocates on its own. These tests run without it: those that
# count allocations, and those of one goroutine that compute for long, such as the one that tries every
# attribute of the file in some 40,000 ways. TestEveryTestRuns holds both lists against the tests.
UNRACED          = ^TestAllocations|Quotes(WhatWasDrawn|Nothing)$$|PlainEnglish$$|GuaranteesAreShown$$|LinksLeadSomewhere$$|FollowTheArrows$$|HasOneHome$$|EveryPackage|LogKeys$$|TooExpensive$$|OfAllFilters$$|CostEnds$$
UNRACED_PACKAGES = ./relay ./ingest ./policy ./policy/sign ./config/eval ./relay/deliver ./relay/gate ./relay/post

# Packages that mostly wait, for processes and servers, begin first and leave the CPUs to others;
# atexit_sleep_ms spares every process a second of sleep at its end. Linters have no deadlines, and what
# visits the page generous ones, so two of these run at the same time.
test: setup
	$(MAKE) -j2 lint vuln
	GORACE=atexit_sleep_ms=0 $(GO) test $(RACE) -p 4 -shuffle=on -timeout 30m -skip '$(UNRACED)' ./relay ./outbox/redisstream ./relay/front ./...
	$(GO) test -timeout 30m -run '$(UNRACED)' $(UNRACED_PACKAGES)
	$(MAKE) -j2 browser interop deploy

# The longest first.
lint: lint-staticcheck lint-deadcode lint-darwin lint-zerolog lint-errors lint-vet lint-format lint-modules lint-spelling

lint-format:
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted"; exit 1; }

lint-modules:
	$(GO) mod tidy -diff

lint-vet:
	$(GO) vet ./...

lint-staticcheck:
	$(TOOL) staticcheck ./...

lint-errors:
	$(TOOL) go-errorlint ./...

lint-zerolog:
	$(GO) vet -vettool=$$($(GO) tool -n -modfile=.tools/go.mod zerologlint) ./...

lint-deadcode:
	@unused=$$($(TOOL) deadcode -test ./...) && [ -z "$$unused" ] || { echo "nothing calls: $$unused"; exit 1; }

lint-spelling:
	@git ls-files -- . $(QUOTED) | xargs $(TOOL) misspell -error

# It builds for macOS, too.
lint-darwin:
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./relay

# govulncheck -version names the time of the database of known vulnerabilities if it can be reached from here.
vuln:
	@if $(TOOL) govulncheck -version 2>/dev/null | grep -q '^DB updated'; then $(TOOL) govulncheck ./...; \
	else echo "govulncheck: its database cannot be reached from here; not checked"; fi

# The race detector needs a C compiler; nothing of it goes into the product. Tests of
# the shared outbox start redis servers of their own. Node.js, 20 or newer, is the
# judge of what ecmascript = true makes, and runs the libraries that verify signatures.
# Python and openssl run receivers of examples/verify. Chromium visits the page. Of Prometheus
# tests need promtool, and the exporter that docs/redis.md names. Of systemd tests need two tools, not a running one.
setup:
	@command -v cc >/dev/null || command -v gcc >/dev/null || sh .ci/install gcc libc6-dev
	@command -v redis-server >/dev/null || sh .ci/install redis-server
	@sh .ci/node
	@command -v python3 >/dev/null || sh .ci/install python3
	@python3 -c 'import cryptography' 2>/dev/null || sh .ci/install python3-cryptography
	@command -v openssl >/dev/null || sh .ci/install openssl
	@command -v promtool >/dev/null || sh .ci/install prometheus
	@command -v chromium >/dev/null || command -v chromium-headless-shell >/dev/null || command -v google-chrome >/dev/null || sh .ci/install chromium
	@command -v redis_exporter >/dev/null || command -v prometheus-redis-exporter >/dev/null || sh .ci/install prometheus-redis-exporter
	@command -v systemd-socket-activate >/dev/null || sh .ci/install systemd

interop: build policy/sign/interop/node_modules
	cd policy/sign/interop && node --test

policy/sign/interop/node_modules: policy/sign/interop/package-lock.json
	cd policy/sign/interop && npm ci --no-audit --no-fund --prefer-offline
	@touch $@

browser: build relay/page/browser/node_modules
	cd relay/page/browser && node --test

# The pictures of README.md.
images: build relay/page/browser/node_modules
	cd relay/page/browser && node --test demo.test.mjs
	mkdir -p docs/images && cp $(RELAY_ARTIFACTS)/images/*.png docs/images/

relay/page/browser/node_modules: relay/page/browser/package-lock.json
	cd relay/page/browser && npm ci --no-audit --no-fund --prefer-offline
	@touch $@

# A module of its own: its tests need the types of Kubernetes, Compose and Nomad.
deploy:
	cd examples/deploy/check && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) test ./...

pack:
	$(GO) test -count=1 -run 'Packed$$' ./relay/page ./outbox/redisstream -args -update

docs: pack
	$(GO) test -count=1 -run TestDocumentIsGenerated ./relay/admin -args -update
	$(GO) test -count=1 -run TestDocsAreGenerated ./relay -args -update

man:
	$(GO) test -count=1 -run TestManPages ./relay -args -man $(abspath $(MANDIR))

demo:
	$(GO) run ./relay demo

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

soak:
	RELAY_SOAK_ROUNDS=200 $(GO) test -count=1 -timeout 120m -v -run 'Kill|PowerCut|Operable|Segments' ./...
	$(GO) test -count=1 -timeout 60m -run Attack ./relay/deliver -rapid.checks=20000

performance: build
	$(GO) test -count=1 -timeout 90m -v -run TestPerformanceIsMeasured ./relay -args -measure $(abspath bin/relay)

figures:
	RELAY_FIGURES=1 $(GO) test -count=1 -timeout 60m -v -run 'Isolation|NoisyNeighbour|LimitWindows' ./relay
	RELAY_FIGURES=1 $(GO) test -count=1 -timeout 60m -v -run 'MillionAttempts|BytesPerDelivery' ./outbox/sqlite
	RELAY_FIGURES=1 $(GO) test -timeout 60m -run '^$$' -bench 'History|AcceptBesideReader|DeliveryBytes|DeliveryCost' ./outbox/redisstream
	RELAY_FIGURES=1 $(GO) test -count=1 -timeout 60m -v -run 'LongHistory|Viewers|Weight' ./relay/page
	RELAY_FIGURES=1 $(GO) test -timeout 60m -run '^$$' -bench BulkRedelivery -benchtime 1x ./relay/jobs
	$(GO) test -run '^$$' -bench GatedAttempt -benchmem -count 5 ./relay/deliver
