# One command each; docs/development.md says more. Everything that is needed is installed first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

# All scenarios of molecule/, the longest first, and how many run at the same time.
MOLECULE_SCENARIOS ?= lifecycle rotate mixed rclone_proxy jobs borg end_to_end setcap local rest_server bad_input ssh_access handover default
MOLECULE_JOBS ?= 2
# One scenario, for `make molecule`, and what to do with it.
SCENARIO ?=
MOLECULE_COMMAND ?= test
# Some of tests/attack/mutants.py, for `make mutants`; none are all.
MUTANT ?=

export MOLECULE_SCENARIOS MOLECULE_JOBS
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.collections

.PHONY: help setup check test molecule integration attack mutants test-ceph demo bench reference format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: ## Install what the checks need
	@tests/tools/setup

check: ## Static checks and unit tests (root is not needed)
	@tests/tools/setup
	@nox

test: ## Every check and every test, on real hosts too (root); a summary at the end
	@tests/tools/setup --lab
	@python -m tests.tools.everything

molecule: ## One scenario (SCENARIO=jobs), or all of them
	@tests/tools/setup --lab
	@python -m tests.tools.scenarios --command $(MOLECULE_COMMAND) $(SCENARIO)

integration: ## Modules and the host program on real hosts of both releases (make test: one release each)
	@tests/tools/setup --lab
	@HOLDFAST_ALL_SUITES=1 nox -s integration

attack: ## Attacks on what is guaranteed, on real hosts (HOLDFAST_MUTANT=neither takes something away first)
	@tests/tools/setup --lab
	@python -m pytest -q tests/attack

mutants: ## Take away what is guaranteed, one thing after the other: attacks have to notice each (MUTANT=neither for one)
	@tests/tools/setup --lab
	@python -m tests.attack.each_mutant $(MUTANT)

test-ceph: ## The rclone proxy in front of Ceph's RADOS gateway (not part of make test)
	@tests/tools/setup --lab
	@python -m pytest tests/ceph

demo: ## The whole story on a server and two clients in five minutes (KEEP=1 leaves them up)
	@tests/tools/setup --lab
	@KEEP=$(KEEP) tests/demo/demo

bench: ## Executions, seconds and throughput; fails when one is over its limit
	@tests/tools/setup --lab
	@python -m tests.benchmark

reference: ## Write docs/reference anew
	@tests/tools/setup
	@python -m tests.tools.reference

format: ## Format the Python files
	@tests/tools/setup
	@ruff format
	@ruff check --fix

clean: ## Remove what the checks made, environments included; the lab's cached systems stay
	@rm -rf .venv .venvs .collections .cache .nox .mypy_cache .ruff_cache .pytest_cache .ansible .coverage* coverage
	@find . -name __pycache__ -prune -exec rm -rf {} +
