# Every target sets up what it needs first. ARGS is passed on: make test ARGS="tests/unit -x"
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
BIN := .venv/bin
COMPILE = $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
	--annotation-style line --custom-compile-command "make pins"
.DEFAULT_GOAL := help
.PHONY: help serve cluster test test-long check bench deb openapi pins run dev

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

serve: run ## run the server, with its data in ./data
	$(BIN)/rookery serve --data ./data $(ARGS)

cluster: dev ## run memcached, Redis and two servers on them, with their data in ./data/cluster
	$(BIN)/python -m tools.servers --rookery 2 $(ARGS)

test: dev ## run the tests, in two processes; ARGS="-n 0 …" takes one
	$(BIN)/pytest -n 2 --no-loadscope-reorder $(ARGS)

test-long: export TEST_LONG = 1
test-long: test ## run the tests, the long ones too

check: dev ## lint, format, types, layout, and the published OpenAPI document
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/rookery openapi --check docs/openapi.json

bench: dev ## run the benchmarks
	$(BIN)/python -m bench $(ARGS)

deb: run ## build the Debian package, into ./dist
	deploy/debian/build-deb dist

openapi: run ## write docs/openapi.json from the code
	$(BIN)/rookery openapi > docs/openapi.json

pins: dev ## pin the dependencies again; ARGS=--upgrade takes the newest
	$(COMPILE) $(ARGS) pyproject.toml requirements/run.in --output-file requirements/run.txt
	$(COMPILE) $(ARGS) --extra traces pyproject.toml requirements/run.in --output-file requirements/traces.txt
	$(COMPILE) $(ARGS) --extra traces --group dev pyproject.toml requirements/dev.in --output-file requirements/dev.txt

run dev:
	@tools/setup $@
