# Every target works from a fresh clone; nothing is installed twice.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
WORKERS ?= 2
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: quickstart test quick fuzz mutate check lab update oldest
quickstart: $(VENV)/installed
	$(BIN)/workbench quickstart --out data/quickstart

test: $(VENV)/installed
	$(PYTEST)

# All but the slow tests, for every edit.
quick: $(VENV)/installed
	$(PYTEST) -m 'not slow'

# An hour of damaged files, kills and odd arguments; `make test` tries a hundredth of them.
fuzz: $(VENV)/installed
	WORKBENCH_FUZZ=100 $(BIN)/pytest --timeout=7200 tests/test_fuzz*.py tests/test_storage.py

# Planted faults that the tests must notice; minutes.
mutate: $(VENV)/installed
	$(BIN)/python tests/mutate.py

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

lab: $(VENV)/installed
	$(BIN)/jupyter lab notebooks

# Everything with the newest versions that pyproject.toml allows; constraints.txt changes only if all of it passes.
update:
	rm -rf .venv-newest
	$(MAKE) VENV=.venv-newest CONSTRAINTS= check test
	.venv-newest/bin/python tests/versions.py installed > .venv-newest/constraints.txt
	mv .venv-newest/constraints.txt constraints.txt

# All tests with the lowest ones, so that every bound in pyproject.toml is true.
oldest:
	$(MAKE) VENV=.venv-oldest CONSTRAINTS=.venv-oldest/constraints.txt test

.venv-oldest/constraints.txt: pyproject.toml
	mkdir -p $(@D)
	$(PYTHON) tests/versions.py lowest > $@

# The stamp is newer than both lists once everything in them is installed.
$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[dev]'
	touch $@
