# make demo | claim | weizmann | ut_interaction | test | next | lint | docs | notebooks | parity | ahead | beam | s3.  Needs Python 3.11 to 3.14; a virtual environment is made in .venv unless one is there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PARITY ?= .venv-parity
AHEAD ?= .venv-ahead
BEAM ?= .venv-beam
S3 ?= .venv-s3
DEMO ?= runs/demo
SEED ?= 0
VIDIDI_DATA ?= ../shared/data
MAIN := $(BIN)/python main.py

# The exact packages that were tested with this Python, if it has a file; CONSTRAINTS= takes the newest that requirements.txt allows.
CONSTRAINTS = $(wildcard constraints/$(shell $(BIN)/python -c 'import sys; print("python%d.%d" % sys.version_info[:2])').txt)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS:%=-c %)

.PHONY: demo claim weizmann ut_interaction test next lint docs notebooks parity ahead beam s3
.DEFAULT_GOAL := demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 15) or sys.exit("error: this is Python %d.%d: give one from 3.11 to 3.14, as PYTHON=python3.12." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: requirements.txt setup.py $(wildcard constraints/*) | $(BIN)/python
	$(INSTALL) -r requirements.txt
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(INSTALL) -e '.[dev]'
	touch $@

# 32 epochs of the config's 40, so that it ends within eight minutes on slow machines, too.
demo: $(VENV)/installed
	$(BIN)/python -m data_prep motion --out='$(DEMO)/data'
	$(BIN)/python -m data_prep motion --triples --out='$(DEMO)/triples'
	$(MAIN) --config=configs/motion_vicreg.py --workdir='$(DEMO)/seed$(SEED)' --config.data.dir='$(DEMO)/data' --config.seed=$(SEED) --config.epochs=32 --config.health.every_cycles=4 --noreport
	$(MAIN) --config=configs/retrieval.py:motion --workdir='$(DEMO)/seed$(SEED)' --config.eval.name=untrained --config.eval.untrained=True --noreport
	$(MAIN) --config=configs/retrieval.py:motion --workdir='$(DEMO)/seed$(SEED)' --noreport
	$(MAIN) --config=configs/tug.py:motion --workdir='$(DEMO)/seed$(SEED)' --config.data.dir='$(DEMO)/triples' --config.eval.name=tug_untrained --config.eval.untrained=True --noreport
	$(MAIN) --config=configs/tug.py:motion --workdir='$(DEMO)/seed$(SEED)' --config.data.dir='$(DEMO)/triples' --noreport
	@$(MAIN) --config=configs/report.py --workdir='$(DEMO)/seed$(SEED)'

# Every framework with and without derivatives, three seeds, with tables and plots; with one seed a quick look: make claim [CLAIM='--seeds=1'].
claim: $(VENV)/installed
	VIDIDI_DATA="$(VIDIDI_DATA)" $(BIN)/python benchmarks/claim.py $(CLAIM)

# Small real data sets, for `base` and `vididi` with the same budget: make weizmann VIDEOS=FOLDER [SEED=1].
weizmann: VIDEOS ?= $(VIDIDI_DATA)/weizmann
weizmann: GROUP := ^([a-z]+)_
weizmann: STRIDE := 2
ut_interaction: VIDEOS ?= $(VIDIDI_DATA)/ut_interaction/set1
ut_interaction: GROUP := ^[0-9]+_([0-9]+)_
ut_interaction: STRIDE := 7

weizmann ut_interaction: $(VENV)/installed
	$(BIN)/python -m data_prep folder --videos='$(VIDEOS)' --group='$(GROUP)' --short_side=64 --out=runs/$@/data
	for schedule in base vididi; do \
	  workdir=runs/$@/$${schedule}$(SEED); \
	  $(MAIN) --config=configs/$@_vicreg.py --workdir=$$workdir --config.data.dir=runs/$@/data \
	    --config.schedule=$$schedule --config.seed=$(SEED) && \
	  $(MAIN) --config=configs/eval_all.py:grouped --workdir=$$workdir --config.data.workers=0 \
	    --config.eval.frames=8 --config.eval.stride=$(STRIDE) || exit 1; \
	done

test: $(VENV)/installed-test
	VIDIDI_DATA="$(VIDIDI_DATA)" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The same in another Python, in an environment of its own: make next PYTHON=python3.13.
next:
	@test ! -x .venv-next/bin/python || test "$$(.venv-next/bin/python -V)" = "$$($(PYTHON) -V)" || \
	  { echo "error: .venv-next is of $$(.venv-next/bin/python -V), not of $$($(PYTHON) -V): rm -r .venv-next first." >&2; exit 1; }
	$(MAKE) test VENV=.venv-next

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/lint-imports

# The pages of docs/ as a site, in build/docs, where a warning is an error; and most of the
# `python` and `vididi` commands on them, carried out in small.
$(VENV)/installed-docs: setup.py | $(VENV)/installed
	$(INSTALL) -e '.[docs]'
	touch $@

docs: $(VENV)/installed-test $(VENV)/installed-docs
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	RUN_PAGES=1 $(BIN)/python -m pytest -m pages tests/test_pages.py --durations=0
	@echo "build/docs/index.html"

# By hand, whenever vididi_jax/models changes: torch alone takes several gigabytes.
$(PARITY)/installed: requirements.txt
	test -x $(PARITY)/bin/python || $(PYTHON) -m venv $(PARITY) || { rm -rf $(PARITY); exit 1; }
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 -r requirements.txt
	touch $@

parity: $(PARITY)/installed
	JAX_PLATFORMS=cpu $(PARITY)/bin/python -m tests.parity

# Each notebook from its script, run, with its outputs: in the environment that has PyTorch.
$(PARITY)/installed-notebooks: $(PARITY)/installed setup.py
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[notebooks]'
	touch $@

notebooks: $(PARITY)/installed-notebooks
	rm -rf build/notebooks && mkdir -p build/notebooks
	for script in notebooks/*.py; do start=$$(date +%s); \
	  PATH="$(CURDIR)/$(PARITY)/bin:$$PATH" JAX_PLATFORMS=cpu TQDM_DISABLE=1 $(PARITY)/bin/jupytext --quiet --to ipynb --execute \
	    --run-path build/notebooks $$script || exit 1; \
	  echo "$$script: $$(($$(date +%s) - start)) s"; done

# What the compilers for TPUs and GPUs say of a step, without a device: by hand, an hour or two.
$(AHEAD)/installed: requirements.txt constraints/python3.11.txt
	test -x $(AHEAD)/bin/python || $(PYTHON) -m venv $(AHEAD) || { rm -rf $(AHEAD); exit 1; }
	jax=$$(sed -n 's/^jax==//p' constraints/python3.11.txt); $(AHEAD)/bin/python -m pip install --quiet --disable-pip-version-check \
	  "jax[tpu]==$$jax" "jax-cuda12-plugin==$$jax" "jax-cuda12-pjrt==$$jax" nvidia-cuda-nvcc-cu12 nvidia-cuda-nvrtc-cu12 \
	  nvidia-cuda-runtime-cu12 nvidia-cuda-cupti-cu12 nvidia-nvjitlink-cu12 -r requirements.txt
	touch $@

ahead: $(AHEAD)/installed
	$(AHEAD)/bin/python benchmarks/ahead_all.py

# data_prep by Apache Beam, which wants older releases of some packages than constraints/ has.
$(BEAM)/installed: requirements.txt setup.py
	test -x $(BEAM)/bin/python || $(PYTHON) -m venv $(BEAM) || { rm -rf $(BEAM); exit 1; }
	$(BEAM)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test,beam]'
	touch $@

beam: $(BEAM)/installed
	$(BEAM)/bin/python -m pytest tests/data_prep/test_beam.py

# Data sets and runs in S3, from a server in the test.
$(S3)/installed: requirements.txt setup.py
	test -x $(S3)/bin/python || $(PYTHON) -m venv $(S3) || { rm -rf $(S3); exit 1; }
	$(S3)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test,s3]' 'aiobotocore[boto3]' 'moto[server]>=5.1,<6'
	touch $@

s3: $(S3)/installed
	$(S3)/bin/python -m pytest -m s3 tests/data/test_storage.py tests/train/test_mirror.py
