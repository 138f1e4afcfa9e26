# What a developer does with this checkout. `make run`, `make test` and `make test_load` bring up a private
# PostgreSQL and a private RabbitMQ first, unless DATABASE_URL and AMQP_URL name others: see deploy/stack.sh.

# A shell that was open when Rust was installed does not know its folder yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

STACK := deploy/stack.sh

# The servers up, and their URLs in the environment of what follows in the same recipe.
WITH_STACK := $(STACK) up && eval "$$($(STACK) env)"

# Where cargo puts what it builds.
BIN := $(or $(CARGO_TARGET_DIR),target)/release/ticketd

LOADTEST := $(or $(CARGO_TARGET_DIR),target)/release/loadtest

# How long `make test_load` runs, and over how many connections.
TIME ?= 30S
CONNECTIONS ?= 100

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z_]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Run

.PHONY: run
run: need_cargo ## Build, bring up the servers, and serve on 127.0.0.1:8080 until Ctrl-C
	@cargo build --release && $(WITH_STACK) && exec $(BIN) serve

##@ Check

.PHONY: test
test: need_cargo ## Run every test against the real servers, in about ten minutes
	@printf '%s\n' \
		'Builds ticketd and its tests (about 3 minutes the first time), brings up a private PostgreSQL and RabbitMQ,' \
		'which it installs where they are missing, and runs, on two cores:' \
		'  unit tests, and the parser against its oracle    half a minute' \
		'  the binary from outside                          4 minutes' \
		'  a selection of faults                            4 minutes' \
		'  the tests of the load test                       seconds'
	@$(WITH_STACK) && cargo test --workspace

# There are no examples: naming them has cargo choose the same features as for clippy, so that nothing is built twice.
DOC := RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items --examples

# Every script of the checkout; what cargo has built may hold others.
SCRIPTS = .ci/run $(shell find deploy docs loadtest tests -name target -prune -o -name '*.sh' -print)

# What deny.toml allows, and no newer release of the tool, which may object to more or need a newer compiler.
DENY := cargo deny --locked --workspace
DENY_WHAT := licenses bans sources
DENY_VERSION := 0.20.2

ALERTS := deploy/prometheus

# What holds the manifests against the schemas of Kubernetes, and where it is put.
KUBERNETES_VALIDATE_VERSION := 1.37.0
YAMLLINT_VERSION := 1.38.0
MANIFEST_TOOLS := $(or $(CARGO_TARGET_DIR),target)/kubernetes-validate-$(KUBERNETES_VALIDATE_VERSION)-$(YAMLLINT_VERSION)

.PHONY: lint
lint: need_cargo need_shellcheck need_cargo_deny need_prometheus need_systemd need_manifest_tools ## Check format, lints, documentation, scripts, dependencies, units, manifests and alerts; a warning is an error
	shellcheck $(SCRIPTS)
	deploy/systemd/check.sh
	deploy/kubernetes/check.sh $(MANIFEST_TOOLS)
	promtool check config --lint-fatal $(ALERTS)/prometheus.yml
	promtool test rules $(ALERTS)/rules.test.yml
	$(DENY) check -D warnings -A license-exception-not-encountered $(DENY_WHAT)
	$(DENY) --manifest-path fuzz/Cargo.toml check -D warnings $(DENY_WHAT)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(DOC) --lib
	$(DOC) --package loadtest --bins
	$(DOC) --package ticketd-testing --lib
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target) --all-targets --no-default-features -- -D warnings

.PHONY: test_faults
test_faults: need_cargo ## Break servers, links and processes, and compare the rows with what was answered; SEED=7 MINUTES=30 for random faults alone
	@if [ -n "$(SEED)$(MINUTES)" ]; then \
		SEED='$(SEED)' MINUTES='$(MINUTES)' cargo test --test faults -- --ignored --nocapture nemesis::random_faults_from_env_seed; \
	else \
		cargo test --test faults -- --include-ignored --skip long:: --skip cluster:: --skip upgrading:: --skip random_faults_from_env_seed; \
	fi

.PHONY: test_cluster
test_cluster: need_cargo ## Kill, stop and restart nodes of a RabbitMQ of three, in a quarter of an hour; SEED=7 MINUTES=30 for random faults alone
	@SEED='$(SEED)' MINUTES='$(MINUTES)' cargo test --test faults -- --ignored --nocapture --test-threads=1 \
		$(if $(SEED)$(MINUTES),cluster::nemesis::,cluster::)

.PHONY: test_long
test_long: need_cargo ## Keep RabbitMQ away for 5 minutes and PostgreSQL for 10, under load
	@cargo test --test faults -- --ignored --nocapture long::

