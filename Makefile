# make demo and make test do all their own set-up; make help lists the rest.
PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
# Byte code is written at first import: compiling every file of every package here took 12 s, the ones in use 1.5 s.
# Some shells and images forbid it, which would cost every start those 1.5 s again.
unexport PYTHONDONTWRITEBYTECODE
# Only files the locks name by hash; the package itself needs no network.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes
LINK := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --no-build-isolation

# Two processes: many tests mostly wait, as for a broker; see tests/conftest.py.
TWO := --numprocesses=2

.DEFAULT_GOAL := help
.PHONY: help demo test quick lint torture soak bench lock clean

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.run ## Score real sensor data on an embedded broker; ARGS="--keep", ARGS="--broker real"
	@$(BIN)/python -m streamer demo $(ARGS)

test: $(VENV)/.dev ## Run every test, real Kafka included; ARGS go to pytest
	@$(BIN)/python -m pytest $(TWO) $(ARGS)

quick: lint ## What to run while working: lint, unit tests, and the laws of all operators; ARGS go to pytest
	@$(BIN)/python -m pytest $(TWO) tests/unit tests/laws $(ARGS)

lint: $(VENV)/.dev ## Run ruff (rules and format) and mypy --strict
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check --quiet . || { echo "Not formatted; run: ruff format ."; exit 1; }
	@$(BIN)/python -m mypy

torture: $(VENV)/.dev ## Seeded faults under load, every result checked; SEEDS=2, FLOW=stateless, FAULT=late-end,drop
	@$(if $(FLOW)$(FAULT)$(ARGS),,$(BIN)/python -m pytest -m again)
	@$(if $(FLOW)$(FAULT)$(ARGS),,$(BIN)/python -m tests.faults.rolling_update)
	@$(BIN)/python -m tests.faults.torture --seeds $(or $(SEEDS),1) $(if $(FLOW),--flow $(FLOW)) $(if $(FAULT),--faults $(FAULT)) $(ARGS)

soak: $(VENV)/.dev ## Flows on a real broker for MINUTES=60, disturbed, checked, and weighed for what they hold
	@$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),60) $(ARGS)

bench: $(VENV)/.dev ## Measure speed, memory and restore into load/results/latest.json
	@$(BIN)/python -m load.bench $(ARGS)

COMPILE = $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11
lock: ## Bring the three lock files up to date with pyproject.toml (UPGRADE=1 for newer versions); needs uv
	$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --all-extras --group dev -o requirements-dev.lock
	$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml -c requirements-dev.lock -o requirements.lock
	$(COMPILE) $(if $(UPGRADE),--upgrade) --group pyproject.toml:build -c requirements-dev.lock -o requirements-build.lock

clean: ## Remove the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What `pip install` reads decides when it runs again; the stamp files lie in the environment they describe.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, $$($(PYTHON) --version) found; try: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "Could not make $(VENV); on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements.lock requirements-build.lock pyproject.toml
	@echo "Installing the locked packages into $(VENV) ..."
	@$(INSTALL) -r requirements.lock -r requirements-build.lock
	@$(LINK) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made requirements-dev.lock requirements-build.lock pyproject.toml
	@echo "Installing the locked packages for development into $(VENV) ..."
	@$(INSTALL) -r requirements-dev.lock -r requirements-build.lock
	@$(LINK) --editable .
	@touch $@
