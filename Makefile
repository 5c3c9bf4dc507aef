# `make demo` and `make test` work as the first command in an empty clone: Python >= 3.10 is all they need.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out/demo

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALL := $(PIP) install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo serve test slow lint format docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    fill in an example picture and say where the results are"
	@echo "make serve   open the web page: http://127.0.0.1:7860"
	@echo "make test    run the fast tests"
	@echo "make slow    run the slow tests"
	@echo "make lint    ruff, mypy and the fence between the rooms"
	@echo "make format  let ruff sort imports and reformat"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove .venv, caches and out/"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "priorpaint needs Python >= 3.10; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -f $(BIN)/python; echo "python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# A stamp each for the four sets of packages; all are redone when a pin or a dependency changes.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing priorpaint into $(VENV) (a few minutes the first time)"
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing priorpaint and the development tools into $(VENV) (a few minutes the first time)"
	$(INSTALL) -e ".[dev]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-web: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing priorpaint and its web page into $(VENV) (a few minutes the first time)"
	$(INSTALL) -e ".[web]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing priorpaint and the documentation tools into $(VENV) (a few minutes the first time)"
	$(INSTALL) -e ".[docs]"
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/priorpaint inpaint examples/chelsea.png examples/chelsea-strokes.png -o $(OUT) --samples 4 --seed 0 --overwrite
	@echo "The completions, their mean, the uncertainty picture and the contact sheet are in $(OUT):"
	@ls $(OUT)

serve: $(VENV)/.installed-web
	$(BIN)/priorpaint serve

# One process a core, each with one thread: many small tests gain more from that than from torch's own threads.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 $(PYTEST_ARGS)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Strict: a broken link or an unknown name is an error. Nothing is fetched, neither here nor by the pages.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the documentation is in site/index.html"

clean:
	rm -rf .venv out build site dist .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
