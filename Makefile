# `make table3` and `make test` need python 3.11 or 3.12, make and a C++ compiler; everything else goes into .venv.
PYTHON ?= python3
CORES ?= all
READY := .venv/ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: table3 all report test lint audit bench

table3: $(READY)  ## Table 3 of the paper, on the embedded data set
	snakemake --cores $(CORES) results/table3.csv
	@cat results/table3.md

all: $(READY)  ## every table and figure
	snakemake --cores $(CORES)

report: all  ## one HTML page with all of them
	snakemake --report results/report.html

test: $(READY)
	pytest

lint: $(READY)
	ruff check .
	ruff format --check .
	pyright
	snakefmt --check Snakefile workflow
	snakemake --lint

audit: $(READY)  ## make everything through DVC, which compares every file with dvc.lock
	dvc repro
	dvc metrics show

bench: $(READY)  ## timings of the costly steps, and the cost at the paper's scale
	python bench/steps.py
	python bench/cost.py

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "tseg needs Python 3.11 or 3.12, and $(PYTHON) is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	pip install --requirement requirements.lock
	pip install --no-deps --editable .
	@touch $@
