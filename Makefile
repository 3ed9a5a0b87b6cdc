# make demo, make test: each sets up what it needs (a virtual environment in .venv) and runs.
PYTHON ?= python3
CORES ?= 2
CONFIG ?= config/config.yaml
RESULTS ?= results
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo plan recover test test-unit test-e2e test-faults test-slurm lint format dag clean

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.venv/installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv .venv \
		|| { echo "python3-venv is missing (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --constraint constraints.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt --constraint constraints.txt
	@touch $@

install: .venv/installed ## the virtual environment with the pinned requirements

install-dev: .venv/installed-dev ## the same with what tests and linters need

demo: .venv/installed ## the whole workflow on simulated data, no network, about ten minutes on two cores
	$(BIN)/snakemake --cores $(CORES)
	$(BIN)/snakemake --cores 1 --report results/report.html
	@$(BIN)/python workflow/scripts/show_table.py results/tables/auroc.tsv results/tables/mlm.tsv results/tables/lrb.tsv

plan: .venv/installed ## what a run would still do: make plan CONFIG=config/grch38.yaml (downloads, jobs, disk, hours)
	@$(BIN)/python workflow/scripts/plan.py $(CONFIG) $(if $(SAVE),--save $(SAVE)) \
		$(if $(CALIBRATION),--calibration $(CALIBRATION))

recover: .venv/installed ## go on with a run on Slurm whose process was killed: make recover RESULTS=results/grch38
	@$(BIN)/python workflow/scripts/recover.py "$(RESULTS)"

test: lint test-unit test-e2e ## linters, unit tests, end-to-end runs

test-unit: .venv/installed-dev ## the unit tests, a process per core
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not e2e" -q --numprocesses auto --dist loadfile

test-e2e: .venv/installed-dev ## the runs of the workflow itself
	$(BIN)/pytest -m "e2e and not slurm" -q

test-slurm: .venv/installed-dev ## the workflow on a real two-node Slurm that is brought up for it; root, Debian (SLURM_TEST=demo: the demo)
	tests/install_slurm.sh
	$(BIN)/pytest -m slurm -q

test-faults: .venv/installed-dev ## a run killed 25 times, full and read-only disks, ten million rows (hours)
	LONGSCALE_KILLS=25 LONGSCALE_ROWS=10000000 $(BIN)/pytest tests/test_faults.py -q

lint: .venv/installed-dev ## ruff, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check --compact-diff Snakefile rules
	$(BIN)/snakemake --lint
	$(BIN)/snakemake --lint --configfile config/grch38.yaml

format: .venv/installed-dev ## put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

dag: .venv/installed ## draw docs/dag.svg (needs graphviz)
	$(BIN)/snakemake --rulegraph dot --configfile config/config.yaml | sed -n '/digraph/,$$p' | dot -Tsvg > docs/dag.svg

clean: ## remove results (the virtual environment stays)
	rm -rf results .snakemake
