# Two commands: `make up` and `make test`. They need Python 3.11+ and make, and bring the rest as packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOCK := requirements/lock.txt
SPARK := $(VENV)/.spark
COMPILE = $(BIN)/uv pip compile -q --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --universal --python-version 3.11

.PHONY: up test check format fast lock docs spark clean

up: $(INSTALLED)
	@$(BIN)/city up

test: $(INSTALLED) $(SPARK)
	$(BIN)/coverage erase
	$(BIN)/python -m tests
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

# Only the tests that need no server.
fast: $(INSTALLED)
	$(BIN)/pytest -m "not integration"

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/pytest tests/test_docstrings.py
	$(BIN)/city docs --check
	$(BIN)/city dashboard --check

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED)
	$(BIN)/city docs

# Resolves every version and hash anew: Python packages and the servers' jars.
lock: $(INSTALLED)
	$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(COMPILE) --extra dev pyproject.toml -o $(LOCK)
	$(COMPILE) --extra dev --extra spark -c $(LOCK) pyproject.toml -o requirements/spark.txt
	$(BIN)/python -m city.java.jars

# Spark, the second engine, and the peer of two benchmarks. Nothing else needs it.
spark: $(SPARK)

$(SPARK): $(INSTALLED) requirements/spark.txt
	@echo "installing Spark into $(VENV)"
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/spark.txt
	@touch $@

$(INSTALLED): requirements/bootstrap.txt $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12"; exit 1; }
	@echo "installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r $(LOCK)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
