# Every target creates the environment it needs; nothing has to be installed by hand.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help install test test-fast lint format types check bench tree clean
help:            ## list the targets
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[models,api,train,minilm,data,plot]" --group dev
	touch $(STAMP)

install: $(STAMP) ## create .venv and install everything into it

test: $(STAMP)   ## run every test, the slow ones included
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(STAMP) ## run the tests that take a moment
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: $(STAMP)   ## check format and style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(STAMP) ## rewrite files in the project's format
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

types: $(STAMP)  ## check types
	$(BIN)/mypy

check: lint types test ## all of it

bench: $(STAMP)  ## print the measured speeds quoted in the docs
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

tree: $(STAMP)   ## bring the README's tree up to date
	$(BIN)/python docs/update_tree.py

clean:           ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
