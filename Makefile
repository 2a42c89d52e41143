# Python 3.11 or 3.12 and a C++ compiler must be there; the targets install everything else into .venv.
PYTHON ?= python3
CORES ?= all
READY := .venv/ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help table3 all report test lint audit reference slurm-test bench docs

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

table3: $(READY)  ## Make Table 3 of the paper on the embedded data set: ten minutes on two cores.
	snakemake --cores $(CORES) results/table3.csv
	@cat results/table3.md

all: $(READY)  ## Make every table and figure: under an hour on two cores.
	snakemake --cores $(CORES)

report: all  ## Make everything, and one HTML page that shows it: results/report.html.
	snakemake --report results/report.html

test: $(READY)  ## Run the tests.
	pytest

lint: $(READY)  ## Check style, types and the workflow's rules.
	ruff check .
	ruff format --check .
	pyright
	snakefmt --check Snakefile workflow
	snakemake --lint

audit: $(READY)  ## Make everything again in a clone, .audit, and compare every file with the committed manifests.
	tseg audit --scratch .audit

# In a clone, whose results DVC does not lock. Git has the files there before what they come from: --forcerun makes them again.
reference: $(READY)  ## Make what `tseg verify` compares with, from the last commit in a clone, .reference: hours.
	test -d .reference || git clone --quiet . .reference
	cd .reference && git fetch --quiet origin HEAD && git reset --quiet --hard FETCH_HEAD
	cd .reference && PYTHONPATH=$(CURDIR)/.reference/src snakemake --cores $(CORES) --forcerun reference -- all_references
	mkdir -p results/reference && rm -f results/reference/*.*
	cp .reference/results/reference/*.* results/reference

slurm-test: $(READY)  ## Run the workflow through a SLURM of this machine; needs root and the packages slurm-wlm and munge.
	pytest -rs tests/slurm

bench: $(READY)  ## Time every stage against the plain way to do it, measure memory, and estimate the paper's cost.
	python bench/run.py
	python bench/memory.py
	python bench/cost.py

docs: $(READY)  ## Regenerate config/schema, and docs/rulegraph.svg (needs Graphviz's dot).
	python -m tseg.settings.json_schema
	@command -v dot > /dev/null || { echo "make docs: config/schema is written; docs/rulegraph.svg needs dot, install graphviz" >&2; exit 1; }
	snakemake --rulegraph > .venv/rulegraph.dot
	dot -Tsvg -o docs/rulegraph.svg .venv/rulegraph.dot

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "tseg needs Python 3.11 or 3.12, and $(PYTHON) is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	pip install --requirement requirements.lock
	pip install --no-deps --editable .
	@touch $@
