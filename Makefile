# Two commands do all the set-up and all the work: `make demo` and `make test`.

CARGO ?= cargo
CACHE := $(or $(COUNTERSIGN_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME)/countersign,$(HOME)/.cache/countersign))

.PHONY: help setup build demo test soak bench base lint as-root

help:
	@echo 'make demo   the main job from one end to the other, on real machines'
	@echo 'make test   all tests, on real machines where they need some'
	@echo 'make soak   what takes too long for make test'
	@echo 'make bench  how long things take, against a baseline'
	@echo 'make build  the binary: target/release/countersign'
	@echo 'make lint   formatting and clippy'

# FOR=USER, as root: also what USER needs for working without root.
setup:
	@bash setup/packages.sh $(if $(FOR),--for '$(FOR)')

build: setup
	$(CARGO) build --locked --release -p cli -p end-to-end

demo: build
	@target/release/countersign-demo

# Only root can give each machine a user of its own, and tests show that it does. A test that is left out shows nothing.
as-root:
	@[ "$$(id -u)" -eq 0 ] || { echo 'the tests need root: some show that a machine runs as a user of its own; `make demo` works without' >&2; exit 1; }

# The tests share one base image; it is built once and kept in the cache folder.
base: setup
	$(CARGO) build --locked -p cli -p end-to-end
	@bash setup/test-base.sh target/debug/countersign '$(CACHE)'

test: as-root base
	COUNTERSIGN_TEST_BASE='$(CACHE)/debian-12' COUNTERSIGN_CACHE='$(CACHE)' $(CARGO) test --locked --workspace

# Kills an authorization at every stage and at random instants (COUNTERSIGN_KILLS, COUNTERSIGN_SEED); fills the host's disk at
# every stage; builds a base image from the archive and changes each of its files; authorizes what is sneaky, one thing at a time. Then in
# small Debians of their own, whose packages are fetched: set-up in every state of a machine, and the work of a user without root.
soak: as-root base
	$(CARGO) test --locked -p authorizer --test base_image -- --ignored
	COUNTERSIGN_CACHE='$(CACHE)' $(CARGO) test --locked -p end-to-end --test sneaky -- --ignored
	COUNTERSIGN_CACHE='$(CACHE)' $(CARGO) test --locked -p end-to-end --test set_up --test without_root -- --ignored --test-threads 1
	COUNTERSIGN_CACHE='$(CACHE)' $(CARGO) test --locked -p end-to-end --test ended --test full -- --ignored --nocapture

# Ratios against a baseline of the same run; docs/performance.md says what they were.
bench: base
	COUNTERSIGN_TEST_BASE='$(CACHE)/debian-12' $(CARGO) bench --locked -p disk --bench compare
	COUNTERSIGN_TEST_BASE='$(CACHE)/debian-12' $(CARGO) bench --locked -p harness --bench machines

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
