# Interlock: everything a person or CI runs. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
STAMP := .venv/.installed
unexport PYTHONDONTWRITEBYTECODE  # the tests start hundreds of processes: compile once

.PHONY: help setup setup-test demo test check unit bench compat docs fuzz fuzz-shell fuzz-postgres fuzz-coverage sabotage format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml requirements.lock
	@command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3 python3-venv"; exit 2; }
	@test -x $(PY) || python3 -m venv .venv || { echo "python3 can't make a venv: apt-get install python3-venv"; exit 2; }
	@echo "installing into .venv (locked, by hash) …"
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(STAMP) ## create .venv with everything, so that .venv/bin/interlock runs

setup-test: setup ## install what the tests need by apt (PostgreSQL, sshd, Chromium, …); says what it installs
	@deploy/setup-test.sh

demo: setup ## see an agent stopped, a human answer, the command run, the proof verify
	@deploy/demo/run.sh

test: setup-test ## everything, against real servers and clients
	$(PY) -m pytest tests -n 2 --dist loadfile

# What the unit tests write is thrown away. In memory it waits for no disk, where there is room and scripts may run.
SCRATCH = $(shell grep -E ' /dev/shm tmpfs ' /proc/mounts 2>/dev/null | grep -qv noexec \
	&& [ "$$(df -Pm /dev/shm | awk 'NR == 2 {print $$4}')" -ge 2048 ] && echo /dev/shm || echo "$${TMPDIR:-/tmp}")

unit: setup ## the fast part: no servers, and fewer examples of each property
	UNIT=1 TMPDIR=$(SCRATCH) $(PY) -m pytest tests -m "not interop and not blackbox" -n 2 --dist loadfile

check: setup ## format, lint, types, imports
	.venv/bin/ruff format --check proxy tests docs deploy
	.venv/bin/ruff check proxy tests docs deploy
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

format: setup ## apply the formatter and the safe fixes
	.venv/bin/ruff format proxy tests docs deploy
	.venv/bin/ruff check --fix proxy tests docs deploy

bench: setup-test ## ratios against direct, pgbouncer and ProxyJump in one run
	$(PY) -m tests.bench

compat: setup-test ## clients and their own suites, directly and through the proxy, compared (long; downloads; CHECKS="psql pgx" for some)
	PYTHONPATH=tests $(PY) -m compat $(CHECKS)

docs: setup ## regenerate the reference pages from the code
	$(PY) -m docs.generate

fuzz: setup-test fuzz-shell ## property tests with fresh seeds and many examples, and the long run against real shells
	FUZZ=1 $(PY) -m pytest tests -m "not interop and not blackbox" -p no:cacheprovider
	FUZZ=1 $(PY) -m pytest tests/commands/sql/test_differential.py -p no:cacheprovider

FUZZ_TEXTS ?= 200000
fuzz-shell: setup-test ## run FUZZ_TEXTS generated shell texts in bash, dash and busybox against what was predicted (FUZZ_SEED)
	$(PY) -m tests.fuzz.shell_run --count $(FUZZ_TEXTS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

FUZZ_SECONDS ?= 300
fuzz-postgres: setup ## feed whole Postgres sessions and the codec with damaged streams for FUZZ_SECONDS (FUZZ_SEED)
	$(PY) -m tests.fuzz.postgres_run --seconds $(FUZZ_SECONDS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

fuzz-coverage: setup ## coverage-guided fuzzing of the front parsers, FUZZ_SECONDS each; installs atheris into .fuzz
	$(PY) -m tests.fuzz.coverage

sabotage: setup-test ## apply one-line patches that must each make their named test fail
	$(PY) -m tests.sabotage

clean: ## remove what was built
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .demo .fuzz
