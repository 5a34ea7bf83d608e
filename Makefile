# make demo   train on digits, sample, measure: five to eight minutes on two cores
# make install   what all of them need, into .venv
# make test   the fast tests: six to nine minutes
# make test-slow   the others: six to nine
# make lint   style and formatting
# make clean  remove the environment and what `make demo` made

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CONFIG ?= configs/vp/mnist_ddpmpp.py
WORKDIR ?= runs/demo
CLASSIFIER ?= runs/classifier
# By whose features samples are compared with data; empty: they are not.
CLASSIFIER_CONFIG ?= configs/ve/mnist_classifier.py

.PHONY: demo install test test-slow lint clean

demo: $(VENV)/installed
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

install: $(VENV)/installed

test: $(VENV)/installed
	$(RUN) -m pytest -n auto --dist worksteal -m 'not slow'

test-slow: $(VENV)/installed
	$(RUN) -m pytest -n auto --dist worksteal -m slow

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf $(VENV) $(WORKDIR) $(CLASSIFIER) .pytest_cache .ruff_cache

$(VENV)/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "Installing into $(VENV) (once; some minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@
