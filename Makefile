# One-liners over cargo, xtask and scripts/: nothing to install first. `make help` lists them.
CARGO ?= cargo
TANDEM = target/debug/tandem
SEEDS ?= 10000
DIVIDED ?= 500
BESIDE ?= 200
KEYED ?= 200
ROUNDS ?= 5
SERVICES ?= postgres singleton copies sessions partitions keys http tcp

.DEFAULT_GOAL := help
.PHONY: help setup build demo dev test lint check fix sim fuzz drill bench bench-pg bench-http bench-tcp bench-services test-pg test-http deny

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

setup: ## install PostgreSQL where it is missing and apt can; else say what to install
	@scripts/setup

build: setup
	$(CARGO) build --package tandem

demo: build ## three nodes, broken on purpose, nothing lost (ONCE=1: stop at the end)
	$(TANDEM) demo $(if $(ONCE),--once)

dev: build ## a cluster of three on this machine until Ctrl-C
	$(TANDEM) dev --nodes 3

test: setup lint ## everything that CI runs
	$(CARGO) test --workspace
	$(CARGO) run --quiet --package tandem-sim -- --seeds $(SEEDS)
	$(CARGO) build --package tandem
	TANDEM=$(TANDEM) scripts/test-http
	$(TANDEM) drill --fault postmaster-kill,node-kill,node-cut,link-cut,all-kill,switchover --rounds 1 --json
	$(TANDEM) drill --service singleton --fault instance-kill,lie,node-kill,node-cut,daemon-freeze,scale --json
	$(TANDEM) drill --service copies --fault instance-kill,instance-freeze,lie,drain,scale,change,node-kill --json
	$(TANDEM) drill --service sessions --fault drain,node-kill --json
	$(TANDEM) drill --service partitions --fault instance-kill,drain,scale,change,node-kill,daemon-freeze --json
	$(TANDEM) drill --service keys --fault instance-kill,drain,change,node-kill,daemon-kill --json
	$(TANDEM) drill --service http --fault instance-kill,lie,drain,resize --json
	$(TANDEM) drill --service tcp --fault instance-kill,resize --json

lint:
	$(CARGO) fmt --all --check
	$(CARGO) xtask tidy
	$(CARGO) clippy --workspace --all-targets -- -D warnings

check: lint ## quick and never writes a source file: lint, core and sim tests, 200 seeds, docs
	$(CARGO) test --package tandem-core --package tandem-sim --package xtask
	$(CARGO) run --quiet --package tandem-sim -- --seeds 200
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --no-deps --package tandem-core

fix: ## format, apply clippy's suggestions, rewrite what is generated
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all
	$(CARGO) xtask gen

sim: ## simulate 10,000 seeds (SEEDS=n) 500 of divided work (DIVIDED=n), 200 of its doors (KEYED=n), 200 of copies (BESIDE=n), or one (SEED=n, OF=copies)
	$(CARGO) run --quiet --package tandem-sim -- \
		$(if $(SEED),--seed $(SEED) $(addprefix --,$(OF)),--seeds $(SEEDS))
	$(if $(SEED),,$(CARGO) run --quiet --package tandem-sim -- --partitions --seeds $(DIVIDED))
	$(if $(SEED),,$(CARGO) run --quiet --package tandem-sim -- --copies --seeds $(BESIDE))
	$(if $(SEED),,$(CARGO) run --quiet --package tandem-sim -- --keys --seeds $(KEYED))

fuzz: ## parsers of strangers' bytes with SEEDS cases each; FUZZ_SEED=n repeats one
	FUZZ_SEEDS=$(SEEDS) $(CARGO) test --package tandem --lib -- fuzz

drill: setup ## every fault on every service, release build; what is over its budget fails (ROUNDS=5, SERVICES=http)
	$(CARGO) build --release --package tandem
	failed=; for service in $(SERVICES); do \
		target/release/tandem drill --strict --service $$service --rounds $(ROUNDS) || \
			failed="$$failed $$service"; done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

bench: setup bench-http bench-services ## everything that is measured, beside HAProxy and nginx (STRICT=1: a missed limit fails)
	scripts/bench

bench-pg: setup ## the front door of a PostgreSQL beside HAProxy in TCP mode
	scripts/bench

bench-http: ## an HTTP and a TCP service beside HAProxy and nginx: rates, times, memory, a death
	scripts/bench-http

bench-services: setup ## how soon singletons and partitions are back, beside their limits
	$(CARGO) build --release --package tandem
	target/release/tandem drill $(if $(STRICT),--strict) --service singleton --fault instance-kill,node-kill --rounds $(ROUNDS)
	target/release/tandem drill $(if $(STRICT),--strict) --service partitions --fault instance-kill,node-kill --rounds $(ROUNDS)

bench-tcp: ## a load-balanced TCP service beside HAProxy
	scripts/bench-tcp

test-pg: setup ## integration tests against another PostgreSQL (VERSION=16, 17 or 18)
	scripts/test-pg "$(VERSION)"

test-http: ## the HTTP door from outside: frames by Python's h2 (ONLY=part of a case's name)
	scripts/test-http

deny: ## licences and advisories; needs cargo-deny
	$(CARGO) deny check
