# What a person types after cloning. Everything lands in .venv, at the versions of constraints.txt; nothing needs root.

PYTHON ?= python3
DEMO_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PYTHON=python3.12 names an interpreter, 3.11 or newer; DEMO_ARGS=--resume or --overwrite goes to the demo."
	@echo "On Linux PyPI's torch brings gigabytes of CUDA; the small CPU build:"
	@echo "  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo"

demo: $(VENV)/.installed-all ## The whole job on real recordings, in minutes; the report lies in runs/demo
	$(BIN)/topokd-edge demo --out runs/demo $(DEMO_ARGS)

test: lint ## Style, types and every test but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

lint: $(VENV)/.installed-dev ## Style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## Remove .venv, builds and caches; runs and bundles stay
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing venv makes: without it the environment is not whole.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is missing or older than Python 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing topokd-edge[$*] into $(VENV); this takes a minute or two the first time"
	$(INSTALL) -e '.[$*]'
	@touch $@
