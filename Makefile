# Habits: run, test, lint, bench. Each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SPEC ?= cheetah_run_quick
ARGS ?=
export RAY_AUTH_MODE ?= disabled

.PHONY: run test test-slow lint docs bench chaos metrics keys install clean

install: $(VENV)/.installed

# pip takes torch from where its configuration says, CUDA's or the processor's. uv keeps that torch, and resolves in
# seconds what takes pip minutes. pip does it where uv cannot be had, or cannot reach pip's own index.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
UV_INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) uv && $(UV_INSTALL) --editable '.[dev]' || $(PIP_INSTALL) --editable '.[dev]'
	touch $@

run: install
	$(BIN)/parsec run $(SPEC) $(ARGS)

# Two files at a time: those that start Ray mostly wait for its processes. tests/conftest.py puts the longest files
# first, and xdist shall leave them there. ARGS="-n 0" for one, with a debugger.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# Whole runs that are killed and go on, and clusters of several nodes. They share nothing: who is done takes what the
# other has not begun.
test-slow: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

# tests/test_rooms.py is the import contract, and tests/docs/test_prose.py the rule for prose. mypy does not see setuptools' package mapping: show it the folders under
# their import names.
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .typing/parsecrl
	for room in algorithms envs platform tune_specs; do ln -sfn ../../$$room .typing/parsecrl/$$room; done
	for file in __init__.py __main__.py py.typed; do ln -sfn ../../$$file .typing/parsecrl/$$file; done
	$(BIN)/python -m pytest -q tests/test_rooms.py tests/docs/test_prose.py
	$(BIN)/mypy -m parsecrl -p parsecrl.algorithms -p parsecrl.envs -p parsecrl.platform

# The documentation site, into site/. Nothing is downloaded, and a warning is an error. Search needs a server:
# python -m http.server --directory site --bind 127.0.0.1
docs: export NO_MKDOCS_2_WARNING = 1
docs: install
	$(BIN)/mkdocs build --quiet

# A sweep under a dozen faults; takes a quarter of an hour or more and prints the table of docs/faults.md.
chaos: install
	$(BIN)/python -m pytest tests/platform/test_chaos.py -m chaos -s $(ARGS)

# TorchRL's and stable-worldmodel's planners are measured beside the project's: of the second, the solvers are needed alone.
$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torchrl
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps stable-worldmodel loguru
	touch $@

bench: install $(VENV)/.peers
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=min,median,rounds -s -o addopts="--import-mode=importlib" $(ARGS)

# The Grafana dashboard and the table in docs/metrics.md, from the table of metrics in the code.
metrics: install
	$(BIN)/python -m parsecrl.platform.metrics.dashboards

# docs/specs.md, from the models that check a spec.
keys: install
	$(BIN)/python -m parsecrl.platform.specs.keys

clean:
	rm -rf $(VENV) .typing build dist site *.egg-info
