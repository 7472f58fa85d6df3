# Needs Python 3.11 to 3.13 and PyPI; README.md names the system packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := outs/make-demo

.PHONY: demo test lint format clean

## Install, build a small sample, train on it, evaluate, and draw the network.
demo: $(VENV)/.installed
	rm -rf $(DEMO)
	$(BIN)/python build_dataset.py --sample --overwrite
	$(BIN)/python model_train.py -r demo --hdf5 digits/hdf5 -o $(DEMO)
	$(BIN)/python model_eval.py -m $(DEMO) --hdf5 digits/hdf5
	$(BIN)/python view_model.py -m $(DEMO) -o $(DEMO)/googlenet.png
	@echo
	@echo "The results are in $(DEMO): training_plot.jpg, googlenet.png, metric_values.json"
	@echo "and a checkpoint per epoch. README.md tells how to train on the real data set."

## Run every test; real images take part where TINY_IMAGENET names the unpacked data set.
test: $(VENV)/.installed-tests
	$(BIN)/python -m pytest --numprocesses 2

## Check style; `make format` mends what can be mended.
lint: $(VENV)/.installed-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.installed-tests
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(DEMO) digits .pytest_cache .ruff_cache

$(VENV)/.installed: requirements.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "Python 3.11 to 3.13"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt
	$(BIN)/python -m pip install --quiet --requirement tests/requirements.txt
	touch $@
