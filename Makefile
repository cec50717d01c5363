VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
EXTRAS ?= dev,matting,export,app,report,sweep,notebooks
BIN := $(VENV)/bin
TEST_WORKERS ?= 2
export NO_ALBUMENTATIONS_UPDATE := 1
# uv does not read pip's settings: hand it pip's folder of local wheels where one is set
ifneq ($(strip $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-nightly test-gpu bench-check lint types check clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ok ## create the environment (about a minute; instant when nothing changed)

$(VENV)/.ok: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one with: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --compile-bytecode -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"
	@touch $@

demo: setup ## the main job: a first ablation table with report, in at most five minutes
	$(BIN)/indexnet train -m experiments=quickstart hydra.launcher.n_jobs=2
	$(BIN)/indexnet report quickstart

test: setup ## every quick test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "not long and not gpu"

test-long: setup ## the tests that train and sweep
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "long and not nightly and not gpu"

test-nightly: setup ## the same for more tasks and failures
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "nightly and not gpu"

test-gpu: setup ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

bench-check: setup ## whether anything has become slower than benchmarks/baseline.json, some 4 minutes
	OMP_NUM_THREADS=1 $(BIN)/indexnet bench all --quick --turns 5 --check benchmarks/baseline.json

lint: setup ## ruff (style and format), import-linter (what each room may know)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/lint-imports

types: setup ## mypy, strict
	$(BIN)/mypy

check: lint types test ## all of the above

clean: ## remove the environment and caches (never runs or reports)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
