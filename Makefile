# Two commands do all the set-up and all the work: `make demo` and `make test`.

CARGO ?= cargo
CACHE := $(or $(COUNTERSIGN_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME)/countersign,$(HOME)/.cache/countersign))

.PHONY: help setup build demo test soak base lint

help:
	@echo 'make demo   the main job from one end to the other, on real machines'
	@echo 'make test   all tests, on real machines where they need some'
	@echo 'make soak   what takes too long for make test'
	@echo 'make build  the binary: target/release/countersign'
	@echo 'make lint   formatting and clippy'

setup:
	@bash setup/packages.sh

build: setup
	$(CARGO) build --locked --release -p cli -p end-to-end

demo: build
	@target/release/countersign-demo

# The tests share one base image; it is built once and kept in the cache folder.
base: setup
	$(CARGO) build --locked -p cli -p end-to-end
	@bash setup/test-base.sh target/debug/countersign '$(CACHE)'

test: base
	COUNTERSIGN_TEST_BASE='$(CACHE)/debian-12' COUNTERSIGN_CACHE='$(CACHE)' $(CARGO) test --locked --workspace

# Builds a base image from the archive and changes each of its files; authorizes what is sneaky, one thing at a time.
soak: base
	$(CARGO) test --locked -p authorizer --test base_image -- --ignored
	COUNTERSIGN_CACHE='$(CACHE)' $(CARGO) test --locked -p end-to-end --test sneaky -- --ignored

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
