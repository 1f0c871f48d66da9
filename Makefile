# `make demo` and `make test` do all the set-up themselves.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
export VENV ?= .venv
PY := $(VENV)/bin/python

CONFIG := configs/det/piip_tiny_maskrcnn_shapes.py
WORK := work_dirs/piip_tiny_maskrcnn_shapes
SHAPES := data/shapes/shapes.json

.PHONY: help env demo test lint format clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    data, training, test and pictures of a small PIIP on the CPU'
	@echo 'make test    run the tests'
	@echo 'make lint    ruff, mypy and codespell'
	@echo 'make format  format the code'
	@echo 'make env     only create the virtual environment $(VENV)'
	@echo 'make clean   remove the results of make demo'

env:
	@tools/setup_env.sh

demo: $(WORK)/tested
	@echo
	@echo 'checkpoint  '"$$(cat $(WORK)/last_checkpoint)"
	@echo 'log, config $(WORK)/'
	@echo 'metrics     $(WORK)/test.log'
	@echo 'pictures    $(WORK)/pictures/  (left: ground truth, right: prediction)'
	@echo
	@echo 'Next: your own data in COCO format, see "Your own data" in README.md, or'
	@echo '      twice the training:'
	@echo '      $(PY) tools/train.py $(CONFIG) --work-dir work_dirs/longer \'
	@echo '          --cfg-options train_cfg.max_epochs=8 param_scheduler.1.end=8 param_scheduler.1.T_max=8'

$(SHAPES): | env
	$(PY) -m piip_mm.datasets.shapes --out data/shapes

# `--resume` continues an interrupted training from its last checkpoint.
$(WORK)/trained: $(SHAPES) | env
	$(PY) tools/train.py $(CONFIG) --resume
	@touch $@

$(WORK)/tested: $(WORK)/trained | env
	$(PY) tools/test.py $(CONFIG) "$$(cat $(WORK)/last_checkpoint)" --show-dir $(CURDIR)/$(WORK)/pictures 2>&1 | tee $(WORK)/test.log
	@touch $@

test: env
	$(PY) -m pytest

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell

format: env
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(WORK) data/shapes
