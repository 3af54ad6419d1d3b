# make demo | test | lint.  Needs Python 3.11 or later; a virtual environment is made in .venv unless one is there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
SEED ?= 0
VIDIDI_DATA ?= ../shared/data
MAIN := $(BIN)/python main.py

.PHONY: demo test lint
.DEFAULT_GOAL := demo

$(VENV)/installed: requirements.txt setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python -m data_prep motion --out=$(DEMO)/data
	$(MAIN) --config=configs/motion_vicreg.py --workdir=$(DEMO)/seed$(SEED) --config.data.dir=$(DEMO)/data --config.seed=$(SEED)
	$(MAIN) --config=configs/retrieval.py:motion --workdir=$(DEMO)/seed$(SEED) --config.eval.name=untrained --config.eval.untrained=True
	$(MAIN) --config=configs/retrieval.py:motion --workdir=$(DEMO)/seed$(SEED)
	@$(MAIN) --config=configs/report.py --workdir=$(DEMO)/seed$(SEED)

test: $(VENV)/installed-test
	VIDIDI_DATA="$(VIDIDI_DATA)" $(BIN)/python -m pytest

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
