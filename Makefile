# The project's commands. `make` alone lists them. Everything is installed into .venv; a second call is quick.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	if $$p -c "$(FITS)" 2>/dev/null; then echo $$p; break; fi; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
TORCH := torch==2.13.0
PHOTOS := demo/photos
DEMO := demo/train.py $(PHOTOS)

.PHONY: help demo test check check-all sanitize bench docs samples clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

# -- the environment ---------------------------------------------------------------------------------------------------

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "hasten needs Python 3.11, 3.12 or 3.13 with venv (Debian: apt install python3-venv);" \
		"name it with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "== making $(VENV) with $(TORCH); the first time this downloads torch and takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH) "pillow>=11"
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing what the tests need"
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' \
		> $(VENV)/dev.txt
	$(PIP) --requirement $(VENV)/dev.txt
	@touch $@

# -- the demo ----------------------------------------------------------------------------------------------------------

demo: $(VENV)/.installed  ## a plain image classifier: explain it, make it faster, prove the weights are the same
	@echo "== 1/4 photographs: 600 JPEG files in 6 folders (made once)"
	$(BIN)/python demo/make_photos.py $(PHOTOS)
	@echo; echo "== 2/4 where does the time go, and why? Two epochs of demo/train.py, which knows nothing of hasten"
	$(BIN)/hasten explain $(DEMO) --epochs 2
	@echo; echo "== 3/4 make it faster while it trains: remedies are tried in forked copies of the running script, each is"
	@echo "       timed and its weights compared; what passes stays on (see the epochs after the first ones)"
	PYTHONUNBUFFERED=1 $(BIN)/hasten run --budget 60 --allow identical --save-plan $(VENV)/demo.hasten.json \
		$(DEMO) --epochs 6 | tee $(VENV)/demo-with.txt
	@echo; echo "== 4/4 the same six epochs by plain Python, to compare"
	PYTHONUNBUFFERED=1 $(BIN)/python $(DEMO) --epochs 6 | tee $(VENV)/demo-without.txt
	@if diff <(grep '^weights' $(VENV)/demo-with.txt) <(grep '^weights' $(VENV)/demo-without.txt); \
		then echo "== the final weights are the same with and without hasten, to the bit"; \
		else echo "== the final weights differ: this must not happen, please report it"; exit 1; fi
	@echo "== how sure is the speed-up? python bench/demo_speedup.py lets the epochs of both take turns"

# -- tests -------------------------------------------------------------------------------------------------------------

check: $(VENV)/.installed-dev  ## style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy bench docs

test check-all: export PYTHONDONTWRITEBYTECODE =  # hundreds of scripts are started under hasten: it is compiled once

test: check  ## style, types and all tests that take seconds (this is what CI runs)
	$(BIN)/python -m tests.halves

check-all: check  ## the slow tests, too
	$(BIN)/pytest

sanitize: $(VENV)/.installed-dev  ## the tests of what is compiled, with GCC's checks of addresses and of undefined behaviour (half an hour)
	$(BIN)/python -m tests.sanitized address
	$(BIN)/python -m tests.sanitized undefined

# -- figures and documentation -----------------------------------------------------------------------------------------

bench: $(VENV)/.installed-dev $(PHOTOS)/.made  ## measure every claim of the README that needs nothing but this checkout (hours)
	$(BIN)/python bench/watch_cost.py
	$(BIN)/python bench/aa_false_claims.py
	$(BIN)/python bench/aa_false_claims.py --in-turns
	$(BIN)/python bench/aa_false_claims.py --long 260 --trials 40 --conditions quiet --seconds 20
	$(BIN)/python bench/demo_speedup.py $(PHOTOS)
	for name in 1660 sklearn module gru growing ragged; do $(BIN)/python bench/fleet_$$name.py; done
	for name in ols alphas rfe_pca sliding out_of_core shards; do $(BIN)/python bench/solve_$$name.py; done
	@echo "== bench/public_scripts.py and two others need what is not here: see bench/README.md"

$(PHOTOS)/.made: $(VENV)/.installed demo/make_photos.py
	$(BIN)/python demo/make_photos.py $(PHOTOS)
	@touch $@

docs: $(VENV)/.installed-dev  ## write docs/rules.md, the README's tables and the JSON schemas from what they describe
	$(BIN)/python docs/generate.py
	$(BIN)/python -m hasten.report.schema > src/hasten/report/schema.json
	for name in fleet solve; do $(BIN)/python -m hasten.report.schema $$name > src/hasten/report/schema_$$name.json; done

samples: $(VENV)/.installed-dev $(PHOTOS)/.made  ## run the demo and paste its output into the README
	$(BIN)/python docs/generate.py --samples $(PHOTOS)

clean:  ## remove the environment, the photographs and all caches
	rm -rf $(VENV) $(PHOTOS) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests bench docs demo slow -name __pycache__ -prune -exec rm -rf {} +
