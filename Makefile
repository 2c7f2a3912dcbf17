# `make help` lists the targets. Every target that needs the environment sets it up first, once.
#
# Variables, as in `make install ACCELERATOR=cpu` or `make train ARGS='data.fraction=0.2 seed=1'`:
#   PYTHON       the Python (3.11 or newer) that .venv is made with
#   ACCELERATOR  which build of PyTorch goes into .venv, see below
#   ARGS         appended to the command that a target runs
#   CHECKPOINT   what eval-* and predict use: a .pt file, a run's folder, `latest`, or `official`
#
# Which PyTorch. constraints.txt pins its version; what is left to choose is the build. On Linux the package index
# serves the CUDA build, gigabytes of it, under the plain version; the CPU build calls itself VERSION+cpu and lies
# on PyTorch's own index. On macOS there is one build, and the package index has it.
#   auto   gpu where nvidia-smi finds a GPU and on anything but Linux, otherwise cpu
#   gpu    what the package index serves: CUDA on Linux
#   cpu    VERSION+cpu and nothing else: should it be nowhere, installation stops rather than fetch CUDA
#   cu130, rocm7.1, …   VERSION+cu130: any other build that PyTorch's index names
# A labelled build is first sought where your own pip looks (a mirror, PIP_FIND_LINKS), so that a machine without a
# way to PyTorch's index can have it too, and then on TORCH_INDEX. To change the build later: rm -rf .venv.

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

install: $(STAMP) ## make .venv with everything in it, at the tested versions

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
		echo "geoclip: no $$torch+$$build where your pip looks, nor on $(TORCH_INDEX)/$$build;"; \
		echo "  give pip a way to it (PIP_FIND_LINKS=folder of the wheel, or TORCH_INDEX=mirror), or take the"; \
		echo "  package index's build, with CUDA on Linux: make install ACCELERATOR=gpu"; exit 1; }
	@echo "Installing what constraints.txt pins into $(VENV): a few minutes, once"
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## data, training, evaluation, prediction and a report: minutes on a laptop
	$(RUN) -m geoclip.shards source=bluemarble
	$(RUN) -m geoclip.train name=demo
	$(RUN) -m geoclip.evaluate checkpoint=$(DEMO) benchmark=test
	$(RUN) -m geoclip.evaluate checkpoint=$(DEMO) benchmark=test_unseen_cells
	@mkdir -p $(DATA)/examples # four views of the test split, each a picture and a json that says where it is
	@tar -xf $(DATA)/test/000000.tar -C $(DATA)/examples $$(tar -tf $(DATA)/test/000000.tar | sed -n 1,8p)
	$(RUN) -m geoclip.predict checkpoint=$(DEMO) image=$(DATA)/examples
	$(RUN) -m geoclip.report run=$(DEMO)
	@echo "Open $(DEMO)/report.html in a browser."

test: $(STAMP) ## prove that the installation is sound: ten minutes on two cores
	$(RUN) -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

lint: $(STAMP) ## ruff and mypy, changing nothing
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(STAMP) ## let ruff put the code in form
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

shards: $(STAMP) ## write the Blue Marble shards to data/bluemarble
	$(RUN) -m geoclip.shards source=bluemarble $(ARGS)

train: $(STAMP) ## train the embedded default, or go on with it
	$(RUN) -m geoclip.train $(ARGS)

predict: $(STAMP) ## guess where pictures were taken: IMAGE=file or folder
	$(RUN) -m geoclip.predict checkpoint=$(CHECKPOINT) image=$(IMAGE) $(ARGS)

report: $(STAMP) ## write the report page of the latest run
	$(RUN) -m geoclip.report $(ARGS)

# Most studies train on frozen features, which are made first; the others on the views themselves.
study: $(if $(shell grep -ls bluemarble_features conf/experiment/$(NAME).yaml),features/bluemarble,$(STAMP)) ## train what is missing of study NAME, evaluate, tabulate: experiments/*_NAME; JOBS at a time
	$(if $(filter gallery_size,$(NAME)),$(MAKE) study-galleries)
	$(RUN) -m geoclip.train +experiment=$(NAME) hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS) $(ARGS)
	$(RUN) -m geoclip.study name=$(NAME) jobs=$(JOBS)

