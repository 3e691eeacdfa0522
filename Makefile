# `make` lists what there is to do. Everything a target needs is set up by it.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
STAMPS := $(VENV)/stamps
BIN := $(VENV)/bin
STEP := scripts/step

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

# On a server, warnings are errors, and tests fail where a server they need is missing.
ifeq ($(CI),true)
export RUSTFLAGS ?= -D warnings
endif

# Tests mostly wait. The files of Python tests are divided among processes.
export RUST_TEST_THREADS ?= $(shell expr 3 \* $$(nproc))
PYTEST_PROCESSES ?= $(shell expr $$(nproc) + 1)

# What the native module is made of. Python files are linked, not copied: they need no build.
SOURCES := Cargo.toml Cargo.lock pyproject.toml \
	$(shell find crates -path '*/src/*' -type f 2>/dev/null) \
	$(wildcard crates/*/Cargo.toml crates/*/build.rs)

# Options of the demonstration: make demo ARGS="--start-method spawn"
ARGS ?=

.PHONY: help
help: ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "PYTHON=python3.12  another interpreter (3.11 or newer; after 'make clean')"
	@echo "ARGS=--help        options of the demonstration"
	@echo "VERBOSE=1          show the output of every step"

.PHONY: demo
demo: $(STAMPS)/demo $(STAMPS)/package ## run an image pipeline by value and by proxy
	@$(BIN)/python examples/image_pipeline.py $(ARGS)

.PHONY: check
check: $(STAMPS)/test ## formatting, lints, types: seconds once built
	@scripts/servers
	@$(STEP) "Rust formatting" cargo fmt --all --check
	@$(STEP) "Rust lints" cargo clippy --workspace --all-targets --all-features -- -D warnings
	@$(STEP) "Rust lints without features" cargo clippy -p proxystore -- -D warnings
	@$(STEP) "Python formatting" $(BIN)/ruff format --check .
	@$(STEP) "Python lints" $(BIN)/ruff check .
	@$(STEP) "Python types" $(BIN)/mypy

.PHONY: lint
lint: check ## the same as check

.PHONY: test
test: $(STAMPS)/test $(STAMPS)/package .venvs/engines/stamp ## all tests: Rust, Python, engines, examples, code blocks of the pages
	@scripts/servers
	@$(STEP) "Rust tests" cargo test --workspace --all-features --no-fail-fast
	@for source in crates/*/examples/*.rs; do \
		[ -e "$$source" ] || continue; \
		name=$$(basename "$$source" .rs); \
		$(STEP) "Rust example $$name" target/debug/examples/$$name || exit 1; \
	done
	@$(STEP) "Python tests, examples and code blocks" $(BIN)/pytest --numprocesses $(PYTEST_PROCESSES) --dist loadfile
	@PROXYSTORE_TEST_ENGINES=all PYTHONPATH=$(CURDIR)/python \
		$(STEP) "Tests on Dask, Ray, Parsl and Globus Compute" .venvs/engines/bin/pytest python/tests/executor

.PHONY: sanitize
sanitize: $(STAMPS)/test $(STAMPS)/package ## AddressSanitizer and valgrind (needs a nightly toolchain and valgrind)
	@RUSTFLAGS=-Zsanitizer=address $(STEP) "Rust tests under AddressSanitizer" \
		cargo +nightly test --target x86_64-unknown-linux-gnu --target-dir target/sanitize \
		-p proxystore --all-features --lib --test it
	@$(STEP) "Python tests under valgrind" scripts/memcheck $(VENV) \
		python/tests/proxy/test_behaviour.py python/tests/store/test_objects.py

# Seconds for each of the fuzz targets, and which of them (all, where none is named).
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=

.PHONY: fuzz
fuzz: ## what reads foreign bytes, under libFuzzer (needs a C++ compiler; minutes)
	@scripts/fuzz $(FUZZ_SECONDS) $(FUZZ_TARGETS)

.PHONY: bench
bench: $(STAMPS)/bench $(STAMPS)/package .venvs/upstream/stamp .venvs/ray/stamp .venvs/engines/stamp ## compare with others, side by side (minutes)
	@scripts/servers
	@$(STEP) "Building the daemon of endpoints (minutes the first time)" \
		cargo build --release --package proxystore-cli --package proxystore-endpoint --bins --example raw_iroh
	@for topic in $(filter-out %/harness.py %/engines.py %/servers.py,$(wildcard bench/python/*.py)); do \
		$(BIN)/python $$topic || exit 1; \
	done

# Minutes of each part of `make soak`.
MINUTES ?= 10

.PHONY: soak
soak: $(STAMPS)/test $(STAMPS)/package ## endpoints under clients that come and go, streams at full rate (minutes)
	@scripts/servers
	@$(BIN)/python bench/soak/endpoint.py --minutes $(MINUTES)
	@$(BIN)/python bench/soak/streams.py --minutes $(MINUTES)

.PHONY: docs
docs: $(STAMPS)/test $(STAMPS)/package ## build the Rust reference, run the code blocks of the pages
	@RUSTDOCFLAGS="-D warnings" $(STEP) "Rust reference" \
		cargo doc -p proxystore --no-deps --all-features
	@$(STEP) "Code blocks of the pages" $(BIN)/pytest python/tests/test_docs.py
	@echo "The Rust reference is target/doc/proxystore/index.html, the guide is docs/guide/."

.PHONY: compat
compat: $(STAMPS)/test ## build the distribution that provides the import name proxystore
	@scripts/compat-modules
	@$(STEP) "Building dist/proxystore-*.whl" \
		$(BIN)/pip wheel --quiet --no-deps --no-build-isolation -w dist python/compat

.PHONY: wheels
wheels: $(STAMPS)/build ## build what is installed: the package, and the program of endpoints (minutes)
	@$(STEP) "Building dist/proxystore_rs-*.whl" \
		$(BIN)/maturin build --release --quiet --out dist
	@$(STEP) "Building dist/proxystore_rs_endpoint-*.whl" \
		env -C python/endpoint $(CURDIR)/$(BIN)/maturin build --release --quiet --out $(CURDIR)/dist

.PHONY: clean
clean: ## remove everything that was built or installed
	rm -rf $(VENV) .venvs target fuzz/target fuzz/corpus fuzz/artifacts dist demo-output .pytest_cache .mypy_cache .ruff_cache
	find python -name '_core*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- Setting up. A stamp file says that a step was done, and when. ---------------------------

$(STAMPS)/venv:
	@$(STEP) "Creating $(VENV)" scripts/make-venv $(PYTHON) $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/demo $(STAMPS)/test $(STAMPS)/bench $(STAMPS)/build: \
$(STAMPS)/%: requirements/%.txt requirements/demo.txt | $(STAMPS)/venv
	@$(STEP) "Installing requirements/$*.txt" $(BIN)/pip install --quiet -r $<
	@touch $@

$(STAMPS)/package: $(SOURCES) $(STAMPS)/build
	@$(STEP) "Building the package (minutes the first time)" scripts/build-package $(VENV)
	@touch $@

.venvs/%/stamp: requirements/%.txt
	@$(STEP) "Creating .venvs/$*" scripts/make-venv $(PYTHON) .venvs/$*
	@$(STEP) "Installing requirements/$*.txt" .venvs/$*/bin/pip install --quiet -r $<
	@touch $@