# The ticketd that an upgrade comes from: a commit that all of history is needed for. Kept in a file until releases have
# tags; the present one is of the day before groups had a second version.
OLD ?= $(shell cat tests/faults/last_release)
OLD_FOLDER = $(abspath $(or $(CARGO_TARGET_DIR),target))/upgrade

.PHONY: test_upgrade
test_upgrade: need_cargo ## Upgrade two of each role one by one under load, from the last release or from OLD=COMMIT; builds that first
	@git cat-file -e '$(OLD)^{commit}' 2>/dev/null || { echo 'there is no $(OLD) here: git fetch --unshallow' >&2; exit 1; }
	@[ -d '$(OLD_FOLDER)/$(OLD)' ] || { mkdir -p '$(OLD_FOLDER)/$(OLD).part' && \
		git archive '$(OLD)' | tar -x -C '$(OLD_FOLDER)/$(OLD).part' && mv '$(OLD_FOLDER)/$(OLD).part' '$(OLD_FOLDER)/$(OLD)'; }
	@TICKETD_REVISION='$(OLD)' CARGO_TARGET_DIR='$(OLD_FOLDER)/$(OLD)/target' \
		cargo build --locked --bin ticketd --manifest-path '$(OLD_FOLDER)/$(OLD)/Cargo.toml'
	@OLD_TICKETD='$(OLD_FOLDER)/$(OLD)/target/debug/ticketd' cargo test --test faults -- --ignored upgrading::

.PHONY: test_mutations
test_mutations: need_cargo ## Break the code on purpose, one mutation at a time, and expect the tests to notice; NAME='nack'
	@tests/faults/mutations.sh $(if $(NAME),'$(NAME)')

.PHONY: test_alerts
test_alerts: need_cargo need_prometheus ## Have each alert fire in a real Prometheus, by a fault of its own, in three minutes
	@$(WITH_STACK) && cargo test --test it -- --ignored --test-threads=1 alerts::

# The fuzz targets: all of them, or one with TARGET=row. A sanitizer would need a nightly toolchain, and looks for what
# unsafe code does wrong, of which ticketd has none.
TARGETS := $(or $(TARGET),parser group row split)
FUZZ := cargo fuzz run --sanitizer none

.PHONY: fuzz
fuzz: need_cargo need_cargo_fuzz ## Fuzz the parser, groups, rows and the splitter, MINUTES=5 each; TARGET=row for one
	@for target in $(TARGETS); do \
		mkdir -p fuzz/found/$$target && \
		$(FUZZ) $$target fuzz/found/$$target fuzz/corpus/$$target tests/tickets/valid tests/tickets/invalid -- \
			-max_total_time=$$(($(or $(MINUTES),5) * 60)) -dict=fuzz/ticket.dict -max_len=4096 -timeout=10 \
			|| exit 1; \
	done

.PHONY: fuzz_keep
fuzz_keep: need_cargo need_cargo_fuzz ## Keep what fuzzing found in fuzz/corpus/, as far as it reaches new code
	@for target in $(TARGETS); do \
		mkdir -p fuzz/found/$$target && \
		$(FUZZ) $$target fuzz/corpus/$$target fuzz/found/$$target -- -set_cover_merge=1 || exit 1; \
	done

# What finds what keeps people from using a page, and where it is put; the test reads it there.
AXE_VERSION := 4.14.1
PAGE_FOLDER := $(or $(CARGO_TARGET_DIR),target)/tmp
AXE_FOLDER := $(PAGE_FOLDER)/axe-core

.PHONY: test_page
test_page: need_cargo need_chromium ## Look at the page at / in a headless Chromium, and run axe on it; KEEP=1 keeps its screenshots in docs/page/
	@mkdir -p '$(AXE_FOLDER)'
	@[ -e '$(AXE_FOLDER)/axe-$(AXE_VERSION).tgz' ] || { \
		cd '$(AXE_FOLDER)' && npm pack --silent axe-core@$(AXE_VERSION) >/dev/null && \
		tar -xzf axe-core-$(AXE_VERSION).tgz --strip-components=1 package/axe.min.js && \
		mv axe-core-$(AXE_VERSION).tgz axe-$(AXE_VERSION).tgz; }
	@$(WITH_STACK) && cargo test --test it page:: -- --include-ignored
	@[ -z '$(KEEP)' ] || cp '$(PAGE_FOLDER)'/page-*.png docs/page/