studies: ## every study of experiments/, one after the other: hours
	@for folder in experiments/[0-9]*_*/; do \
		name=$$(basename $$folder | cut -d_ -f2-); \
		test ! -f conf/experiment/$$name.yaml || $(MAKE) study NAME=$$name || exit 1; \
	done

study-features: features/bluemarble ## the frozen features that most studies train on

features/bluemarble: | $(STAMP)
	$(RUN) -m geoclip.shards source=bluemarble
	$(RUN) -m geoclip.train +experiment=backbone
	@mkdir -p features && ln -sfn ../$$(ls -d runs/backbone-*) features/backbone
	$(RUN) -m geoclip.features encoder=resnet_tiny_frozen encoder.repo=features/backbone \
		'splits=[train,val,test,test_unseen_cells]'
	@ln -sfn $$(basename $$(ls -d features/bluemarble-resnet_tiny_frozen-*)) features/bluemarble

study-galleries: $(STAMP) ## the galleries of study gallery_size: galleries/1k.csv to 90k.csv
	$(RUN) -m geoclip.gallery source=csv path=$(DATA)/gallery.csv size=1000 output=galleries/1k.csv
	$(RUN) -m geoclip.gallery source=csv path=$(DATA)/gallery.csv size=3000 output=galleries/3k.csv
	$(RUN) -m geoclip.gallery source=csv path=$(DATA)/gallery.csv size=10000 output=galleries/10k.csv
	$(RUN) -m geoclip.gallery source=csv path=$(DATA)/gallery.csv output=galleries/24k.csv
	$(RUN) -m geoclip.gallery source=released_100k 'exclude=[test,test_unseen_cells]' output=galleries/90k.csv

study-lists: $(STAMP) ## the list of studies in experiments/README.md and the tables of README.md
	$(RUN) -m geoclip.study

eval-yfcc4k: $(STAMP) ## evaluate CHECKPOINT on YFCC4k; YFCC4K_DIR names the folder of the photographs
	$(RUN) -m geoclip.evaluate checkpoint=$(CHECKPOINT) benchmark=yfcc4k $(ARGS)

eval-im2gps3k: $(STAMP) ## evaluate CHECKPOINT on Im2GPS3k; IM2GPS3K_DIR names the folder of the photographs
	$(RUN) -m geoclip.evaluate checkpoint=$(CHECKPOINT) benchmark=im2gps3k $(ARGS)

train-mp16: $(STAMP) ## train the paper's set-up; MP16_SHARDS names the folder of the shards
	@$(RUN) -m geoclip.train +experiment=full_mp16 $(ARGS) check_only=true >/dev/null # one sentence, not one per rank
	$(RUN) -m torch.distributed.run --standalone \
		--nproc-per-node=$$($(RUN) -c 'import torch; print(max(1, torch.cuda.device_count()))') \
		-m geoclip.train +experiment=full_mp16 $(ARGS)

include data.mk # data-yfcc4k data-im2gps3k data-mp16 data-urls

bench: $(STAMP) ## the released code beside ours, row by row, and the machine's limit: bench/README.md
	$(RUN) -m bench.speed $(ARGS)

bench-quick: $(STAMP) ## the same rows on small work: has a ratio fallen by more than its noise?
	$(RUN) -m bench.speed --quick $(ARGS)

bench-data: $(STAMP) ## measure the stream, what it reads, and features against pictures: bench/*.md
	$(RUN) -m geoclip.shards source=bluemarble
	$(RUN) -m bench.stream
	$(RUN) -m bench.reading
	$(RUN) -m bench.features

bench-train: $(STAMP) ## measure what checkpoints and records cost beside the steps: bench/overhead.md
	$(RUN) -m bench.overhead

bench-gpu: $(STAMP) ## the GPU path beside the card's own limits, six minutes: bench/gpu.md
	$(RUN) -m bench.gpu $(ARGS)

parity: $(STAMP) ## compare with the released code, number by number: bench/parity.md
	$(RUN) -m bench.parity

wheel: $(STAMP) ## build the wheel into dist/
	$(RUN) -m build --wheel

clean: ## remove caches and built wheels; .venv, data and runs stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find geoclip tests -name __pycache__ -type d -prune -exec rm -rf {} +
