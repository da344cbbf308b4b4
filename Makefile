# Everything is set up by the targets themselves; they need Python >= 3.10 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Anew for each version of Python and each change of the dependencies.
INSTALLED := $(VENV)/.installed

.PHONY: help demo test lint bench clean

help:            ## show this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(INSTALLED)   ## replay recorded decision traces and show what is counted
	@$(BIN)/python examples/demo.py

test: lint       ## run the linters, the type checker and all tests
	$(BIN)/python -m pytest

lint: $(INSTALLED)   ## run the linters and the type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## measure what the README claims, and write benchmarks/results.json
	$(BIN)/python -m benchmarks

clean:           ## remove what the targets installed
	rm -rf $(VENV)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and "otel-personalization needs Python 3.10 or later, and $(PYTHON) is %d.%d. Say which one to use: make PYTHON=python3.12" % v[:2])'
	@echo "Installing into $(VENV) (a minute or so) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group dev
	@touch $@
