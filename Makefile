# `make help` lists the targets. Every target that needs the environment sets it up first, once.
#
# Variables, as in `make install ACCELERATOR=cpu` or `make train ARGS='data.fraction=0.2 seed=1'`:
#   PYTHON       the Python (3.11 or newer) of .venv
#   ACCELERATOR  which build of PyTorch goes into .venv, see below
#   ARGS         appended to the target's command
#   CHECKPOINT   what eval-* and predict use: a .pt file, a run's folder, `latest`, or `official`
#
# Which PyTorch: constraints.txt pins the version, ACCELERATOR selects the build. On Linux the package index serves the CUDA
# build, gigabytes of it, under the plain version. The CPU build, VERSION+cpu, is on PyTorch's own index. macOS has one build.
#   auto   gpu if nvidia-smi finds a GPU, or not on Linux; otherwise cpu
#   gpu    the package index's build: CUDA on Linux
#   cpu    VERSION+cpu; an error if it is not available, never CUDA
#   cu130, rocm7.1, …   VERSION+cu130: any other build on PyTorch's index
# A labelled build is searched first where pip looks (a mirror, PIP_FIND_LINKS), then on TORCH_INDEX. To change the build: rm -rf .venv.

ACCELERATOR ?= auto
TORCH_INDEX ?= https://download.pytorch.org/whl
CHECKPOINT ?= latest
ARGS ?=
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DATA := data/bluemarble
DEMO = $$(ls -td runs/demo-* | head -n 1)

.DEFAULT_GOAL := help
NAME ?= scales
JOBS ?= 2

.PHONY: help install demo test lint format shards train predict report study studies study-features study-galleries study-lists eval-yfcc4k eval-im2gps3k train-mp16 bench bench-quick bench-data bench-train bench-gpu parity wheel clean

help: ## list the targets
	@echo "make TARGET [PYTHON=python3.12] [ACCELERATOR=auto|cpu|gpu|cu130|…] [ARGS='key=value …']"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv with the tested versions of everything

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "geoclip needs Python 3.11 or newer; name one: make install PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@build="$(ACCELERATOR)"; \
	if [ "$$build" = auto ]; then \
		if [ "$$(uname -s)" != Linux ] || nvidia-smi -L >/dev/null 2>&1; then build=gpu; else build=cpu; fi; \
	fi; \
	if [ "$$build" = cpu ] && [ "$$(uname -s)" != Linux ]; then build=gpu; fi; \
	torch="torch==$$(sed -n 's/^torch==//p' constraints.txt)"; \
	if [ "$$build" = gpu ]; then echo "PyTorch: $$torch, the package index's build"; exit 0; fi; \
	echo "PyTorch: $$torch+$$build (ACCELERATOR=$(ACCELERATOR))"; \
	$(RUN) -m pip install -q -c constraints.txt "$$torch+$$build" 2>/dev/null || \
	$(RUN) -m pip install -q -c constraints.txt --extra-index-url "$(TORCH_INDEX)/$$build" "$$torch+$$build" || { \
		echo "geoclip: no $$torch+$$build where pip looks, nor on $(TORCH_INDEX)/$$build;"; \
		echo "  set PIP_FIND_LINKS=folder of the wheel, or TORCH_INDEX=mirror, or install the package index's build"; \
		echo "  (CUDA on Linux): make install ACCELERATOR=gpu"; exit 1; }
	@echo "Installing the versions of constraints.txt into $(VENV): a few minutes, once"
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## data, training, evaluation, prediction and a report: minutes on a laptop
	$(RUN) -m geoclip.shards source=bluemarble
	$(RUN) -m geoclip.train name=demo
	$(RUN) -m geoclip.evaluate checkpoint=$(DEMO) benchmark=test
	$(RUN) -m geoclip.evaluate checkpoint=$(DEMO) benchmark=test_unseen_cells
	@mkdir -p $(DATA)/examples # four test images, each with a JSON of its location
	@tar -xf $(DATA)/test/000000.tar -C $(DATA)/examples $$(tar -tf $(DATA)/test/000000.tar | sed -n 1,8p)
	$(RUN) -m geoclip.predict checkpoint=$(DEMO) image=$(DATA)/examples
	$(RUN) -m geoclip.report run=$(DEMO)
	@echo "Open $(DEMO)/report.html in a browser."

test: $(STAMP) ## check the installation: ten minutes on two cores
	$(RUN) -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

lint: $(STAMP) ## run ruff and mypy, change nothing
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(STAMP) ## apply ruff's fixes and format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

shards: $(STAMP) ## write the Blue Marble shards to data/bluemarble
	$(RUN) -m geoclip.shards source=bluemarble $(ARGS)

train: $(STAMP) ## train the embedded default, or resume it
	$(RUN) -m geoclip.train $(ARGS)

predict: $(STAMP) ## predict the locations of images: IMAGE=file or folder
	$(RUN) -m geoclip.predict checkpoint=$(CHECKPOINT) image=$(IMAGE) $(ARGS)

