# Every target creates the environment it needs; nothing has to be installed by hand.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Three processes for two cores: a third of the time a test waits for a server or another process.
SPREAD := -n 3 --dist loadfile --no-loadscope-reorder

# Compiled once, and not by each of the hundreds of processes that tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-fast fuzz kill-test ray-test deepspeed-test engine-test gpu-set annotate-test lint format types check bench browser reference docs clean
help:            ## list the targets
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[models,api,teacher,train,minilm,data,parquet,plot,bench,ocr,serve,app]" --group dev
	touch $(STAMP)

install: $(STAMP) ## create .venv and install everything into it

demo: $(STAMP)   ## run the whole story on the embedded world and write demo/report.html
	$(BIN)/sdg demo --out demo

test: $(STAMP)   ## run every test, the slow ones included
	$(BIN)/python -m pytest $(SPREAD)

test-fast: $(STAMP) ## run the tests that take a moment
	$(BIN)/python -m pytest $(SPREAD) -m "not slow"

fuzz: $(STAMP)   ## read spoiled responses, completions, recipes and command lines by the hundred thousand
	SDG_FUZZ=$${SDG_FUZZ:-10} $(BIN)/python -m pytest -s $$(find tests -name 'test_*fuzz.py')

kill-test: $(STAMP) ## kill every long command ten times at random moments, and resume it
	SDG_KILLS=$${SDG_KILLS:-10} $(BIN)/python -m pytest -s -m kill

ray-test: $(STAMP) ## diagnose on a local Ray cluster, whose workers are killed; in Ray Data and Daft
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[ray,parquet]" pandas daft
	$(BIN)/python -m pytest -m ray
	$(BIN)/python -m pytest -m "not ray" tests/detectors/test_pipelines.py

deepspeed-test: $(STAMP) ## train by DeepSpeed ZeRO-2, two processes on the CPU
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[deepspeed]"
	$(BIN)/python -m pytest tests/training/test_deepspeed.py

engine-test: $(STAMP) ## serve, diagnose and roll out by a real vLLM on the CPU, in .venv-vllm (4 GB)
	SDG_ENGINE=$${SDG_ENGINE:-.venv-vllm}; $(BIN)/python tests/engine/prepare_vllm.py $$SDG_ENGINE && \
	SDG_ENGINE=$$SDG_ENGINE $(BIN)/python -m pytest -s -m engine tests/engine

gpu-set: $(STAMP) ## show the versions that pip would install for the extra gpu
	SDG_GPU_SET=1 $(BIN)/python -m pytest -s tests/engine/test_gpu_set.py

annotate-test: $(STAMP) ## annotate on a real Label Studio, in an environment of its own
	test -x $(VENV)-label-studio/bin/label-studio || $(PYTHON) -m venv $(VENV)-label-studio
	$(VENV)-label-studio/bin/python -m pip install --quiet --disable-pip-version-check "label-studio==1.23.2"
	SDG_LABEL_STUDIO=$(CURDIR)/$(VENV)-label-studio/bin/label-studio $(BIN)/python -m pytest -m annotate

lint: $(STAMP)   ## check format and style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(STAMP) ## rewrite files in the project's format
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

types: $(STAMP)  ## check types
	$(BIN)/mypy

check: lint types test ## all of it

bench: $(STAMP)  ## print the measured speeds quoted in the docs
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

browser: $(STAMP) ## install a browser for the tests of reports, where there is none
	@for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do \
	  command -v $$name && exit 0; done; \
	$(BIN)/python -m playwright install --with-deps chromium-headless-shell || apt-get install --yes chromium

reference: $(STAMP) ## bring the trees and the pages that are made from code up to date
	$(BIN)/python docs/update_tree.py && $(BIN)/python docs/update_reference.py

docs: $(STAMP)   ## build the docs as a site in site/; a broken link fails
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict && echo "Open site/index.html, or run $(BIN)/mkdocs serve, whose pages can be searched."

clean:           ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
