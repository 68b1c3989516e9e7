# Two commands do all the set-up on a fresh machine that has only Python 3.11+ and git: `make demo` runs the main job,
# `make test` passes the tests (each makes .venv and installs what it needs; uv when present, plain pip otherwise).
#
#   PYTHON=/path/to/python3.12   which Python to make .venv from (default: the first of python3, python3.13 … that is 3.11+)
#   ARGS="-k inbox -x"           handed on to pytest, the benchmark, the demo or (--upgrade) the pinning

.DEFAULT_GOAL := help
PYTHON ?=
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install demo up test lint bench chaos docs constraints

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## Make .venv with every pinned dependency and Permaflow itself, in place

demo: $(STAMP) ## Start everything, let a shop take orders and watch workflows answer, until Ctrl-C (ARGS="--seconds 20")
	$(BIN)/permaflow demo $(ARGS)

up: $(STAMP) ## Start everything on this machine and keep it running until Ctrl-C
	$(BIN)/permaflow up $(ARGS)

test: $(STAMP) ## Run the tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## Check style, format, types and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(STAMP) ## Measure, and write the figures to bench/results
	$(BIN)/python -m bench $(ARGS)

chaos: $(STAMP) ## Kill, cut and wipe parts under load for as long as it takes
	$(BIN)/python -m pytest tests/faults --long $(ARGS)

docs: $(STAMP) ## Generate docs/reference from the code
	$(BIN)/python docs/generate.py

constraints: ## Pin every dependency again (needs uv), for all platforms and Python 3.11 to 3.13
	uv pip compile $(COMPILE) --extra all --group dev pyproject.toml --output-file constraints.txt
	uv pip compile $(COMPILE) --extra kafka --extra email --extra v8 --extra python --constraints constraints.txt pyproject.toml --output-file deploy/requirements.txt
	uv pip compile $(COMPILE) --group build --constraints constraints.txt --output-file deploy/build.txt

COMPILE := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url $(ARGS)

# Every package is checked against its hash; only then is Permaflow itself installed, in place and without asking for more.
$(STAMP): pyproject.toml constraints.txt
	@set -eu; \
	if [ ! -x $(BIN)/python ]; then \
	  found=; \
	  for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	    if found=$$("$$candidate" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys.executable)' 2>/dev/null); \
	    then break; else found=; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "Permaflow needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is not one,none was found here)." >&2; \
	    echo "Install one, or name it: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making .venv with $$found"; \
	  if command -v uv >/dev/null 2>&1; then uv venv --quiet --no-python-downloads --python "$$found" .venv; \
	  else "$$found" -m venv .venv || { rm -rf .venv; exit 1; }; fi; \
	fi; \
	echo "Installing the pinned dependencies"; \
	if command -v uv >/dev/null 2>&1; then install="uv pip install --quiet --python $(BIN)/python"; \
	else \
	  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
	  install="$(BIN)/python -m pip install --quiet --disable-pip-version-check"; \
	fi; \
	$$install --require-hashes -r constraints.txt; \
	$$install --no-deps --no-build-isolation --editable .; \
	touch $@
