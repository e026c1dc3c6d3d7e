# dmaml: `make run` trains, `make test` tests; both set up what they need.
# Python 3.11 is the reference and taken when present, else python3 (3.10 or newer).

PYTHON ?= $(shell command -v python3.11 2>/dev/null || command -v python3 2>/dev/null)
VENV   ?= .venv
BIN    := $(VENV)/bin
TORCH  ?= torch==2.13.0
CONFIG ?=
WORKERS ?= 2

# real pictures, where they are beside the checkout
ifneq ($(wildcard ../shared/data),)
export DMAML_DATA ?= $(abspath ../shared/data)
endif

.PHONY: help run test e2e slow check format proto docs bench clean

help:  ## what there is
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

run: $(VENV)/.run  ## set up, then meta-train on the embedded default
	$(BIN)/dmaml train $(CONFIG) --workers $(WORKERS)

test: $(VENV)/.dev  ## set up, then the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests

e2e: $(VENV)/.dev wheelhouse/.done  ## slow proofs, and everything that happens to a real cluster of containers
	@docker compose version >/dev/null 2>&1 || { echo "error: make e2e needs a Docker engine and \
	the Compose v2 plugin (docker compose version)." >&2; exit 2; }
	TORCH="$(firstword $(TORCH))" PIP_OPTIONS=--no-index docker compose build
	$(BIN)/python -m pytest -m e2e tests

slow: $(VENV)/.dev  ## of make e2e, what needs no Docker: sweeps, a whole repro, kill -9 in every phase, long trainings
	$(BIN)/python -m pytest -m e2e tests/integration tests/unit tests/contract

check: $(VENV)/.dev  ## style, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m dmaml.deploy.config_page --check docs/config.md
	$(BIN)/python -m dmaml.deploy.metrics_page --check docs/metrics.md

format: $(VENV)/.dev  ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/.dev  ## regenerate the stubs
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto \
	  --grpc_python_out=proto proto/dmaml/v1/*.proto

docs: $(VENV)/.dev  ## regenerate the pages that come from the code
	$(BIN)/python -m dmaml.deploy.config_page docs/config.md
	$(BIN)/python -m dmaml.deploy.metrics_page docs/metrics.md

bench: $(VENV)/.dev  ## the share of a round that server and transport take
	$(BIN)/dmaml bench overhead

clean:  ## remove what was built; runs/ stays
	rm -rf wheelhouse/*.whl wheelhouse/*.txt wheelhouse/.done
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# the packages of the images, in the versions of this environment: the same bits inside and outside;
# torch by itself, for it may come from an index that has nothing else
WHEELS = $(BIN)/python -m pip download --quiet --dest wheelhouse \
  --constraint wheelhouse/versions.txt
wheelhouse/.done: $(VENV)/.dev deploy/requirements.py
	rm -f wheelhouse/*.whl
	$(BIN)/python -m pip freeze --exclude-editable > wheelhouse/versions.txt
	$(BIN)/python deploy/requirements.py worker > wheelhouse/list.txt
	$(WHEELS) $(TORCH)
	$(WHEELS) --requirement wheelhouse/list.txt "setuptools>=77"
	@touch $@

# torch first, pinned, and unquoted: TORCH="torch==2.13.0 --index-url URL" takes it from elsewhere.
# On Linux the public index has the CUDA build, with gigabytes of packages (README.md).
$(VENV)/.run: pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no python3 found. Install Python 3.11." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit( \
	  "error: %s is Python %d.%d; dmaml needs 3.10 or newer. Install 3.11 or set PYTHON=..." \
	  % (sys.executable, v[0], v[1]))'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@
