# `make demo` runs the main job, `make test` the tests. Both set up what they need. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without bytecode each process compiles Dagster again, for two seconds, and the tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo ui test lint docs bytecode reference dist bench soak storm pictures mutants figures lock clean ruff contracts pyright mypy

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(VENV)/.installed ## install everything into .venv/

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/.demo

# The programs of the tests are most of what `make setup` installs, and the demo needs none. Python writes the bytecode
# of the modules that the demo imports when it imports them, which is less than all of it.
$(VENV)/.demo: pyproject.toml requirements-demo.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes --requirement requirements-demo.lock
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(VENV)/.demo ## ingest, edit, die between the stores, recover, search, audit
	$(BIN)/ingest-pipeline demo

ui: $(VENV)/.demo ## Dagster's web UI over the demo's corpus
	$(BIN)/ingest-pipeline ui --demo

# Two processes more than there are cores, because many tests wait for Dagster's ticks or a server's silence.
JOBS ?= $(shell expr $$(nproc) + 2)
test: setup ## all tests but the long ones
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

# Else each process of the tests, all at once, compiles the tests and all that they import.
bytecode: setup
	$(BIN)/python -m pytest --collect-only --quiet > /dev/null

lint: ruff contracts pyright mypy ## ruff, import-linter, pyright, mypy

ruff: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

contracts: setup
	$(BIN)/lint-imports

pyright mypy: setup
	$(BIN)/$@

# The programs of the site are large and serve nothing else, so `make setup` does not install them. With --quiet,
# MkDocs does not count warnings, and a strict build would pass.
docs: $(VENV)/.docs ## build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

$(VENV)/.docs: requirements-docs.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes --requirement requirements-docs.lock
	touch $@

reference: setup ## write the generated parts of the documents
	$(BIN)/python -m tools.reference

dist: setup ## build wheel and source distribution into dist/, and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

bench: setup ## speed and memory beside a plain script
	$(BIN)/python -m benchmarks

MINUTES ?= 20
soak: setup ## the long tests, and a storm of MINUTES=20
	STORM_MINUTES=$(MINUTES) $(BIN)/python -m pytest -m soak --timeout 7200

storm: setup ## a storm alone: writers, readers, Dagster and S3, all disturbed at random
	$(BIN)/python -m tools.storm --minutes $(MINUTES) --json .storm.json

figures: setup ## put the counts of the last tests into docs/evidence.md
	$(BIN)/python -m tools.figures

# Needs a Chromium. Pictures of Dagster's pages as a browser test meets them.
pictures: setup ## pictures of Dagster's pages (needs a Chromium)
	PICTURES=docs/images $(BIN)/python -m pytest -m 'soak or not soak' tests/acceptance/ui/test_browser.py tests/acceptance/ui/test_composed.py

mutants: setup ## unplug each safeguard and demand that its test fails
	$(BIN)/python -m tools.mutants

lock: ## compile the lock files from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra dev \
	  --python-version 3.11 pyproject.toml --output-file requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra demo \
	  --constraint requirements.lock --python-version 3.11 pyproject.toml --output-file requirements-demo.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --group docs \
	  --constraint requirements.lock --python-version 3.11 --output-file requirements-docs.lock

clean: ## remove what the other targets made
	rm -rf $(VENV) .ingest_pipeline build dist site *.egg-info
