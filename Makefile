# One environment for everything; made anew when the list of packages changes.
PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin

.PHONY: train test test-all types types-win32 coverage stress bench bench-compare bench-report gpu docs lint page

train: $(ENV)/.ready
	rm -rf runs/demo
	$(BIN)/python -m fastst.train --planted left_knee right_knee --epochs 20 --out runs/demo
	$(BIN)/python -m fastst.explain --run runs/demo --most 40 --out runs/demo/walks.html

TESTS = $(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal --durations 30 --durations-min 5

test: $(ENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) -j2 types types-win32
	$(TESTS) -m "not slow"

# With what takes long: all GPU kernels for all chips, a million rows of CSV, every element type at every vector width.
test-all: $(ENV)/.ready
	$(TESTS)

types: $(ENV)/.ready
	$(BIN)/mypy

types-win32: $(ENV)/.ready
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32

# Lines and branches, those of commands in other processes too; what nothing runs is listed. Takes twice as long as the tests.
coverage: $(ENV)/.ready
	$(TESTS) -m "not slow" --cov --cov-report term-missing --cov-report html:build/coverage

# Damaged files, kills, two commands on one run, operators: half an hour. STRESS=--full goes on, half an hour at a time, to ten times as much.
stress: $(ENV)/.ready
	$(BIN)/python -m tests.stress $(or $(STRESS),--anew)

# JSON, tables and pictures land in .benchmarks/report; BENCH=--full runs everything.
bench: $(ENV)/.ready
	$(BIN)/pytest bench/ --benchmark-only $(BENCH)

bench-compare: $(ENV)/.ready
	$(BIN)/pytest-benchmark compare docs/benchmarks.json .benchmarks/report/benchmarks.json --columns median,iqr --sort fullname

bench-report: $(ENV)/.ready
	$(BIN)/python -m bench.report docs/benchmarks.json --pages README.md docs/guide/speed.md

# What the GPU at hand says of the kernels, in at most eight minutes; the report lands in .benchmarks/gpu.
gpu: $(ENV)/.ready
	$(BIN)/python -m bench.gpu

# The site lands in build/site.
docs: $(ENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(ENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

# The types in the script of the page; needs node.
page:
	npx --yes --package typescript@7 tsc -p fastst/explanation/page/tsconfig.json

$(ENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,docs,stress]'
	touch $@
