# A target that needs .venv makes it first. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
PROFILE ?= default
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
# Put this before a long, quiet command on the same line: it prints a line every ten seconds until the end.
TELL = { (n=0; while sleep 10 >/dev/null 2>&1; do n=$$((n+10)); echo "at work for $$n s"; done) & \
  trap "kill $$! 2>/dev/null" EXIT; };

# A worker of pytest takes whole files, so that what a file's fixtures make is made once. The longest come first.
# TESTS=tests/test_norms.py runs one file.
SHARED := -n auto --dist loadfile --no-loadscope-reorder
LONGEST := $(addprefix tests/test_,pipeline.py cluster.py together.py smoke.py wheel.py own_projects.py)
TESTS := $(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/test_*.py))

.DEFAULT_GOAL := help
.PHONY: help setup evaluate pull push repro report ui test test-slow test-services lint types bench smoke same-bytes same-code rooms wheel lowest clean lock

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-13s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv from requirements.lock and install this checkout into it

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DeepCustom needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@echo 'installing from requirements.lock (about 2 GB with the CPU wheel of torch; a few minutes)'
	@$(TELL) $(BIN)/python -m pip install --quiet --requirement requirements.lock
	@$(TELL) $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

evaluate: $(READY)  ## pull the models, make the test sets, score, compare with the committed tables
	$(BIN)/deepcustom rescore

pull: $(READY)  ## fetch the trained models from the DVC remote
	@[ -t 2 ] || $(TELL) $(BIN)/dvc pull

push: $(READY)  ## push the trained models to the DVC remote (REMOTE=name; by default the default one)
	@$(TELL) $(BIN)/deepcustom push $(if $(REMOTE),--remote $(REMOTE))

repro: $(READY)  ## run the whole pipeline, training included (PROFILE=default, paper or smoke)
	$(BIN)/deepcustom repro --profile $(PROFILE)

report: $(READY)  ## fetch what the page needs, write reports/index.html, and print its address
	@$(TELL) $(BIN)/dvc pull --quiet || echo 'make report: what dvc pull could not fetch is named on the page' >&2
	@$(BIN)/deepcustom page

ui: $(READY)  ## start the MLflow UI on 127.0.0.1 (PROFILE=...)
	$(BIN)/deepcustom ui --profile $(PROFILE)

test: $(READY)  ## the fast tests, without network, on all cores (ARGS='-n 0': on one)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(SHARED) -m 'not slow and not network and not services' $(TESTS) $(ARGS)

	@echo 'left out: make test-slow (runs whole pipelines; fetches MNIST),'
	@echo '          make test-services (storage, database and browser; needs Debian packages)'

test-slow: $(READY)  ## the tests that make test leaves out: network and the smoke pipeline, minutes
	@$(TELL) OMP_NUM_THREADS=1 $(BIN)/pytest $(SHARED) -m '(slow or network) and not services' $(TESTS) $(ARGS)

test-services: $(READY)  ## the tests with S3, WebDAV, PostgreSQL and a browser (apt-get: postgresql chromium)
	@for name in initdb chromium; do \
	  test -n "$$(PATH=$$PATH:$$(echo /usr/lib/postgresql/*/bin | tr ' ' ':') command -v $$name)" || { \
	  echo "make test-services needs Debian packages: apt-get install postgresql chromium" >&2; exit 2; }; done
	@$(TELL) $(BIN)/python -m pip install --quiet --no-deps --requirement tests/services/requirements.lock
	@$(TELL) OMP_NUM_THREADS=1 $(BIN)/pytest $(SHARED) -m services tests/services $(ARGS)

lint: $(READY)  ## ruff, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

bench: $(READY)  ## measure speed and memory side by side with other libraries (half an hour; ARGS=--quick)
	@$(TELL) $(BIN)/python -m pip install --quiet --no-deps --requirement benchmarks/requirements.lock
	$(BIN)/python -m benchmarks $(ARGS)

smoke: $(READY)  ## the whole pipeline on a few hundred images, in workspaces/smoke
	$(BIN)/deepcustom repro --profile smoke

same-bytes: $(READY)  ## run REF=<commit> and HEAD on the smoke profile, compare every byte (ALLOW='glob glob')
	@test -n "$(REF)" || { echo "make same-bytes REF=<commit>, and ALLOW='glob glob' for what may differ" >&2; exit 2; }
	$(BIN)/python tests/same_bytes.py "$(REF)" --allow "$(ALLOW)"

same-code: $(READY)  ## check that since REF=<commit> only comments, docstrings and error texts changed
	@test -n "$(REF)" || { echo "make same-code REF=<commit>" >&2; exit 2; }
	$(BIN)/python tests/same_code.py "$(REF)"

rooms: $(READY)  ## draw the rooms of the code, and what each imports, into CONTRIBUTING.md
	$(BIN)/python docs/images/rooms.py

wheel: $(READY)  ## build the package into dist/, to be installed elsewhere
	rm -rf build
	@$(TELL) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

lowest: $(READY)  ## the fast tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	@$(TELL) $(BIN)/python -m pip install --quiet uv
	$(PYTHON) -m venv $(LOWEST)
	@$(TELL) $(BIN)/uv pip compile pyproject.toml --extra dev --resolution lowest-direct --python $(LOWEST)/bin/python \
	  --no-annotate --no-header --quiet --output-file .lock.partial
	grep -vE '^(nvidia-|cuda-|triton)' .lock.partial > $(LOWEST)/requirements.txt
	@rm .lock.partial
	@$(TELL) $(LOWEST)/bin/python -m pip install --quiet --requirement $(LOWEST)/requirements.txt 'setuptools>=77'
	@$(TELL) $(LOWEST)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	PATH=$(CURDIR)/$(LOWEST)/bin:$$PATH OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest $(SHARED) \
	  -m 'not slow and not network and not services' $(TESTS) $(ARGS)

lock: $(READY)  ## pin the ranges of pyproject.toml into requirements.lock
	@$(TELL) $(BIN)/python -m pip install --quiet uv
	@$(TELL) $(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
	  --no-annotate --no-header --quiet --output-file .lock.partial
	@# Leave out the packages of CUDA: torch pins them itself where its wheel needs them.
	{ echo '# Made by `make lock` from pyproject.toml; do not edit.'; \
	  grep -vE '^(nvidia-|cuda-|triton)' .lock.partial; } > requirements.lock
	@rm .lock.partial

clean:  ## remove .venv and caches (data, models, results, workspaces and checkpoints stay)
	rm -rf $(VENV) $(LOWEST) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
