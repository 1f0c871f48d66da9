# `make demo` and `make test` do all the set-up themselves.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
export VENV ?= .venv
PY := $(VENV)/bin/python

.PHONY: help env demo demo-seg demo-cls test test-slow test-compiled matrix lint format clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo      generate data, train, test and draw a small detector on the CPU'
	@echo 'make demo-seg  the same for semantic segmentation'
	@echo 'make demo-cls  the same for classification'
	@echo 'make test      run the tests'
	@echo 'make test-slow run the tests that take hours: every config as one graph'
	@echo 'make test-compiled   compare the operators with a compiled mmcv (compiles it)'
	@echo 'make matrix    run the tests with other versions of Python and PyTorch'
	@echo 'make lint      ruff, mypy, import-linter and codespell'
	@echo 'make format    format the code'
	@echo 'make env       only create the virtual environment $(VENV)'
	@echo 'make clean     remove the results of the demos'

env:
	@tools/setup_env.sh

# The rules of a demo: $(1) is its target, $(2) the config without its extension, $(3) the
# folder of its data and $(4) their layout. `--resume` continues an interrupted training
# from its last checkpoint.
define demo_rules
$(1): work_dirs/$(notdir $(2))/tested
	@echo
	@echo 'checkpoint  '"$$$$(cat work_dirs/$(notdir $(2))/last_checkpoint)"
	@echo 'log, config work_dirs/$(notdir $(2))/'
	@echo 'metrics     work_dirs/$(notdir $(2))/test.log'
	@echo 'predictions work_dirs/$(notdir $(2))/predictions/'
	@echo
	@echo 'Next: "Train and test" and "Your own data" in README.md'

$(3)/shapes.json: | env
	$(PY) tools/misc/make_shapes.py --layout $(4) --out $(3)

work_dirs/$(notdir $(2))/trained: $(3)/shapes.json | env
	$(PY) tools/train.py $(2).py --resume
	@touch $$@

work_dirs/$(notdir $(2))/tested: work_dirs/$(notdir $(2))/trained | env
	$(PY) tools/test.py $(2).py "$$$$(cat work_dirs/$(notdir $(2))/last_checkpoint)" \
	    --show-dir $(CURDIR)/work_dirs/$(notdir $(2))/predictions 2>&1 | tee work_dirs/$(notdir $(2))/test.log
	@touch $$@
endef

$(eval $(call demo_rules,demo,configs/det/piip_tiny_maskrcnn_shapes,data/shapes,coco))
$(eval $(call demo_rules,demo-seg,configs/seg/piip_tiny_upernet_shapes,data/shapes_seg,ade20k))
$(eval $(call demo_rules,demo-cls,configs/cls/piip_tiny_shapes,data/shapes_cls,imagenet))

# A process per core, of one thread each; more than four would take too much memory.
test: env
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: env
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow --numprocesses auto --maxprocesses 4

test-compiled:
	@VENV=.venv-compiled MMCV=compiled tools/setup_env.sh
	.venv-compiled/bin/python -m pytest tests/test_mmcv_ext.py tests/test_startup.py

matrix: env
	$(PY) tools/misc/test_matrix.py

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell

format: env
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf work_dirs/piip_tiny_maskrcnn_shapes work_dirs/piip_tiny_upernet_shapes \
	    work_dirs/piip_tiny_shapes work_dirs/piip_tiny_dino_shapes \
	    work_dirs/piip_tiny_cascade_shapes data/shapes data/shapes_seg data/shapes_cls \
	    data/.shapes*.partial
