# Two commands set everything up on a fresh machine: `make demo` and `make test`.
# EXTRA=gpu installs the CUDA builds of torch and vLLM instead of the CPU ones.
PYTHON ?= python3.11
EXTRA ?= $(if $(wildcard .venv/.ready-gpu),gpu,cpu)
BIN := .venv/bin
READY := .venv/.ready-$(EXTRA)

.PHONY: setup demo test test-slow check audit format lock clean

setup: $(READY)  ## the environment alone

demo: $(READY)  ## from raw problems to the report of an evaluated student
	$(BIN)/python -m ray_jobs run --config configs/demo.yaml

test: $(READY)  ## everything but the hour-long proofs
	$(BIN)/python -m pytest -m "not slow" --durations 30

test-slow: $(READY)  ## the long proofs, before a release
	$(BIN)/python -m pytest -m slow --timeout 3600

check: $(READY)  ## lint, formatting, types, import contracts, pins and licences; needs no network
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/supply.py check

# The database has no entry of its own for the CPU build. --strict: what it cannot tell is a fault, too.
audit: $(READY)  ## known vulnerabilities of what is pinned; needs a network
	for extra in cpu gpu build; do \
	  sed 's/+cpu//' configs/requirements-$$extra.txt | \
	    $(BIN)/uv tool run pip-audit==2.10.1 --strict --disable-pip --require-hashes --requirement /dev/stdin || exit 1; \
	done

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)  ## pin the dependencies of pyproject.toml anew
	.ci/lock

clean:  ## forget the environment and the demo's run
	rm -rf .venv runs/demo

$(READY): configs/requirements-$(EXTRA).txt configs/requirements-build.txt .ci/setup
	.ci/setup $(PYTHON) $(EXTRA)
