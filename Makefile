VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= environment/constraints.txt
EXTRAS ?= dev,docs,matting,export,app,report,sweep
BIN := $(VENV)/bin
TEST_WORKERS ?= 2
export NO_ALBUMENTATIONS_UPDATE := 1
export NO_MKDOCS_2_WARNING := 1
# uv does not read pip's settings: hand it pip's folder of local wheels where one is set
ifneq ($(strip $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo weights docs docs-serve test test-long test-nightly test-notebooks test-gpu bench-check results lint types check dist clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ok ## create the environment (about a minute; instant when nothing changed)

$(VENV)/.ok: pyproject.toml $(CONSTRAINTS) environment/match_torchvision.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one with: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --compile-bytecode -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"
	$(BIN)/python environment/match_torchvision.py
	@touch $@

demo: setup ## the main job: a first ablation table with report, in at most five minutes
	$(BIN)/indexnet train -m experiments=quickstart hydra.launcher.n_jobs=2
	$(BIN)/indexnet report quickstart

docs: setup ## the documentation as a site: site/index.html, which opens without a server
	OMP_NUM_THREADS=1 $(BIN)/mkdocs build --strict

docs-serve: setup ## the same at http://127.0.0.1:8000, built anew when a page is saved
	OMP_NUM_THREADS=1 $(BIN)/mkdocs serve

weights: setup ## train the matting network of docs/model_card.md (two hours of one core; goes on where it stopped)
	$(BIN)/indexnet train -m experiments=weights rows=scenes
	$(BIN)/indexnet export "runs/weights/scenes-paper/scenes/seed=0/checkpoints/last.ckpt" --format weights --output weights/matting_scenes.ckpt --overwrite

test: setup ## every quick test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "not long and not gpu"

test-long: setup ## the tests that train and sweep
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "long and not nightly and not gpu"

test-nightly: setup ## the same for more tasks and failures
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "nightly and not gpu"

test-notebooks: setup ## the notebooks of the documentation; installs what they need
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet -c $(CONSTRAINTS) -e ".[notebooks]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_notebooks.py

test-gpu: setup ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

bench-check: setup ## whether anything has become slower than benchmarks/baseline.json, some 4 minutes
	OMP_NUM_THREADS=1 $(BIN)/indexnet bench all --quick --turns 5 --check benchmarks/baseline.json

results: setup ## the commands that made docs/results, and how many of their runs are recorded
	@$(BIN)/python benchmarks/results.py

lint: setup ## ruff (style and format), import-linter (what each room may know)
	$(BIN)/ruff check src tests benchmarks environment docs/hooks
	$(BIN)/ruff format --check src tests benchmarks environment docs/hooks
	$(BIN)/lint-imports

types: setup ## mypy, strict
	$(BIN)/mypy

check: lint types test ## all of the above

dist: setup ## the source archive and the wheel made of it, in dist/
	$(BIN)/uv build --quiet --clear

clean: ## remove the environment and caches (never runs or reports)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist site