# What holds a running ticketd against /openapi.json, and where it is put; the test finds it there.
SCHEMATHESIS_VERSION := 4.32.5
OPENAPI_VALIDATOR_VERSION := 0.9.0
ZSTANDARD_VERSION := 0.25.0
OPENAPI_FOLDER := $(PAGE_FOLDER)/openapi
OPENAPI_TOOLS := $(OPENAPI_FOLDER)/.schemathesis-$(SCHEMATHESIS_VERSION)-$(OPENAPI_VALIDATOR_VERSION)-$(ZSTANDARD_VERSION)

.PHONY: test_openapi
test_openapi: need_cargo need_pip ## Hold a running ticketd against its /openapi.json, with and without credentials, in two minutes
	@[ -e '$(OPENAPI_TOOLS)' ] || { \
		rm -rf '$(OPENAPI_FOLDER)' && \
		python3 -m pip install --quiet --target '$(OPENAPI_FOLDER)' schemathesis==$(SCHEMATHESIS_VERSION) \
			openapi-spec-validator==$(OPENAPI_VALIDATOR_VERSION) zstandard==$(ZSTANDARD_VERSION) && touch '$(OPENAPI_TOOLS)'; }
	@$(WITH_STACK) && cargo test --test it openapi:: -- --include-ignored --test-threads=1

.PHONY: test_clients
test_clients: need_cargo need_runtimes ## Run the programs of docs/clients against a ticketd that answers 503 and breaks off, in half a minute
	@$(WITH_STACK) && cargo test --test it clients:: -- --include-ignored

# What makes the Postman collection, and where it is put.
POSTMAN_VERSION := 6.3.3
POSTMAN_FOLDER := $(PAGE_FOLDER)/postman-$(POSTMAN_VERSION)
COLLECTION := docs/clients/ticketd.postman_collection.json

.PHONY: postman
postman: need_npm ## Make the Postman collection of /openapi.json again and compare it with the one that is kept; KEEP=1 keeps it
	@[ -e '$(POSTMAN_FOLDER)/node_modules' ] || npm install --silent --no-audit --no-fund --no-save \
		--prefix '$(POSTMAN_FOLDER)' openapi-to-postmanv2@$(POSTMAN_VERSION)
	@node tests/openapi/postman.mjs '$(POSTMAN_FOLDER)' src/http/handlers/openapi.json >'$(POSTMAN_FOLDER)/made.json'
	@[ -z '$(KEEP)' ] || cp '$(POSTMAN_FOLDER)/made.json' $(COLLECTION)
	@diff -u $(COLLECTION) '$(POSTMAN_FOLDER)/made.json' || { \
		echo 'the collection is not of /openapi.json: make postman KEEP=1' >&2; exit 1; }

# The library that the recorded signatures are of, and where it is put.
WEBHOOKS_VERSION := 1.1.0
WEBHOOKS_FOLDER := $(or $(CARGO_TARGET_DIR),target)/standardwebhooks-$(WEBHOOKS_VERSION)

.PHONY: webhook_vectors
webhook_vectors: ## Ask the published Python library of Standard Webhooks again what the unit tests have recorded of it
	@[ -d '$(WEBHOOKS_FOLDER)' ] || \
		python3 -m pip install --quiet --no-deps --target '$(WEBHOOKS_FOLDER)' standardwebhooks==$(WEBHOOKS_VERSION)
	@PYTHONPATH='$(WEBHOOKS_FOLDER)' PYTHONDONTWRITEBYTECODE=1 python3 tests/webhooks/record.py

.PHONY: compose_check
compose_check: ## Build and try docker-compose.yml on a Docker engine, with its parts restarted under tickets, in ten minutes
	@deploy/compose_check.sh

##@ Measure

.PHONY: test_load
test_load: need_cargo ## Load it with siege and count the rows; TIME=30S CONNECTIONS=100
	@cargo build --release && $(WITH_STACK) && \
		TIME='$(TIME)' CONNECTIONS='$(CONNECTIONS)' exec loadtest/siege.sh

.PHONY: bench
bench: need_cargo ## Measure everything side by side, about MINUTES=10, into loadtest/results/; SOAK=10000000 for a soak test besides
	@cargo build --release && cargo build --release --package loadtest && $(WITH_STACK) && \
		exec $(LOADTEST) bench --ticketd $(BIN) --minutes $(or $(MINUTES),10) $(if $(SOAK),--soak $(SOAK))

.PHONY: layouts
layouts: need_cargo ## Measure one and three nodes of RabbitMQ, with and without a standby, and compare them with the model; 6 minutes
	@cargo build --release && cargo build --release --package loadtest && folder=$$(mktemp -d) && \
		loadtest/layouts.sh "$$folder" $(BIN) $(LOADTEST) && $(LOADTEST) model --measured "$$folder" && rm -r "$$folder"

