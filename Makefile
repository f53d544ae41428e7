.PHONY: help setup demo check test test-long test-all bench loadtest docs generate lint lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup: ## Create .venv from requirements.lock; PYTHON=… selects the interpreter (3.11 or newer)
	@sh scripts/venv.sh

demo: setup ## Play a short store day with tills and wallets, then keep serving; ARGS are options of pos-server demo
	@exec .venv/bin/pos-server demo $(ARGS)

# Tests start hundreds of Python processes. Some environments forbid cached bytecode, and then each compiles all modules.
export PYTHONDONTWRITEBYTECODE :=

# Each worker has its own Postgres. Tests without one keep a core busy; the others wait much of the time. conftest.py sorts
# the files: those whose tests take long come first, so that no worker is left alone with them at the end.
PYTEST = .venv/bin/pytest --dist loadfile --no-loadscope-reorder

check: lint ## Check style and types, then run the tests that need no Postgres
	$(PYTEST) -n 2 -m "not postgres and not long" $(ARGS)

test: lint ## Run lint, then all tests in their short form; ARGS goes to pytest (-n 0 runs them in one process)
	$(PYTEST) -n 3 -m "not long" $(ARGS)

test-long: lint
	$(PYTEST) -n 3 -m long $(ARGS)

test-all: lint ## Run lint, then all tests, also the long ones, and the ledger's on the oldest Postgres that is installed
	$(PYTEST) -n 3 $(ARGS)
	.venv/bin/python -m scripts.oldest_postgres

bench: setup ## Compare the engine with pgbench in the same run; ARGS="--quick", ARGS="--json FILE --html FILE"
	@exec .venv/bin/python -m loadtest.bench $(ARGS)

loadtest: setup ## Play a busy store day with locust; STORES=20 MINUTES=3, ARGS="--restart kill"
	@exec .venv/bin/python -m loadtest.lunch --stores $(or $(STORES),20) --minutes $(or $(MINUTES),3) $(ARGS)

docs: setup ## Build the documentation site in build/docs; warnings and broken links are errors
	.venv/bin/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs build/docs
	@echo "Open build/docs/index.html"

lint: setup ## Check style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

generate: setup ## Update the generated tables in docs/
	.venv/bin/python -m scripts.rooms
	.venv/bin/python -m scripts.reference_tables

lock: ## Update requirements.lock, keeping valid pins; ARGS=--upgrade selects the newest versions
	@sh scripts/venv.sh lock $(ARGS)

clean: ## Remove .venv, caches and build output
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +
