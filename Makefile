.PHONY: help setup demo test bench loadtest docs generate lint lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## Make .venv from requirements.lock; PYTHON=… picks the interpreter (3.11 or newer)
	@sh scripts/venv.sh

demo: setup ## Run the server with a Postgres, a till and wallets of its own; ARGS goes to pos-server demo
	@exec .venv/bin/pos-server demo $(ARGS)

# Three at a time: each has a Postgres of its own, and much of a test is waiting.
test: lint ## Run lint, then the tests, three files at a time; ARGS goes to pytest (-n 0 runs them in one process)
	.venv/bin/pytest -n 3 --dist loadfile $(ARGS)

bench: setup ## Measure the engine over pgbench in the same run; ARGS="--quick", ARGS="--json FILE --html FILE"
	@exec .venv/bin/python -m loadtest.bench $(ARGS)

loadtest: setup ## Play a store day at a server of its own, with locust; STORES=20 MINUTES=3, ARGS="--restart kill"
	@exec .venv/bin/python -m loadtest.lunch --stores $(or $(STORES),20) --minutes $(or $(MINUTES),3) $(ARGS)

docs: setup ## Build the documentation site in build/docs; a warning or a broken link is an error
	.venv/bin/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs build/docs
	@echo "Open build/docs/index.html"

lint: setup ## Check style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

generate: setup ## Write the generated tables of docs/ from the code
	.venv/bin/python -m scripts.rooms
	.venv/bin/python -m scripts.reference_tables

lock: ## Resolve requirements.lock anew, keeping pins that still fit; ARGS=--upgrade takes the newest
	@sh scripts/venv.sh lock $(ARGS)

clean: ## Remove .venv, caches and build output
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +
