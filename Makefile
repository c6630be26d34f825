# Two commands do everything, set-up included: `make demo` and `make test`. `make docs` builds the site, `make bench` measures us beside MultiVae.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
PEER ?= .venv-multivae
BASE := $(VENV)/.installed-base
STAMP := $(VENV)/.installed
INSTALL := $(RUN) -m pip install --quiet --no-compile  # modules are compiled when they are first imported, and most never are

# Container images often set PYTHONDONTWRITEBYTECODE. Then every process would compile anew what it imports, for some five seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: docs tables demo test test-all test-multivae check lint bench clean

demo: $(BASE)  ## train, evaluate and draw JNF on polydigits: 5 to 20 minutes on 2 cores
	$(RUN) -m experiments.train polydigits/jnf --workdir runs/demo
	$(RUN) -m experiments.evaluate --workdir runs/demo
	$(RUN) -m experiments.figures --workdir runs/demo

test: $(STAMP)  ## the tests, without the slow ones
	$(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-all: $(STAMP)  ## all tests
	$(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "slow or not slow"

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

docs: $(STAMP)  ## the site, into build/docs; runs the notebooks at their small sizes, and warnings are errors
	$(RUN) -m sphinx -E -W --keep-going -q -j 2 -b html docs build/docs  # -E: tables and notebooks depend on more than their pages

tables: $(STAMP)  ## the README's tables, drawn again from the committed results
	$(RUN) docs/extensions/committed.py

check: lint test docs

test-multivae: $(STAMP) $(PEER)/.installed  ## objectives against MultiVae's own
	$(RUN) -c "import glob, sys, pytest; sys.path += glob.glob('$(PEER)/lib/python*/site-packages'); \
		sys.exit(pytest.main(['tests/models/test_multivae.py', '-q', '-m', 'slow']))"

bench: $(STAMP)  ## speed beside MultiVae, half an hour on an otherwise idle machine; ours alone where MultiVae cannot be installed
	$(MAKE) $(PEER)/.installed || rm -rf $(PEER)
	$(RUN) -m experiments.benchmarks.run --peer $(PEER)/bin/python

$(PEER)/.installed: experiments/benchmarks/requirements.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/pip install --quiet -r experiments/benchmarks/requirements.txt
	touch $(PEER)/.installed

$(BASE): requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), f'Expected Python 3.11 or newer, got {sys.version}'"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --constraint requirements.txt --editable .
	touch $(BASE)

$(STAMP): $(BASE)
	$(INSTALL) --requirement requirements.txt
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(PEER)
