# All that a developer or the continuous integration runs. `make help` lists it.
# Everything needed is set up by the first target that needs it, see .ci/prepare.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# Tests that need neither a real process nor a foreign client nor minutes of simulation; newer
# Pythons run these alone.
UNIT := tests --ignore=tests/conformance --ignore=tests/cluster --ignore=tests/foreign \
	--ignore=tests/typing \
	--ignore=tests/chaos/test_simulation.py --ignore=tests/chaos/test_mutations.py \
	--ignore=tests/chaos/test_real_cluster.py \
	--ignore=tests/test_layout.py --ignore=tests/test_docs.py \
	--ignore=tests/client/test_against_brokers.py --ignore=tests/client/test_blocking.py \
	--ignore=tests/client/test_docstrings.py --ignore=tests/client/test_failover.py \
	--ignore=tests/client/test_tls.py
NEWER := 3.12 3.13
EXAMPLES := docs/examples/amqplib

.DEFAULT_GOAL := help
.PHONY: help cluster test check chaos bench docs unit-newer

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

cluster: $(VENV)/.installed ## start a demo cluster of three nodes on this machine
	$(BIN)/leveret cluster --demo

test: check $(EXAMPLES)/node_modules/.installed ## everything: check, all tests, unit tests on newer Pythons
	$(BIN)/python -m pytest --ignore=tests/test_layout.py
	@$(MAKE) --no-print-directory unit-newer

check: $(VENV)/.installed ## what needs no broker: format, lints, types, import rules, layout
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict cluster nodes tests chaos
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_layout.py

chaos: $(VENV)/.installed ## faults against a cluster; pass options by ARGS="..."
	$(BIN)/python -m chaos $(ARGS)

bench: $(VENV)/.installed ## print the benchmarks' tables
	@set -e; for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script; done

docs: $(VENV)/.installed $(EXAMPLES)/node_modules/.installed ## print the configuration's reference, check the pages, run their examples
	$(BIN)/leveret config reference > docs/reference/configuration.md
	$(BIN)/python -m pytest tests/test_docs.py tests/conformance/test_examples.py

# A version that is not on the PATH, or only as a shim that does not run, is left out.
unit-newer:
	@set -e; for version in $(NEWER); do \
		if python$$version -c '' 2>/dev/null; then \
			echo "unit tests on Python $$version"; \
			.ci/prepare .venv-$$version python$$version; \
			.venv-$$version/bin/python -m pytest -q $(UNIT); \
		fi; \
	done

$(VENV)/.installed: pyproject.toml .ci/prepare
	.ci/prepare $(VENV)

# Without node the tests of amqplib are skipped and say so, therefore this never fails.
$(EXAMPLES)/node_modules/.installed: $(EXAMPLES)/package.json .ci/prepare-node
	.ci/prepare-node $(EXAMPLES)
