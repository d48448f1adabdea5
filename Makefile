# `make demo` runs the main job, `make test` the tests. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo ui test lint bench soak storm pictures mutants figures lock clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/ingest-pipeline demo

ui: setup
	$(BIN)/ingest-pipeline ui --demo

# In several processes, because many tests wait for Dagster's ticks or a server's silence.
JOBS ?= 3
test: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

MINUTES ?= 20
soak: setup
	STORM_MINUTES=$(MINUTES) $(BIN)/python -m pytest -m soak --timeout 7200

storm: setup
	$(BIN)/python -m tests.soak.storm --minutes $(MINUTES) --json .storm.json

figures: setup
	$(BIN)/python -m tests.support.figures

# Needs a Chromium. Pictures of Dagster's pages as a browser test meets them.
pictures: setup
	PICTURES=docs/images $(BIN)/python -m pytest tests/acceptance/test_browser.py

mutants: setup
	$(BIN)/python tests/faults/mutants.py

lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --all-extras \
	  --python-version 3.11 pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) .ingest_pipeline build dist *.egg-info
