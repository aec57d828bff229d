# The place where commands are kept. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
SETUP := .venv/.complete

.PHONY: help setup up format check docs docs-check test test-unit test-interop test-faults test-e2e test-postgresql test-objects test-dist bench bench-smoke requirements dist clean

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SETUP)  ## an environment in .venv with everything at its pinned version

$(SETUP): pyproject.toml compat/kachery-cloud/pyproject.toml requirements/dev.txt scripts/setup.sh
	@scripts/setup.sh

up: $(SETUP)  ## a zone of your own, with a recording stored and loaded; until Ctrl-C (PORT=8620)
	@$(BIN)/python scripts/up.py $(if $(PORT),--port $(PORT))

format: $(SETUP)  ## put the code in shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

check: $(SETUP)  ## style, types, floors, names
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	scripts/check-names.sh
	$(BIN)/python scripts/commands.py --check

docs: $(SETUP)  ## docs/commands.md, from the help of the commands
	$(BIN)/python scripts/commands.py

docs-check: $(SETUP)  ## is docs/commands.md up to date?
	$(BIN)/python scripts/commands.py --check

test: check  ## the checks, the unit tests and the quick fault tests
	$(PYTEST) tests/unit tests/faults -m "not slow"

test-unit: $(SETUP)  ## the unit tests alone
	$(PYTEST) tests/unit

test-interop: $(SETUP)  ## against released programs, in environments of their own
	$(PYTEST) tests/interop

test-faults: $(SETUP)  ## kill -9, full disks, lying peers: all of them
	$(PYTEST) tests/faults

test-e2e: $(SETUP)  ## what a person does, from `make up` on
	$(PYTEST) tests/e2e

test-postgresql: $(SETUP)  ## the gateway's unit tests again, on a PostgreSQL server
	KACHERY_TEST_DATABASE=postgresql $(PYTEST) tests/unit/gateway

test-objects: $(SETUP)  ## the same with files in an object store, through the gateway and past it
	KACHERY_TEST_BUCKET=objects $(PYTEST) tests/unit/gateway
	KACHERY_TEST_BUCKET=direct $(PYTEST) tests/unit/gateway/test_cloud_dialect.py tests/unit/gateway/test_keys_dialect.py

test-dist: $(SETUP)  ## the built wheels, installed as a user would
	scripts/test-dist.sh

bench: $(SETUP)  ## measure side by side, write benchmarks/results/
	$(BIN)/python benchmarks/run.py

bench-smoke: $(SETUP)  ## the same with tiny files, to see that it runs
	$(BIN)/python benchmarks/run.py --smoke

requirements:  ## resolve and export the pins (needs uv; UPGRADE=1 for the newest)
	scripts/requirements.sh

dist: $(SETUP)  ## wheels and sources of the distributions, in dist/
	$(BIN)/hatchling build -d dist
	cd compat/kachery-cloud && ../../$(BIN)/hatchling build -d ../../dist

clean:  ## remove what can be made again; not .venv, not .zone
	rm -rf .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find src compat tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
