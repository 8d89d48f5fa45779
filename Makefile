# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?= .data
OUT ?= out
CLOUD ?= aws
SETTINGS ?= deploy/settings.env
CLUSTER = .deploy/$(CLOUD)
# tests/conftest.py says which tests share a server, and so a process.
TOGETHER = --dist loadgroup --no-loadscope-reorder
BENCH_GPU = benchmarks.method --base sd14 --device cuda --dtype bf16 --frames 8 16 24 32 --size 256 512
QUALITY = $(BIN)/tav eval run --suite offline --out $(OUT)/quality --processes 2 --threads 1

.PHONY: help setup demo up down status deploy undeploy tunnel test test-fast lint format bench bench-gpu fuzz chaos quality constraints clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## Install everything into .venv

$(READY): pyproject.toml clients/python/pyproject.toml constraints.txt tools/system-packages.sh
	tools/system-packages.sh $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e clients/python -e '.[service,cluster,dev]'
	@# DeepSpeed compiles its CPU communication at first use, a minute that belongs to the set-up, not to a job.
	$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || $(BIN)/python -m services.tuning.tuner.prebuild
	touch $@

demo: $(READY) ## Tune a clip and sample three edits on this machine, through the public interfaces
	$(BIN)/python examples/demo.py --out $(OUT)/demo --data-dir $(DATA)

up: $(READY) ## Start the one-machine stack and keep it
	$(BIN)/tav platform up --data-dir $(DATA)

down: $(READY) ## Stop the stack; its data stay
	$(BIN)/tav platform down --data-dir $(DATA)

status: $(READY) ## What runs
	$(BIN)/tav platform status --data-dir $(DATA)

deploy: $(READY) ## A cluster on CLOUD=aws, gcp or kubernetes, made or changed, by deploy/settings.env
	$(BIN)/tav cluster render $(CLOUD) --settings $(SETTINGS)
ifeq ($(CLOUD),kubernetes)
	kubectl apply -f $(CLUSTER)/secrets.yaml -f $(CLUSTER)/manifests.yaml
else
	$(BIN)/ray up --yes --no-config-cache $(CLUSTER)/cluster.yaml
endif

undeploy: $(READY) ## Give all machines of that cluster back; bucket and database stay
ifeq ($(CLOUD),kubernetes)
	kubectl delete -f $(CLUSTER)/manifests.yaml -f $(CLUSTER)/secrets.yaml
else
	$(BIN)/ray down --yes $(CLUSTER)/cluster.yaml
endif

tunnel: $(READY) ## Bring its gateway, MLflow and dashboard to this machine's ports 8000, 5000 and 8265 until interrupted
	$(BIN)/ray attach --port-forward 8000 --port-forward 5000 --port-forward 8265 $(CLUSTER)/cluster.yaml

test: $(READY) ## All tests, on real parts
	tools/system-packages.sh $(PYTHON) browser servers prometheus
	$(BIN)/python -m pytest tests -n auto --maxprocesses 4 $(TOGETHER)

test-fast: $(READY) ## The tests that need no server and take a few seconds at most
	tools/system-packages.sh $(PYTHON) prometheus
	$(BIN)/python -m pytest tests -n auto --maxprocesses 4 $(TOGETHER) -m 'not slow and not server'

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd clients/python && ../../$(BIN)/mypy

format: $(READY) ## Let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Times of the method beside the published algorithm, into benchmarks/results/
	@# OpenMP as tuners and samplers have it, see services/runtime.py
	GOMP_SPINCOUNT=1000 $(BIN)/python -m benchmarks.method --threads 1 --steps 10 --repeats 8 --out benchmarks/results/method-cpu-1.json
	GOMP_SPINCOUNT=1000 $(BIN)/python -m benchmarks.method --threads 2 --steps 10 --repeats 8 --out benchmarks/results/method-cpu-2.json

bench-gpu: $(READY) ## The same on a GPU, with SD1.4's configuration and random weights, plain and compiled
	$(BIN)/python -m $(BENCH_GPU) --out benchmarks/results/method-gpu.json
	$(BIN)/python -m $(BENCH_GPU) --compile --out benchmarks/results/method-gpu-compiled.json
	$(BIN)/python -m $(BENCH_GPU) --compile --gradient-checkpointing --out benchmarks/results/method-gpu-checkpointing.json

fuzz: $(READY) ## 100,000 requests made from the gateway's description, checked against it; about an hour
	TAV_FUZZ_CASES=100000 $(BIN)/python -m pytest tests/api/test_fuzzed.py

chaos: $(READY) ## Jobs while everything fails, into benchmarks/results/; some ten minutes
	$(BIN)/python -m benchmarks.chaos

quality: $(READY) ## The quality figures, into benchmarks/results/; goes on where it stopped
	$(QUALITY) --methods tuned
	$(BIN)/python -m benchmarks.quality $(OUT)/quality
	$(QUALITY) --methods tuned,no_tuning,no_st_attention,no_inversion,img2img,plug_and_play --seeds 0
	$(BIN)/python -m benchmarks.quality $(OUT)/quality --out benchmarks/results/quality-methods

constraints: $(READY) ## Pin what is installed now
	@(sed -n '1p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+).*/\1/') > constraints.new
	mv constraints.new constraints.txt

clean: ## Forget the environment; data stay
	rm -rf $(VENV) build dist *.egg-info
