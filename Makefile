# Two commands do all the set-up: `make run` (the demo platform) and `make test`. `make help` lists the rest.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WHEEL_TESTS ?= tests/wire tests/http tests/net tests/policy tests/routing tests/runtime tests/response_cache tests/policies/test_cache.py tests/upstream tests/testing tests/e2e

.DEFAULT_GOAL := help
.PHONY: help run test tools check no-compiler format lint types layers docs docs-check bench fuzz wheel test-wheel soak clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, not " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	PORTICO_COMPILE=0 $(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

run: $(STAMP) ## Start the demo platform behind the gateway on port 8000.
	@$(BIN)/portico demo

tools: $(STAMP) ## Install the programs that the tests need beside Python, where that may be done.
	@$(BIN)/python -m tests.harness.tools

test: $(STAMP) tools ## Run the whole test suite.
	$(BIN)/python -m pytest -q

check: lint types layers docs-check test $(if $(shell command -v cc),test-wheel,no-compiler) ## Everything that has to be green.

no-compiler:
	@echo "No C compiler here (cc): the compiled build has not been tested. On Debian: apt-get install gcc python3-dev"

format: $(STAMP) ## Format the code.
	$(BIN)/ruff check --fix --quiet src tests bench fuzz docs examples hatch_build.py || true
	$(BIN)/ruff format src tests bench fuzz docs examples hatch_build.py

lint: $(STAMP) ## Style and formatting.
	$(BIN)/ruff check src tests bench fuzz docs examples hatch_build.py
	$(BIN)/ruff format --check src tests bench fuzz docs examples hatch_build.py

types: $(STAMP) ## mypy, strict, over src.
	$(BIN)/mypy

layers: $(STAMP) ## Imports point down only.
	$(BIN)/lint-imports

docs: $(STAMP) ## Generate the reference, the dashboards and the rules from the code.
	$(BIN)/python -m docs.generate

docs-check: $(STAMP) ## What is generated is that of this code.
	$(BIN)/python -m docs.generate --check

wheel: $(STAMP) ## Build the compiled wheel into dist/.
	rm -rf dist && PORTICO_COMPILE=1 $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

test-wheel: wheel tools ## Run the tests of what is compiled against the compiled wheel.
	$(PYTHON) -m venv --clear .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet "$$(ls dist/portico-*.whl)[dev]"
	.venv-wheel/bin/python -m pytest -q -p no:cacheprovider $(WHEEL_TESTS)

soak: $(STAMP) ## The long forms of the endurance tests.
	PORTICO_SOAK=1 $(BIN)/python -m pytest -q -s tests/e2e/test_leaks.py tests/e2e/test_endurance.py

bench: wheel ## CPU a request beside nginx.
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --quiet dist/portico-*.whl
	.venv-bench/bin/python -m bench --max-ratio 1.35

FUZZ_SECONDS ?= 60

fuzz: $(STAMP) ## Fuzz the readers of HTTP/1; FUZZ_SECONDS each, 60 by default.
	PORTICO_COMPILE=0 $(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m fuzz.h1_request -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048
	$(BIN)/python -m fuzz.h1_response -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048

clean: ## Remove what was built.
	rm -rf $(VENV) .venv-wheel .venv-bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
