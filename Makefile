# `make` does the whole job, `make test` all checks; both set everything up first. `make help` lists the rest.
PYTHON ?= python3
PY := .venv/bin/python
export OMP_NUM_THREADS := 1
# What the command line gives, since some systems set NAME and USER themselves; expanded by the shell, as a word.
given = $(if $(filter command%,$(origin $(1))),$$$(1))
# If there is no MNIST, every process that follows is told so: none waits for a download again.
known = $(if $(filter sample,$(shell cat report/build/dataset 2>/dev/null)),MNISTAE_DATA=sample)
only_mnist = @grep -qx MNIST report/build/dataset || { echo "Without MNIST no committed file is replaced: put MNIST into data/, or name its folder in MNISTAE_DATA." >&2; exit 1; }

.PHONY: all help test test-oldest lab live retrain refresh report submission bench lock clean FORCE

all: report  ## environment, data, notebooks run top to bottom from the checkpoints, PDF and pages

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

.venv/done: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14) and "Python 3.11 to 3.14 is needed: make PYTHON=python3.14")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# The name of the data that are there, touched only when it changes: a report never outlives its data.
report/build/dataset: .venv/done FORCE
	@mkdir -p $(@D)
	@new=$$(mktemp $@.XXXXXX) && $(PY) -c 'from mnistae import data; print(data.load().name)' > $$new \
		&& { cmp -s $$new $@ && rm $$new || mv $$new $@; } || { rm -f $$new; exit 1; }

report/build/notebooks/done: .venv/done report/build/dataset notebooks/*.ipynb mnistae/*.py checkpoints report/run.py
	$(known) $(PY) -m mnistae.study  # what is missing is trained before several notebooks ask for it at once
	@mkdir -p $(@D)
	start=$$(mktemp $(@D)/start.XXXXXX) && $(known) $(PY) report/run.py \
		&& touch -r $$start $@ && rm $$start || { rm -f $$start; exit 1; }  # what changes meanwhile is newer

report: report/build/notebooks/done  ## the PDF and the HTML pages; CODE=1 shows the code
	$(known) $(PY) report/build.py pdf $(if $(CODE),--code)
	$(known) $(PY) report/build.py html

test: report/build/dataset  ## linter, types, unit tests, notebooks under nbval, browser test where Chromium is installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy mnistae
	$(known) $(PY) -m pytest -n 2 --dist loadfile --nbval notebooks tests

# Python 3.11, because some of the lowest versions have no wheels for a later one.
.venv-oldest/done: pyproject.toml
	python3.11 -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv
	.venv-oldest/bin/python -m uv pip install --quiet --python .venv-oldest --resolution lowest-direct -e .
	.venv-oldest/bin/python -m uv pip install --quiet --python .venv-oldest nbclient nbval pytest pytest-xdist
	touch $@

test-oldest: .venv-oldest/done  ## notebooks under nbval and sliders with the lowest versions that pyproject.toml allows
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile --nbval notebooks tests/test_sliders.py

# Threads that sleep while they wait: 1.4 times slower alone, 2.6 times as fast beside one other busy core.
lab: report/build/dataset  ## JupyterLab on the notebooks; one of them at a time may have all cores
	env -u OMP_NUM_THREADS OMP_WAIT_POLICY=PASSIVE $(known) $(PY) -m jupyterlab --ip=127.0.0.1 notebooks

report/html/live.html: report/build/notebooks/done report/*.py report/*.html report/live.js report/notebook.lua
	$(known) $(PY) report/build.py html

live: report/html/live.html  ## the live page in the browser: draw a digit, move its code
	$(PY) -c 'import pathlib, webbrowser; page = pathlib.Path("$<").resolve().as_uri(); webbrowser.open(page); print(page)'

submission: report/build/notebooks/done  ## report/ex2_ID.zip: make submission NAME="Ada Lovelace" ID=123456789 USER=ada
	$(known) $(PY) report/build.py submission --name "$(call given,NAME)" --id "$(call given,ID)" --user "$(call given,USER)"

trials: report/build/dataset  ## maintainers: each notebook twice in one kernel, chapter 1 without one network (about half an hour)
	$(PY) tests/trials.py

bench: .venv/done  ## the table of the README's speed section
	env -u OMP_NUM_THREADS $(PY) benchmarks/bench.py

retrain: report/build/dataset  ## train every network from nothing, then refresh; after an interruption it goes on
	$(only_mnist)
	@test -e report/build/retraining || { [ -e .git ] && ours=$$(git ls-files checkpoints) && exec rm -f $$ours; echo \
		"Nothing was deleted: git does not say here which files in checkpoints/ are the user's own. Delete by hand those that are to be made again, then run \`make\` and \`make refresh\`." >&2; exit 1; }
	mkdir -p report/build && touch report/build/retraining
	$(PY) -m mnistae.study
	rm report/build/retraining
	$(MAKE) refresh

refresh: report/build/dataset  ## maintainers: the committed notebooks, results, README table and PDF, in one go
	$(only_mnist)
	$(PY) report/run.py --in-place
	$(PY) report/build.py refresh

lock:  ## maintainers: requirements.lock from pyproject.toml (first: .venv/bin/python -m pip install uv)
	$(PY) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras -q -o requirements.lock

clean:  ## remove what was built, not the environment and not the data
	rm -rf report/build report/html report/ex2_*.zip
