# Pagoda's targets. `make run` and `make test` set up whatever they need; everything made lies in build/ and bin/.

GO       ?= go
CARGO    ?= cargo
ARGS     ?=
FUZZTIME ?= 10s
PREFIX   ?= /usr/local
VERSION  := $(shell cat VERSION)
COMMIT   ?= $(shell test -e .git && git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# Go takes gcc where nothing is said, Rust and make take cc: one of them for all three.
ifeq ($(origin CC),default)
CC := $(shell command -v gcc >/dev/null && echo gcc || echo cc)
endif
export GO CARGO CC
export CGO_ENABLED := 1

LIB     := build/lib/libtokenizers.a
LIB_SRC := ffi/rust/build.sh ffi/rust/Cargo.toml ffi/rust/Cargo.lock $(wildcard ffi/rust/src/*.rs)
LDFLAGS  = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
files    = $$(find . -path ./build -prune -o -path ./.git -prune -o -name '$(1)' -print)

.PHONY: help run build test lint race fuzz upstream bench bench-cpu bench-proxy cuda gpu-check install clean need \
	gotest cudrv arm64 sdk-python sdk-node hub-libraries hub-python schemathesis lint-go lint-c lint-rust lint-tree

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 11

run: build ## serve the built-in model on port 8000; make run ARGS="--port 9000"
	@bin/pagoda serve $(ARGS)

build: $(LIB) ## make bin/pagoda
	@mkdir -p bin
	@$(GO) build -trimpath -buildvcs=false -ldflags "$(LDFLAGS)" -o bin/pagoda ./cmd/pagoda

$(LIB): $(LIB_SRC) | need
	@echo "building $@ (Rust; once, some minutes)"
	@sh ffi/rust/build.sh

need: # say in one line each what is missing
	@sh test/need.sh

test: build ## all tests; ends with a list of what was skipped and why
	@rm -f build/skipped.txt
	@$(MAKE) --no-print-directory -k sdk-python sdk-node hub-libraries gotest cudrv minilm arm64 schemathesis; status=$$?; \
		sh test/skipped.sh build/skipped.txt; exit $$status

gotest: $(LIB)
	@$(GO) run ./test/summary -skips build/skipped.txt ./...

cudrv: need # the layer over CUDA's driver, which the tag cuda builds
	@sh test/cuda.sh

arm64: need # the kernels' tests for ARM, under an emulator
	@sh test/arm64.sh

sdk-python: build
	@sh test/python/run.sh clients

hub-libraries: need
	@sh test/python/run.sh hub

hub-python: hub-libraries # downloads beside the hubs' own libraries
	@$(GO) test -count=1 -run Python ./hub

schemathesis: build
	@sh test/python/run.sh schemathesis

minilm: need # a real encoder, from a package
	@sh test/minilm.sh

sdk-node: build
	@sh test/node/run.sh

lint: lint-go lint-c lint-rust lint-tree ## gofmt, vet, staticcheck, C warnings, rustfmt, clippy, tree

lint-go: $(LIB) build/staticcheck
	@out=$$("$$($(GO) env GOROOT)/bin/gofmt" -l $(call files,*.go)); \
		test -z "$$out" || { echo "not formatted as gofmt does:"; echo "$$out"; exit 1; }
	@$(GO) vet ./...
	@build/staticcheck ./...
	@sh test/cuda.sh vet

build/staticcheck: tools/go.mod tools/go.sum | need
	@mkdir -p build
	@cd tools && $(GO) build -buildvcs=false -o ../build/staticcheck honnef.co/go/tools/cmd/staticcheck

lint-c: need
	@sh test/lint-c.sh $(call files,*.c)

lint-rust: $(LIB)
	@sh test/lint-rust.sh

lint-tree:
	@sh test/lint-tree.sh

upstream: build ## the black-box suite in front of a real vLLM on the CPU (downloads several GB; VLLM_PYTHON names one that is there; SIM llm-d-inference-sim instead)
	@sh test/upstream/run.sh

race: $(LIB) ## all Go tests under the race detector
	@rm -f build/skipped-race.txt
	@$(GO) run ./test/summary -skips build/skipped-race.txt -race -timeout 30m ./...; status=$$?; \
		sh test/skipped.sh build/skipped-race.txt; exit $$status

fuzz: $(LIB) ## each fuzz target for FUZZTIME (10s)
	@sh test/fuzz.sh $(FUZZTIME)

bench: build ## measure the built-in model on this machine, then the Go benchmarks
	@bin/pagoda bench $(ARGS)
	@$(GO) test -run '^$$' -bench . -benchtime 200ms ./kernels/... ./backends/...

bench-cpu: build ## measure the CPU kernels beside the machine's limits and llama.cpp (LLAMA_BENCH, LLAMA_BATCHED_BENCH, LLAMA_MODELS)
	@$(GO) build -trimpath -buildvcs=false -o build/bench-cpu ./bench/cpu
	@build/bench-cpu -commit $(COMMIT) $(ARGS)

bench-proxy: build ## measure what the proxy adds, beside nginx where it is installed (NGINX names it), into docs/performance.md
	@$(GO) build -trimpath -buildvcs=false -o build/bench-proxy ./bench/proxy
	@build/bench-proxy -commit $(COMMIT) -nginx $(or $(NGINX),nginx) -write docs/performance.md $(ARGS)

cuda: need ## compile the CUDA kernels (NVCC names the compiler; else fetches NVIDIA's, 100 MB)
	@sh kernels/cuda/build.sh

gpu-check: need ## hold the CUDA kernels to their references on this machine's GPU, and print their speed
	@sh test/cuda.sh check

install: build ## copy bin/pagoda to PREFIX/bin (/usr/local)
	@mkdir -p "$(DESTDIR)$(PREFIX)/bin"
	@install -m 755 bin/pagoda "$(DESTDIR)$(PREFIX)/bin/pagoda"

clean: ## remove everything made
	@rm -rf bin build
