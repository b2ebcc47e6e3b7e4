# `make demo` and `make test` need Python 3.11 or newer and make; the rest they install.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# Where Debian and Homebrew put servers; an ordinary user's PATH lacks it.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/sbin
# A person's own pip settings for other projects must not change what is built here.
unexport PIP_CONSTRAINT PIP_REQUIREMENT
unexport PYTHONPATH
# Nor may they have each of the many programs that tests start compile its modules again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCHES := $(patsubst benchmarks/%.py,%,$(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))
BENCH_OUT := build/benchmarks
ARGS ?=
# Files of tests at a time, the long ones first (tests/conftest.py orders them): more than two
# cores compute, for many wait for a process.
TOGETHER := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-all coverage read check unit bench clean

help: ## say what there is
	@echo "usage: make TARGET [ARGS=...] [PYTHON=/path/to/python3.11]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything a developer needs

demo: $(STAMP) ## the whole loop on this machine (ARGS=--keep leaves it running)
	@.ci/need.sh mosquitto
	$(BIN)/argosy demo $(ARGS)

test: read check ## everything that CI runs
	@.ci/need.sh mosquitto postgresql
	@.ci/in_memory.sh $(BIN)/python -m pytest $(TOGETHER) -m "not slow" --durations=25 $(ARGS) \
		|| .ci/again.sh $$?

test-all: ## the tests of CI and those that take minutes each: every kill in every state
	@.ci/need.sh mosquitto postgresql
	.ci/in_memory.sh $(BIN)/python -m pytest $(TOGETHER) $(ARGS)

coverage: $(STAMP) ## the tests of CI, and which lines they ran (a third slower)
	@.ci/need.sh mosquitto postgresql
	.ci/in_memory.sh $(BIN)/python -m pytest $(TOGETHER) -m "not slow" --cov --cov-report=term $(ARGS)

# While mypy takes one core, another compiles all tests once, which each worker would do by itself.
read: $(STAMP)
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null 2>&1 &

check: $(STAMP) ## style, types and import rules, without running anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(STAMP) ## the fast tests alone: no broker, database server or Ray
	.ci/in_memory.sh $(BIN)/python -m pytest -m "not integration and not e2e" $(ARGS)

bench: $(STAMP) ## every benchmark against its baseline (ARGS=--quick for one small round)
	@.ci/need.sh mosquitto
	@mkdir -p $(BENCH_OUT)
	@for name in $(BENCHES); do \
		$(BIN)/python -m benchmarks.$$name --json $(BENCH_OUT)/$$name.json $(ARGS) || exit 1; \
	done

clean: ## remove the environment, caches and everything built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt tests/e2e/packages.txt
	@python=$$(PYTHON='$(PYTHON)' .ci/find_python.sh) || exit 1; \
	PYTHON=$$python .ci/need.sh venv || exit 1; \
	$(BIN)/python -c '' 2>/dev/null || $$python -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --no-compile -c constraints.txt \
		--build-constraint constraints.txt -e '.[edge,server,train,plot,examples,s3,grpc,images,parquet]' --group dev
	$(BIN)/python -m pip install -q --no-compile --no-deps -r tests/e2e/packages.txt
	@# On all cores, where pip takes one; some packages hold files that are no Python of today.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || :
	@touch $@
