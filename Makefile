# Everything a newcomer or a CI needs. `make install` wants only make, python3 with venv, and the network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

# Some containers set it: each of the hundreds of processes that a run starts would compile all of its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install dev demo test test-majors test-all test-unit soak lint format bench bench-detection dashboards rules screenshots lock system-packages clean

help:
	@echo "make install     .venv with the batsignal command in it"
	@echo "make demo        an embedded PostgreSQL, a small shop, one bad deploy, live"
	@echo "make test        all tests, against real servers (installs what they need)"
	@echo "make test-majors those that are left for PostgreSQL 14, 16 and 17 (fetches them)"
	@echo "make test-all    those that take minutes, too, and on PostgreSQL 14, 16 and 17"
	@echo "make soak        a daemon under load for 20 min (SOAK_MINUTES=): memory, files, ticks"
	@echo "make test-unit   those that need no server"
	@echo "make dev         .venv with all that development needs"
	@echo "make lint        ruff, mypy"
	@echo "make dashboards  grafana/dashboards/*.json, from grafana/boards"
	@echo "make rules       alerts/ for the Prometheus operator and vmalert, from alerts/*.rules.yml"
	@echo "make bench       measurements side by side with the peer"
	@echo "make screenshots  docs/pictures anew, from a real demo"
	@echo "make bench-detection  every scenario, simulated, judged by us and by the stock rules"

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(DEV_STAMP): $(STAMP) requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

install: $(STAMP)

dev: $(DEV_STAMP)

demo: $(STAMP)
	@exec $(BIN)/batsignal demo $(DEMO_ARGS)

# Six at a time, in the order of tests/turns.py: most of the tests wait for a server rather than for a core.
WORKERS ?= 6
PARALLEL := --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder

test: $(DEV_STAMP) system-packages
	$(BIN)/python -m pytest $(PARALLEL) -m "not long and not majors" $(TEST_ARGS)

test-majors: $(DEV_STAMP) system-packages
	$(BIN)/python -m pytest $(PARALLEL) -m "majors and not long" tests/integration $(TEST_ARGS)

test-all: $(DEV_STAMP) system-packages
	$(BIN)/python -m pytest $(PARALLEL) $(TEST_ARGS)

test-unit: $(DEV_STAMP)
	$(BIN)/python -m pytest --numprocesses auto exporter tests/unit $(TEST_ARGS)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV_STAMP) system-packages
	$(BIN)/python bench/run_all.py $(BENCH_ARGS)

# The JSON of grafana/dashboards, from grafana/boards.
dashboards: $(DEV_STAMP)
	$(BIN)/python grafana/boards

# alerts/batsignal.prometheusrule.yaml and alerts/vmalert, from alerts/*.rules.yml.
rules: $(DEV_STAMP)
	$(BIN)/python alerts/variants.py

SOAK_MINUTES ?= 20
soak: $(DEV_STAMP) system-packages
	$(BIN)/python bench/soak.py --minutes $(SOAK_MINUTES)

# No server: the simulator in tests/ plays. BENCH_ARGS=--quick takes two minutes, all of it up to thirty.
bench-detection: $(DEV_STAMP)
	$(BIN)/python bench/detection $(BENCH_ARGS)

# The README's pictures of the page, taken from a real demo.
screenshots: $(DEV_STAMP) system-packages
	$(BIN)/python docs/take_pictures.py

# What the tests start for real: a second PostgreSQL, Prometheus, Alertmanager, the peer, a browser.
system-packages:
	@tests/system-packages.sh

# Locks without index URLs: hashes make them safe, names and versions make them portable.
lock: $(DEV_STAMP)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra demo --upgrade -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--group dev --upgrade -c requirements.lock -o requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
