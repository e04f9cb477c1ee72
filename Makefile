# Two commands are all that a fresh machine needs: `make demo` and `make test`. `make docs` builds the site.
# Each makes its own .venv from the pinned versions of constraints.txt. `make sdist-test` builds the source distribution and
# runs a part of its tests; `make test-lowest` runs the fast tests with the lowest declared versions, in .venv-lowest.
#
#   PYTHON        the interpreter (3.11 or newer) that makes the .venv
#   PIP_FLAGS     passed to pip; the README shows how to take the CPU build of torch on Linux
#   PYTEST_FLAGS  passed to pytest
#   WORKERS       test processes side by side, each with one thread and about 2 GB of memory
PYTHON ?= python3
PIP_FLAGS ?=
PYTEST_FLAGS ?=
WORKERS ?= 2

BIN := .venv/bin
PYTEST := -m pytest -n $(WORKERS) --dist worksteal
ONE_THREAD := OMP_NUM_THREADS=1
PINNED := pyproject.toml constraints.txt

.PHONY: demo test test-all test-lowest sdist-test lint docs clean

demo: .venv/.installed-demo
	$(BIN)/textcl demo --overwrite

test: .venv/.installed-dev
	$(ONE_THREAD) $(BIN)/python $(PYTEST) -m "not slow" $(PYTEST_FLAGS)

test-all: .venv/.installed-dev
	$(ONE_THREAD) $(BIN)/python $(PYTEST) $(PYTEST_FLAGS)

# Of torch, transformers, sentence-transformers and datasets; the other libraries as they are today.
test-lowest: .venv-lowest/.installed
	$(ONE_THREAD) .venv-lowest/bin/python $(PYTEST) -m "not slow" $(PYTEST_FLAGS)

sdist-test: .venv/.installed-dev
	$(BIN)/python tools/sdist_test.py

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The environment variable keeps back an advertisement.
docs: .venv/.installed-docs
	PATH="$(CURDIR)/$(BIN):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

clean:
	rm -rf .venv .venv-lowest build site *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "textcl needs Python 3.11 or newer; name one with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed-demo: $(PINNED) | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[viz]'
	@touch $@

.venv/.installed-dev: $(PINNED) | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev,docs,viz,aug,search,mteb,bench]'
	@touch $@ .venv/.installed-demo .venv/.installed-docs

.venv/.installed-docs: $(PINNED) | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[docs]'
	@touch $@

.venv-lowest/.installed: pyproject.toml tools/lowest.py | $(BIN)/python
	$(BIN)/python -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install $(PIP_FLAGS) -e '.[dev,docs,viz,aug,search,mteb,bench]' $$($(BIN)/python tools/lowest.py)
	@touch $@
