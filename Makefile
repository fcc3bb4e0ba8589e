# Everything here works on a fresh machine with make and any Python >= 3.11; the first call makes .venv by itself.
#   make demo [DIR=path] [URL=store]    make test [ARGS=...]    make check    make bench    make soak    make docs    make format    make clean

# Shims of version managers may be on the path without a Python behind them, so each candidate is tried.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak docs format clean

help:
	@sed -n '2s/^#   //p' Makefile | tr -s ' ' | sed 's/ make/\nmake/g'

demo: $(VENV)/.rich $(if $(findstring postgres,$(URL)),$(VENV)/.postgres) $(if $(findstring redis,$(URL))$(findstring valkey,$(URL)),$(VENV)/.redis)
	@$(BIN)/dayjob demo $(DIR) $(if $(URL),--url $(URL))

test: $(VENV)/.dev
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m tests.chaos soak $(ARGS)

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# One stamp per set of extras: installed again only when pyproject.toml changes.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo "installing dayjob[$*] into $(VENV) ..."
	@$(PIP) install --editable '.[$*]'
	@touch $@

# Some systems ship Python without ensurepip; a pip beside it can still fill the environment from outside.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "dayjob needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV) \
		&& "$(PYTHON)" -m venv --without-pip $(VENV) && "$(PYTHON)" -m pip --python $(BIN)/python install --quiet pip; } \
		|| { rm -rf $(VENV); echo "cannot make $(VENV): install Python's venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
