# One environment for everything; made anew when the list of packages changes.
PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin

.PHONY: train test bench lint

train: $(ENV)/.ready
	rm -rf runs/demo
	$(BIN)/python -m fastst.train --walks-per-person 4 --epochs 12 --out runs/demo

test: $(ENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

# JSON, tables and pictures land in .benchmarks/report; BENCH=--full runs everything.
bench: $(ENV)/.ready
	$(BIN)/pytest bench/ --benchmark-only $(BENCH)

lint: $(ENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

$(ENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
