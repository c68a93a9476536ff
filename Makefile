# `make` does the whole job, `make test` all checks; both set everything up first.
PYTHON ?= python3
PY := .venv/bin/python
export OMP_NUM_THREADS := 1
# Of the command line alone, since some systems set NAME and USER themselves; expanded by the shell, as a word.
given = $(if $(filter command%,$(origin $(1))),$$$(1))

.PHONY: all test lab retrain refresh report submission app bench lock clean FORCE

all: report  ## environment, data, notebooks run top to bottom from the checkpoints, PDF

.venv/done: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11 to 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# The name of the data that are there, touched only when it changes: a report never outlives its data.
report/build/dataset: .venv/done FORCE
	@mkdir -p $(@D)
	@$(PY) -W ignore -c 'from mnistae import data; print(data.load().name)' > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

report/build/notebooks/done: .venv/done report/build/dataset notebooks/*.ipynb mnistae/*.py checkpoints report/run.py
	$(PY) -m mnistae.study  # what is missing is fetched and trained before several notebooks ask for it at once
	$(PY) report/run.py
	touch $@

report: report/build/notebooks/done  ## the PDF and the HTML pages; CODE=1 shows the code
	$(PY) report/build.py pdf $(if $(CODE),--code)
	$(PY) report/build.py html

test: .venv/done  ## unit tests, every notebook under nbval, the browser test where Chromium is installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -n 2 --dist loadfile --nbval notebooks tests

lab: .venv/done  ## JupyterLab on the notebooks; one of them at a time may have all cores
	env -u OMP_NUM_THREADS $(PY) -m jupyterlab --ip=127.0.0.1 notebooks

retrain: .venv/done  ## train every network from nothing, then refresh; after an interruption it goes on
	test -e report/build/retraining || rm -f checkpoints/*.safetensors checkpoints/transfer.json
	mkdir -p report/build && touch report/build/retraining
	$(PY) -m mnistae.study
	rm report/build/retraining
	$(MAKE) refresh

refresh: .venv/done  ## maintainers: the committed notebooks, results, README table and PDF, in one go
	$(PY) report/run.py --in-place
	$(PY) report/build.py refresh

submission: report/build/notebooks/done  ## report/ex2_ID.zip: make submission NAME="Ada Lovelace" ID=123456789 USER=ada
	$(PY) report/build.py submission --name "$(call given,NAME)" --id "$(call given,ID)" --user "$(call given,USER)"

app: .venv/done  ## the slider chapter as a page of its own, on this machine only
	$(PY) -m voila --Voila.ip=127.0.0.1 --Voila.auto_token=True notebooks/02_interpolation.ipynb

bench: .venv/done  ## the table of the README's speed section
	env -u OMP_NUM_THREADS $(PY) benchmarks/bench.py

lock:  ## maintainers: requirements.lock from pyproject.toml (with extras, or pip looks for newer ones than these)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras -q -o requirements.lock

clean:
	rm -rf report/build report/html report/ex2_*.zip