.PHONY: model
model: need_cargo ## Say what RATE=1000000 tickets/s take: machines, network, disk; ARGS='--brokers 1' for another layout
	@cargo run --quiet --release --package loadtest -- model $(if $(RATE),--rate $(RATE)) $(ARGS)

##@ Package

# Where the package is put.
PACKAGES := $(or $(CARGO_TARGET_DIR),target)/debian

.PHONY: deb
deb: need_cargo need_debhelper ## Make a Debian package of the release build, for the Debian release that this is
	@cargo build --release && deploy/debian/build.sh $(BIN) $(PACKAGES)

.PHONY: test_deb
test_deb: need_cargo need_debhelper need_machine ## Install, run, upgrade and purge it on a bare Debian with a systemd of its own, as root, in five minutes
	@cargo build --release && $(WITH_STACK) && deploy/debian/test.sh $(BIN)

##@ Servers

.PHONY: down
down: ## Stop the servers that this checkout started; their data stays
	@$(STACK) down

.PHONY: need_cargo
need_cargo:
	@command -v cargo >/dev/null || { \
		echo "cargo is missing: install Rust as https://rustup.rs says, then try again" >&2; exit 1; }

.PHONY: need_cargo_fuzz
need_cargo_fuzz:
	@cargo fuzz --version >/dev/null 2>&1 || { \
		echo "cargo-fuzz is missing: run cargo install cargo-fuzz --locked, then try again" >&2; exit 1; }

# With npm, which fetches axe-core.
.PHONY: need_chromium
need_chromium:
	@for tool in chromium chromedriver npm; do command -v $$tool >/dev/null || missing=1; done; \
		[ -z "$$missing" ] || deploy/stack/install.sh chromium chromium-driver \
			$$(command -v npm >/dev/null || echo npm) fonts-dejavu-core

# A linter that is missing and passed over in silence would be a hole.
.PHONY: need_shellcheck
need_shellcheck:
	@command -v shellcheck >/dev/null || deploy/stack/install.sh shellcheck

# systemd-analyze, which needs no systemd that runs.
.PHONY: need_systemd
need_systemd:
	@command -v systemd-analyze >/dev/null || deploy/stack/install.sh systemd

.PHONY: need_debhelper
need_debhelper:
	@command -v dh >/dev/null || deploy/stack/install.sh debhelper

# What makes a bare Debian and runs it, and what finds fault with packages.
.PHONY: need_machine
need_machine:
	@missing=; for pair in mmdebstrap:mmdebstrap systemd-nspawn:systemd-container lintian:lintian curl:curl; do \
		command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair#*:}"; done; \
		[ -z "$$missing" ] || deploy/stack/install.sh $$missing

# With promtool.
.PHONY: need_prometheus
need_prometheus:
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || deploy/stack/install.sh prometheus

# What docs/clients are written in, as far as Debian has it.
.PHONY: need_runtimes
need_runtimes:
	@missing=; for pair in curl:curl go:golang-go php:php-cli java:default-jdk-headless node:nodejs python3:python3; do \
		command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair#*:}"; done; \
		[ -z "$$missing" ] || deploy/stack/install.sh $$missing

.PHONY: need_npm
need_npm:
	@command -v node >/dev/null && command -v npm >/dev/null || deploy/stack/install.sh nodejs npm

.PHONY: need_pip
need_pip:
	@python3 -m pip --version >/dev/null 2>&1 || deploy/stack/install.sh python3 python3-pip

# kubectl builds what kustomization.yaml says; Debian has one that is new enough from 13 on.
.PHONY: need_manifest_tools
need_manifest_tools: need_pip
	@command -v kubectl >/dev/null || deploy/stack/install.sh kubernetes-client
	@[ -d '$(MANIFEST_TOOLS)' ] || { \
		rm -rf '$(MANIFEST_TOOLS).part' && \
		python3 -m pip install --quiet --target '$(MANIFEST_TOOLS).part' \
			kubernetes-validate==$(KUBERNETES_VALIDATE_VERSION) yamllint==$(YAMLLINT_VERSION) && \
		mv '$(MANIFEST_TOOLS).part' '$(MANIFEST_TOOLS)'; }

.PHONY: need_cargo_deny
need_cargo_deny:
	@cargo deny --version >/dev/null 2>&1 || { \
		echo "cargo-deny is missing: building it, which takes some minutes" >&2; \
		cargo install cargo-deny --version $(DENY_VERSION) --locked; }
