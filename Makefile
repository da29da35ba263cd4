# Everything rests on `make setup`, which makes .venv in this folder and nothing else.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
PIP := --quiet --disable-pip-version-check --constraint constraints.txt
# Where torch comes from; PyTorch's own index has a small build for CPUs:
#   make setup TORCH='--index-url https://download.pytorch.org/whl/cpu'
TORCH ?=

.PHONY: setup quickstart test check test-all bench bench-check clean

setup: .venv/.stamp

.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP) pip
	$(BIN)/python -m pip install $(PIP) $(TORCH) torch
	$(BIN)/python -m pip install $(PIP) --group dev --editable '.[train,rg,mcp,openenv,textarena,gymnasium,datasets,tensorboard,trackio,wandb]'
	touch $@

quickstart: setup
	$(BIN)/ludus train examples/guess.toml name=guess-$(SEED) seed=$(SEED) overwrite=true

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m ludus.cli.reference --check docs/cli.md

test-all: setup
	$(BIN)/python -m pytest -n 2 -m ''

# Beside others on this machine; they are installed into .bench the first time.
bench: setup
	$(BIN)/python -m benchmarks.run all

# Ratios against the committed ones.
bench-check: setup
	$(BIN)/python -m benchmarks.run check

clean:
	rm -rf .venv .bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
