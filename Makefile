# Pagoda's targets. `make run` and `make test` set up whatever they need; everything made lies in build/ and bin/.

GO       ?= go
CARGO    ?= cargo
CC       ?= cc
ARGS     ?=
FUZZTIME ?= 10s

VERSION := $(shell cat VERSION)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

LIB      := build/lib/libtokenizers.a
RUST_SRC := $(shell find ffi/rust -name '*.rs' -o -name 'Cargo.*' -o -name build.sh)
C_SRC     = $(shell git ls-files '*.c' 2>/dev/null || find . -name '*.c' -not -path './build/*')

.PHONY: help run build test lint race fuzz bench clean need install gotest sdk-python sdk-node schemathesis \
	lint-go lint-c lint-rust lint-tree

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

run: build ## serve the built-in model on port 8000; make run ARGS="--port 9000"
	@bin/pagoda serve $(ARGS)

build: $(LIB) ## make bin/pagoda
	@mkdir -p bin
	@$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/pagoda ./cmd/pagoda

$(LIB): $(RUST_SRC) | need
	@echo "building $@ (Rust; once, some minutes)"
	@CARGO="$(CARGO)" sh ffi/rust/build.sh
	@touch $@

need: # say in one line each what is missing
	@GO="$(GO)" CARGO="$(CARGO)" CC="$(CC)" sh test/need.sh

test: build ## all tests; ends with a list of what was skipped and why
	@rm -f build/skipped.txt
	@$(MAKE) --no-print-directory -k gotest sdk-python sdk-node schemathesis; status=$$?; \
		sh test/skipped.sh; exit $$status

gotest: $(LIB)
	@$(GO) run ./test/summary -skips build/skipped.txt ./...

sdk-python: build
	@sh test/python/run.sh clients

schemathesis: build
	@sh test/python/run.sh schemathesis

sdk-node: build
	@sh test/node/run.sh

race: $(LIB) ## all Go tests under the race detector
	@$(GO) run ./test/summary -skips /dev/null -race -timeout 30m ./...

fuzz: $(LIB) ## each fuzz target for FUZZTIME (10s)
	@GO="$(GO)" sh test/fuzz.sh $(FUZZTIME)

bench: build ## measure the built-in model on this machine, then the Go benchmarks
	@bin/pagoda bench $(ARGS)
	@$(GO) test -run '^$$' -bench . -benchtime 200ms ./kernels/... ./backends/...

lint: lint-go lint-c lint-rust lint-tree ## gofmt, vet, staticcheck, C warnings, rustfmt, clippy, tree

lint-go: $(LIB) build/staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go' -not -path './build/*')); \
		test -z "$$out" || { echo "not gofmt-clean:"; echo "$$out"; exit 1; }
	@$(GO) vet ./...
	@build/staticcheck ./...

build/staticcheck: tools/go.mod tools/go.sum
	@mkdir -p build
	@cd tools && $(GO) build -o ../build/staticcheck honnef.co/go/tools/cmd/staticcheck

lint-c: need
	@CC="$(CC)" sh test/lint-c.sh $(C_SRC)

lint-rust: need
	@CARGO="$(CARGO)" sh test/lint-rust.sh

lint-tree:
	@sh test/lint-tree.sh

install: build ## copy bin/pagoda to PREFIX/bin (/usr/local)
	@install -D -m 755 bin/pagoda "$(DESTDIR)$(or $(PREFIX),/usr/local)/bin/pagoda"

clean: ## remove everything made
	@rm -rf bin build
