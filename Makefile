# `make up` and `make test` are the two commands; `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BENCH  := $(VENV)/.bench

.PHONY: help install up down status demo env test chaos mutants bench-checkout bench-hot bench-browse lint types imports check clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(BENCH): $(STAMP) bench/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/requirements.lock
	@touch $@

install: $(STAMP) ## make .venv and install what the lock file pins

up: $(STAMP) ## start everything; Ctrl-C ends it
	@exec $(BIN)/mercato up

down: $(STAMP) ## end what `make up` started
	@$(BIN)/mercato down

status: $(STAMP) ## what runs, and where
	@$(BIN)/mercato status

demo: $(STAMP) ## walk a shopper through the whole flow, live
	@$(BIN)/mercato demo

env: $(STAMP) ## write .env with new secrets, for docker-compose.yml
	@$(BIN)/mercato env

test: $(STAMP) ## every test, on servers of its own
	@$(BIN)/python -m pytest $(ARGS)

chaos: $(STAMP) ## the long tests of outages and races, then ten minutes of random faults
	@MERCATO_LONG_TESTS=1 $(BIN)/python -m pytest -m long
	@$(BIN)/mercato chaos --minutes 10 $(ARGS)

mutants: $(STAMP) ## break each guard of money and stock, and see that a test notices
	@$(BIN)/python -m tests.mutants $(ARGS)

bench-hot: $(STAMP) ## orders a second when all buy one product, beside a thousand products
	@$(BIN)/python -m bench.hot $(ARGS)

bench-checkout: $(BENCH) ## what an order costs, beside the bare engine, DBOS and a ceiling
	@$(BIN)/python -m bench.checkout $(ARGS)

bench-browse: $(STAMP) ## lists, search and suggestions beside bare Starlette, and their database time
	@$(BIN)/python -m bench.browse $(ARGS)

lint: $(STAMP) ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	@$(BIN)/mypy

imports: $(STAMP) ## import contracts
	@$(BIN)/lint-imports

check: $(STAMP) ## the invariants of what `make up` runs
	@$(BIN)/mercato check

clean: ## remove the environment and all data
	rm -rf $(VENV) .mercato
