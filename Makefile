# make setup   an environment in .venv with everything (about 2 minutes, 6 GB: torch brings its GPU libraries)
# make demo    train, prove, judge and report on real images: about 6 minutes on 2 cores
# make check   the quick part of the tests, under 3 minutes
# make test    all tests
# make bench   the measured tables of the README
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo check test half-train half-rest bench lint clean

help:
	@sed -n 's/^# //p' Makefile

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; say which with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(READY)

demo: $(READY)
	$(BIN)/python -m training.demo --out demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## Two halves at a time, a core each: what needs torch computes all the while, the rest waits for half of its time. More
## would be no gain, and no good for what has a deadline. JOBS=1: one half after the other, on both cores.
JOBS ?= 2
HALVES := +@$(MAKE) --no-print-directory --keep-going --jobs=$(JOBS) half-train half-rest

check: lint
	$(HALVES) MARKS="not slow and not fresh"

test: lint
	$(HALVES)

half-train:
	$(if $(filter 1,$(JOBS)),,OMP_NUM_THREADS=1) $(BIN)/pytest -q -m "train$(if $(MARKS), and $(MARKS))"

half-rest:
	$(BIN)/pytest -q -m "not train$(if $(MARKS), and $(MARKS))"

# DATA=folder adds the tables that need the public data sets (benchmarks/README.md says where they come from).
bench: $(READY)
	$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) build dist demo *.egg-info
