# make quickstart   install with the JAX backend and run workflows/quickstart.yaml
# make test         install the three backends and run the checks and tests under each; BACKENDS=jax installs and tests one
# make test-all     the same with the slow tests, and with llama.cpp where it builds
# make test-faults  make every fault happen that the promises speak of, and count
# make mutants      break the code on purpose, fault by fault, and table which faults the tests notice; goes on where it stopped
# make check        formatting, lint, types
# make bench        measure against KerasHub, transformers, TRL and llama.cpp, an hour and a half; writes benchmarks/README.md
# make bench-quick  a few of these in ten minutes, as a table on the terminal
# make clean        remove what the targets made, the environment and runs/ excepted
#
# Variables: PYTHON (3.11 or later), VENV, BACKENDS="jax tensorflow torch", PYTEST_ARGS, MUTANT_ARGS,
# CONSTRAINTS: exact versions to install, default those that the tests run with; empty: the newest that pyproject.toml allows.
# TORCH_INDEX_URL: an index with PyTorch's CPU builds, e.g. https://download.pytorch.org/whl/cpu. Empty: pip's own settings.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BACKENDS ?= jax tensorflow torch
PYTEST_ARGS ?=
CONSTRAINTS ?= constraints.txt
TORCH_INDEX_URL ?=
# What to compare with brings a backend of its own (KerasHub TensorFlow, TRL PyTorch), and comes where that one is tested.
PEERS := $(if $(filter tensorflow,$(BACKENDS)),keras-hub) $(if $(filter torch,$(BACKENDS)),trl)
EMPTY :=
SPACE := $(EMPTY) $(EMPTY)
COMMA := ,
TEST_EXTRAS := $(subst $(SPACE),$(COMMA),$(strip $(BACKENDS) $(PEERS) test real-model))

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix --constraint ,$(CONSTRAINTS))
JAX_STAMP := $(VENV)/.installed-jax
TEST_STAMP := $(VENV)/.installed-test-$(subst $(SPACE),-,$(strip $(BACKENDS)))
LLAMA_STAMP := $(VENV)/.tried-llama-cpp
INSTALL_INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := quickstart
.DELETE_ON_ERROR:
.PHONY: quickstart install install-test test test-all test-faults mutants check format bench bench-quick clean

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed, found $$("$(PYTHON)" --version 2>&1). Name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)

$(JAX_STAMP): $(INSTALL_INPUTS) | $(BIN)/python
	@echo "Installing gemma-keras with the JAX backend into $(VENV) (once; about two minutes)"
	$(PIP_INSTALL) --editable ".[jax]"
	@touch $@

$(TEST_STAMP): $(INSTALL_INPUTS) | $(BIN)/python
	@echo "Installing gemma-keras with $(BACKENDS) and the test tools into $(VENV) (once; several minutes)"
	$(PIP_INSTALL) $(if $(TORCH_INDEX_URL),--extra-index-url "$(TORCH_INDEX_URL)") --editable ".[$(TEST_EXTRAS)]"
	@touch $@ $(if $(filter jax,$(BACKENDS)),$(JAX_STAMP))

# Built from source, which not every machine can; its tests are skipped where it is missing.
$(LLAMA_STAMP): $(TEST_STAMP)
	@echo "Building llama-cpp-python into $(VENV) (once; several minutes)"
	-$(PIP_INSTALL) --editable ".[llama-cpp]"
	@touch $@

install: $(JAX_STAMP)

install-test: $(TEST_STAMP)

quickstart: $(JAX_STAMP)
	$(BIN)/gemma-keras run workflows/quickstart.yaml
	@echo "Report: $(CURDIR)/runs/quickstart/report.html"

test: $(TEST_STAMP)
	@BIN="$(BIN)" BACKENDS="$(BACKENDS)" bash tests/run_all.sh quick $(PYTEST_ARGS)

test-all: $(TEST_STAMP) $(LLAMA_STAMP)
	@BIN="$(BIN)" BACKENDS="$(BACKENDS)" bash tests/run_all.sh all $(PYTEST_ARGS)

# Every fault that the tests make happen, on all backends, counted by row; goes on where it stopped. The table: docs/reliability.md.
test-faults: $(TEST_STAMP)
	@for backend in $(BACKENDS); do \
	    selection="not no_backend"; [ $$backend != $(firstword $(BACKENDS)) ] || selection=""; \
	    KERAS_BACKEND=$$backend PYTHONPATH=$(CURDIR):$(CURDIR)/tests/fixtures $(BIN)/python -m pytest -q -n 2 -p fault_counts \
	        --faults .cache/faults.json --faults-page docs/reliability.md -m "$$selection" tests || status=1; \
	done; exit $${status:-0}

# Two at a time, one thread each; on PyTorch, which starts fastest. Results stay in .cache/mutants.jsonl.
mutants: $(TEST_STAMP)
	KERAS_BACKEND=torch $(BIN)/python tests/mutation $(MUTANT_ARGS)

check: $(TEST_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(TEST_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(TEST_STAMP)
	$(BIN)/python -m benchmarks.run $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.chart

bench-quick: $(TEST_STAMP)
	$(BIN)/python -m benchmarks.run --quick $(BENCH_ARGS)

clean:
	rm -rf build dist .cache .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
