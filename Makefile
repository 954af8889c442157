# Everything runs in .venv, which each target makes for itself when it is missing or out of date.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo pictures docs tiny tiny-generator bench gpu test test-cluster lint format clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(READY) ## make .venv with the program and every extra

# torch and torchvision are resolved together, so that they come from one index and fit each other.
# A Python without ensurepip still makes a venv; its own pip then installs into it.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV) || $(PYTHON) -m venv --without-pip $(VENV)
	@echo "installing torch and torchvision: several GB, a few minutes on a slow line" >&2
	if $(BIN)/python -m pip --version >/dev/null 2>&1; \
	  then $(BIN)/python -m pip install --quiet --editable '.[dev]'; \
	  else $(PYTHON) -m pip --python $(BIN)/python install --quiet --editable '.[dev]'; fi
	touch $@

demo: $(READY) ## run the main job on pictures it makes itself, with a tokenizer that comes along
	$(BIN)/entropy-cli demo

test: $(READY) ## the whole suite, on all cores
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-cluster: $(READY) ## the tests on a real Slurm, installed for it when root on Debian
	if ! PATH="$$PATH:/usr/sbin" command -v slurmctld >/dev/null \
	  && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	  then apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null; fi
	$(BIN)/python -m pytest tests/cluster

pictures: $(READY) ## the pictures of README and guide
	rm -rf build/demo
	mkdir -p build .pictures
	$(BIN)/entropy-cli demo --output build/demo >/dev/null
	$(BIN)/entropy-cli report build/demo/result.json -o .pictures/report.png
	$(BIN)/entropy-cli show build/demo/images/shapes/shapes_00000.jpg -o .pictures/show.png \
	  --ckpt entropy_cli/assets/model.safetensors --result build/demo/result.json

docs: $(READY) ## the outputs in README and guide, from today's program
	$(BIN)/python -m pytest tests/test_docs.py --update-docs

tiny: $(READY) ## train the demo's tokenizer again: two minutes on two cores
	rm -rf build/tiny
	$(BIN)/entropy-cli train --data synthetic --preset tiny --seed 0 --save-fp16 --output build/tiny
	mkdir -p entropy_cli/assets
	cp build/tiny/model.safetensors build/tiny/config.json entropy_cli/assets/

tiny-generator: $(READY) ## train the demo's generator again: two minutes on two cores
	rm -rf build/tiny-generator
	mkdir -p build/tiny-generator
	$(BIN)/python -m entropy_cli.commands.demo.generator build/tiny-generator
	cp build/tiny-generator/generator.safetensors entropy_cli/assets/

bench: $(READY) ## speed on this machine, beside a plain loop
	$(BIN)/entropy-cli bench --baseline

gpu: $(READY) ## what needs a GPU: its tests, speeds, a profile; DEVICE=cpu tries it
	DEVICE=$(DEVICE) $(BIN)/python -m tests.measure_gpu

lint: $(READY) ## ruff, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and caches
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
