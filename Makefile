# Everything a newcomer needs; each target sets up what it uses.
PYTHON ?= python3
# On a machine without a GPU: an index of CPU builds of torch, unless pip is configured for one already.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
# onnxruntime tells Microsoft of every session otherwise; our packages set it too.
export ORT_DISABLE_TELEMETRY := 1
# buf would write into the home directory, which may be read only.
export BUF_CACHE_DIR := $(CURDIR)/build/buf

.DEFAULT_GOAL := help
.PHONY: help setup demo serve bundle test test-deploy test-cluster lint locks bench bench-method protos release-protos clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv with the pinned dependencies

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@# A .venv that was interrupted while it was made has no pip.
	$(BIN)/python -c 'import pip, sys; assert sys.version_info >= (3, 11)' 2> /dev/null || \
		{ echo "making $(VENV) anew"; $(PYTHON) -m venv $(if $(wildcard $(VENV)/pyvenv.cfg),--clear) $(VENV); }
	$(PIP) install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

bundle: $(READY) ## train, evaluate and export the digits recipe to build/demo/bundle (about 3 minutes, once)
	$(BIN)/iin-train run digits --run-dir $(DEMO)

demo: bundle ## train, serve, call, and draw build/demo/gallery.png
	$(BIN)/iin-serve $(DEMO)/bundle --port 0 -- $(BIN)/iin gallery $(DEMO)/bundle/samples/*.png -o $(DEMO)/gallery.png
	@echo "look at $(DEMO)/gallery.png"

serve: bundle ## serve the digits model on port 9000 until Ctrl-C
	@exec $(BIN)/iin-serve $(DEMO)/bundle

test: $(READY) ## run the whole test suite, a live service included
	$(BIN)/python -m pytest

test-deploy: $(READY) ## check the overlays in deploy/, edited or not, as far as that goes without a cluster
	@$(BIN)/python -m tests.deploy.check
	$(BIN)/python -m pytest tests/deploy

test-cluster: bundle ## drain, kill, scale and roll out Ray nodes under load (8 minutes, Linux; no part of make test)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[cluster]'
	$(BIN)/python -m tests.cluster.run $(DEMO)/bundle

lint: $(READY) ## formatting, lints, types, import rules, protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=protos:service:training $(BIN)/lint-imports
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf breaking --against released.binpb
	$(BIN)/python protos/generate.py --check
	$(BIN)/python protos/reference.py --check

# For the Python and the system of the image; versions are those of constraints.txt.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --only-binary :all: --constraint constraints.txt \
	--python-version 3.11 --python-platform linux --no-emit-package iin-serving --custom-compile-command 'make locks'

locks: $(READY) ## lock what the image installs, with hashes, after a change of pyproject.toml or constraints.txt
	$(LOCK) pyproject.toml --extra serve -o deploy/image/requirements-cpu.txt
	$(LOCK) pyproject.toml --extra serve-gpu -o deploy/image/requirements-gpu.txt
	$(LOCK) --group image -o deploy/image/requirements-build.txt

protos: $(READY) ## generate the code beside the .proto files, and docs/API.md
	$(BIN)/python protos/generate.py
	$(BIN)/python protos/reference.py

release-protos: $(READY) ## at a release: make today's protos those that later ones must stay compatible with
	cd protos && ../$(BIN)/buf build -o released.binpb

bench: bundle ## throughput and latency beside a bare gRPC server, Triton and MLServer
	$(BIN)/python -m tests.bench.run $(DEMO)/bundle

bench-method: $(READY) ## a training step of T beside the same network in zuko and in FrEIA
	$(PIP) install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m tests.bench.method

clean: ## remove what was built (fetched data stays in the cache)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
