# make demo   train on digits, sample, measure: five to eight minutes on two cores
# make install   what all of them need, into .venv
# make test   the fast tests: ten minutes
# make test-slow   the others: ten
# make test-newest PYTHON=python3.13   the fast tests with that Python and the newest packages, anew each time
# make lint   style and formatting
# make CUDA=13 demo   on an NVIDIA GPU, see docs/gpu.md
# make clean  remove the environments and what `make demo` made

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
NEWEST := .venv-newest
RUN_NEWEST := $(NEWEST)/bin/python
CONFIG ?= configs/vp/mnist_ddpmpp.py
WORKDIR ?= runs/demo
CLASSIFIER ?= runs/classifier
# By whose features samples are compared with data; empty: they are not.
CLASSIFIER_CONFIG ?= configs/ve/mnist_classifier.py
INSTALLED := $(VENV)/installed$(CUDA:%=-cuda%)
NEW_ENOUGH := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
FAST_TESTS := -m pytest -n auto --dist worksteal -m 'not slow'

.PHONY: demo install test test-slow test-newest lint clean

demo: $(INSTALLED)
ifneq ($(CLASSIFIER_CONFIG),)
	@$(RUN) -m configs.agree $(CONFIG) $(CLASSIFIER_CONFIG)
endif
	@echo "Training a score model ($(CONFIG)) ..."
	@$(RUN) main.py --mode=train --config=$(CONFIG) --workdir=$(WORKDIR)
ifneq ($(CLASSIFIER_CONFIG),)
	@echo "Training a classifier ($(CLASSIFIER)), by whose features samples are compared with data ..."
	@$(RUN) main.py --mode=train --config=$(CLASSIFIER_CONFIG) --workdir=$(CLASSIFIER)
endif
	@echo "Drawing samples, and computing the likelihood of images the model has not seen ..."
	@$(RUN) main.py --mode=eval --config=$(CONFIG) --workdir=$(WORKDIR) \
		$(if $(CLASSIFIER_CONFIG),--config.eval.quality="('classifier',)" --config.eval.classifier_workdir=$(CLASSIFIER))

install: $(INSTALLED)

test: $(INSTALLED)
	$(RUN) $(FAST_TESTS)

test-slow: $(INSTALLED)
	$(RUN) -m pytest -n auto --dist worksteal -m slow

test-newest:
	@$(NEW_ENOUGH)
	@echo "Installing the newest packages into $(NEWEST) (some minutes) ..."
	@$(PYTHON) -m venv --clear $(NEWEST)
	@$(RUN_NEWEST) -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@$(RUN_NEWEST) -c 'import sys, jax, flax; print("Python", sys.version.split()[0], "JAX", jax.__version__, "Flax", flax.__version__)'
	$(RUN_NEWEST) $(FAST_TESTS)

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf $(VENV) $(NEWEST) $(WORKDIR) $(CLASSIFIER) .pytest_cache .ruff_cache

$(VENV)/installed: requirements.lock
	@$(NEW_ENOUGH)
	@echo "Installing into $(VENV) (once; some minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@

$(VENV)/installed-cuda13: $(VENV)/installed requirements-cuda.txt
	@echo "Installing CUDA 13 into $(VENV) (once; 3 GB) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements-cuda.txt
	@touch $@

$(VENV)/installed-cuda%:
	@echo "CUDA=$*: there is CUDA=13 alone, see requirements-cuda.txt"; exit 1
