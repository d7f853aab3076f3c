# Every target works from a fresh clone; nothing is installed twice.
PYTHON ?= python3
BIN := .venv/bin

WORKERS ?= 2
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: quickstart test quick fuzz check lab mutate
quickstart: .venv/installed
	$(BIN)/workbench quickstart --out data/quickstart

test: .venv/installed
	$(PYTEST)

quick: .venv/installed
	$(PYTEST) -m 'not slow'

# An hour of damaged files and odd arguments; `make test` tries a hundredth of them.
fuzz: .venv/installed
	WORKBENCH_FUZZ=100 $(BIN)/pytest --timeout=7200 tests/test_fuzz*.py

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

lab: .venv/installed
	$(BIN)/jupyter lab notebooks

# Planted faults that the tests must notice; minutes.
mutate: .venv/installed
	$(BIN)/python tests/mutate.py

# The stamp is newer than pyproject.toml once everything in it is installed.
.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $@