report: $(STAMP) ## write the report page of the latest run
	$(RUN) -m geoclip.report $(ARGS)

# Most studies train on frozen features, which are computed first; the others train on images.
study: $(if $(shell grep -ls bluemarble_features conf/experiment/$(NAME).yaml),features/bluemarble,$(STAMP)) ## train missing runs of study NAME, evaluate, write experiments/*_NAME; JOBS at a time
	$(if $(filter gallery_size,$(NAME)),$(MAKE) study-galleries)
	$(RUN) -m geoclip.train +experiment=$(NAME) hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS) $(ARGS)
	$(RUN) -m geoclip.study name=$(NAME) jobs=$(JOBS)

studies: ## run every study of experiments/, one after the other: hours
	@for folder in experiments/[0-9]*_*/; do \
		name=$$(basename $$folder | cut -d_ -f2-); \
		test ! -f conf/experiment/$$name.yaml || $(MAKE) study NAME=$$name || exit 1; \
	done

study-features: features/bluemarble ## compute the frozen features of most studies

features/bluemarble: | $(STAMP)
	$(RUN) -m geoclip.shards source=bluemarble
	$(RUN) -m geoclip.train +experiment=backbone
	@mkdir -p features && ln -sfn ../$$(ls -d runs/backbone-*) features/backbone
	$(RUN) -m geoclip.features encoder=resnet_tiny_frozen encoder.repo=features/backbone \
		'splits=[train,val,test,test_unseen_cells]'
	@ln -sfn $$(basename $$(ls -d features/bluemarble-resnet_tiny_frozen-*)) features/bluemarble

study-galleries: $(STAMP) ## build the galleries of study gallery_size: galleries/1k.csv to 90k.csv
	$(RUN) -m geoclip.gallery source=csv path=$(DATA)/gallery.csv size=1000 output=galleries/1k.csv
	$(RUN) -m geoclip.gallery source=csv path=$(DATA)/gallery.csv size=3000 output=galleries/3k.csv
	$(RUN) -m geoclip.gallery source=csv path=$(DATA)/gallery.csv size=10000 output=galleries/10k.csv
	$(RUN) -m geoclip.gallery source=csv path=$(DATA)/gallery.csv output=galleries/24k.csv
	$(RUN) -m geoclip.gallery source=released_100k 'exclude=[test,test_unseen_cells]' output=galleries/90k.csv

study-lists: $(STAMP) ## write the list of studies in experiments/README.md and the table of README.md
	$(RUN) -m geoclip.study

eval-yfcc4k: $(STAMP) ## evaluate CHECKPOINT on YFCC4k; YFCC4K_DIR names the folder of the photographs
	$(RUN) -m geoclip.evaluate checkpoint=$(CHECKPOINT) benchmark=yfcc4k $(ARGS)

eval-im2gps3k: $(STAMP) ## evaluate CHECKPOINT on Im2GPS3k; IM2GPS3K_DIR names the folder of the photographs
	$(RUN) -m geoclip.evaluate checkpoint=$(CHECKPOINT) benchmark=im2gps3k $(ARGS)

train-mp16: $(STAMP) ## train the paper's set-up; MP16_SHARDS names the folder of the shards
	@$(RUN) -m geoclip.train +experiment=full_mp16 $(ARGS) check_only=true >/dev/null # reports a mistake once, not once per rank
	$(RUN) -m torch.distributed.run --standalone \
		--nproc-per-node=$$($(RUN) -c 'import torch; print(max(1, torch.cuda.device_count()))') \
		-m geoclip.train +experiment=full_mp16 $(ARGS)

include data.mk # data-yfcc4k data-im2gps3k data-mp16 data-urls

bench: $(STAMP) ## compare the speed of the released code and ours: bench/README.md
	$(RUN) -m bench.speed $(ARGS)

bench-quick: $(STAMP) ## the same on less work; fails if a ratio has fallen by more than its noise
	$(RUN) -m bench.speed --quick $(ARGS)

bench-data: $(STAMP) ## measure the data stream, and features against images: bench/*.md
	$(RUN) -m geoclip.shards source=bluemarble
	$(RUN) -m bench.stream
	$(RUN) -m bench.reading
	$(RUN) -m bench.features

bench-train: $(STAMP) ## measure the time of checkpoints and metrics: bench/overhead.md
	$(RUN) -m bench.overhead

bench-gpu: $(STAMP) ## measure the GPU path against the card's limits, six minutes: bench/gpu.md
	$(RUN) -m bench.gpu $(ARGS)

parity: $(STAMP) ## compare the outputs with the released code: bench/parity.md
	$(RUN) -m bench.parity

wheel: $(STAMP) ## build the wheel into dist/
	$(RUN) -m build --wheel

clean: ## remove caches and built wheels; keep .venv, data and runs
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find geoclip tests -name __pycache__ -type d -prune -exec rm -rf {} +
