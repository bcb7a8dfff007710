# Everything here works without root, on Python 3.11 or later and make alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: help setup demo test check generate bench soak machine planted mutants clean

help:
	@echo "make demo      an agent at work, streaming, through a kill of its server"
	@echo "make test      the tests"
	@echo "make check     formatting, types, layers, protos"
	@echo "make generate  stubs from protos/"
	@echo "make bench     the benchmarks beside their floors"
	@echo "make soak      long fault and load runs"
	@echo "make machine   two thousand random sequences of what can be asked of threads"
	@echo "make planted   bugs planted one by one, and the tests that find them"
	@echo "make mutants   code changed a little, thousands of times, to see tests fail"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[server]" --group dev
	@touch $(STAMP)

demo: setup
	$(BIN)/treadle demo

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python scripts/generate.py --check
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking protos --against protos/baseline.binpb
	$(BIN)/mypy
	$(BIN)/lint-imports

generate: setup
	$(BIN)/python scripts/generate.py

bench: setup
	$(BIN)/python -m benchmarks.durable_loop

soak: setup
	$(BIN)/python -m pytest -m soak -s --timeout 7200

machine: setup
	$(BIN)/python -m pytest tests/machine -m soak -s --timeout 7200

planted: setup
	$(BIN)/python -m tests.faults.planted

mutants: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group mutants
	$(BIN)/python scripts/mutants.py

clean:
	rm -rf $(VENV) build third_party .mypy_cache .ruff_cache .pytest_cache .hypothesis
