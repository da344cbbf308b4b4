# Everything is set up by the targets themselves; they need Python >= 3.10 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Anew for each version of Python and each change of the dependencies.
INSTALLED := $(VENV)/.installed

# What the package is compared with, in an environment of its own, which nothing else needs.
EVIDENTLY_VERSION := 0.7.23
EVIDENTLY := .tools/evidently-$(EVIDENTLY_VERSION)/.installed

OLDEST := .venv-oldest
# In several processes; what tests measure are ratios, which bear it.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4

.PHONY: help demo stack test test-oldest test-versions e2e lint rules dashboard mutate-rules simulate bench bench-collector bench-daily bench-comparison docs clean

help:            ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(INSTALLED)   ## run a ranking service with simulated users, and show what is counted
	@$(BIN)/python -m examples.demo

stack: $(INSTALLED) tools   ## run service, Collector and Prometheus on this machine, until Ctrl-C
	@$(BIN)/python -m examples.stack

test: lint       ## run the linters, the type checker and all tests but those of e2e
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-oldest: $(OLDEST)/.installed   ## run the tests with the oldest supported dependencies
	$(OLDEST)/bin/python -m pytest -p no:cacheprovider $(SIDE_BY_SIDE)

test-versions: test-oldest   ## run the tests with the oldest and with the newest dependencies, Spark, too
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[spark]' --constraint tests/oldest.txt
	$(OLDEST)/bin/python -m pytest -p no:cacheprovider tests/e2e/test_spark.py
	rm -f $(INSTALLED) $(SPARK)
	$(MAKE) test spark
	$(BIN)/python -m pytest tests/e2e/test_spark.py

e2e: $(INSTALLED) tools   ## run the tests against real servers, a quarter of an hour
	$(BIN)/python -m pytest tests/e2e

lint: $(INSTALLED)   ## run the linters and the type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

rules: $(INSTALLED)  ## write the rules of Prometheus from monitoring/prometheus/values.yaml
	$(BIN)/python -m monitoring.prometheus.build

dashboard: $(INSTALLED)  ## write the dashboard of Grafana, analytics/dashboards/personalization.json
	$(BIN)/python -m analytics.dashboards.build

mutate-rules: $(INSTALLED) tools   ## change the rules in every small way, and look whether a test notices
	$(BIN)/python -m tests.e2e.mutate_rules $(ONLY)

simulate: $(INSTALLED)   ## simulate the alerts for a year: make simulate TRACES=decision_traces.ndjson.gz
	$(BIN)/python -m monitoring.simulation $(TRACES) --write docs/alert-simulation.md

bench: $(INSTALLED)  ## measure what the README claims, and write benchmarks/results.md
	$(BIN)/python -m benchmarks

bench-collector: $(INSTALLED) tools   ## measure what the gateway costs, and write benchmarks/collector.md
	$(BIN)/python -m benchmarks.collector

bench-daily: $(INSTALLED)   ## measure what the nightly job costs, and write benchmarks/daily.md; 8 GB in /tmp
	$(BIN)/python -m benchmarks.daily

bench-comparison: $(INSTALLED) tools $(EVIDENTLY)   ## measure what one could have instead, and write benchmarks/comparison.md
	$(BIN)/python -m benchmarks.comparison

docs: $(INSTALLED)   ## build the documentation as a site, in docs/_build
	$(BIN)/python docs/tables.py
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build
	@echo "docs/_build/index.html"

clean:           ## remove what the targets installed or built, and what demo and stack stored
	rm -rf $(VENV) $(OLDEST) docs/_build build/demo build/stack

# It does not work with pandas 3, which it does not say.
$(EVIDENTLY):
	@echo "Installing evidently into $(@D) (1 GB, two minutes) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check evidently==$(EVIDENTLY_VERSION) "pandas<3"
	@touch $@

define install
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and "otel-personalization needs Python 3.10 or later, and $(PYTHON) is %d.%d. Say which one to use: make PYTHON=python3.12" % v[:2])'
	@echo "Installing into $(@D) (a minute or so) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group dev $(1)
	@touch $@
endef

$(INSTALLED): pyproject.toml
	$(call install)

$(OLDEST)/.installed: pyproject.toml tests/oldest.txt
	$(call install,--constraint tests/oldest.txt)

include monitoring/tools.mk
