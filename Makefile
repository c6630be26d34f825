# Two commands do everything, set-up included: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test test-all check lint clean

demo: $(STAMP)  ## train, evaluate and draw JNF on polydigits: some minutes on 2 cores
	$(RUN) -m experiments.train polydigits/jnf --workdir runs/demo --resume
	$(RUN) -m experiments.evaluate --workdir runs/demo
	$(RUN) -m experiments.figures --workdir runs/demo

test: $(STAMP)  ## the tests, without the slow ones
	$(RUN) -m pytest -n auto --dist loadfile

test-all: $(STAMP)  ## all tests
	$(RUN) -m pytest -n auto --dist loadfile -m "slow or not slow"

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

check: lint test

$(STAMP): requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), f'Expected Python 3.11 or newer, got {sys.version}'"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements.txt
	$(RUN) -m pip install --quiet --no-deps --editable .
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs
