# `make run`: the main job. `make test`: lint and tests. Both install into .venv first, once.
PYTHON ?= python3
PROFILE ?= $(or $(HW1_PROFILE),auto)
PORT ?= 6006
BIN := .venv/bin

.PHONY: run test lint format data tensorboard bench gpu torture clean help

help:
	@echo "make run [PROFILE=quick|full|smoke]   execute hw1.ipynb headless, write report and results"
	@echo "make test                             ruff and pytest"
	@echo "make data                             fetch, check and build data/cifar10"
	@echo "make tensorboard [PROFILE=...]        serve the logs at localhost:$(PORT)"
	@echo "make bench                            speed, side by side (half an hour on 2 cores, otherwise idle)"
	@echo "make gpu                              on a machine with a GPU: what holds on it, and how fast (5 minutes)"
	@echo "make torture                          kill a run 60 times, compare it with an undisturbed one (15 minutes)"
	@echo "make clean                            remove outputs/ (caches in data/ stay)"

run: .venv/installed
	HW1_PROFILE=$(PROFILE) $(BIN)/python -m hw1_utils run

# Test files side by side, one thread each: threads of several processes would only wait for one another.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

data: .venv/installed
	HW1_PROFILE=$(PROFILE) $(BIN)/python -m hw1_utils data

tensorboard: .venv/installed
	$(BIN)/tensorboard --port $(PORT) --logdir $(if $(filter quick smoke,$(PROFILE)),outputs/$(PROFILE)/runs,runs)

bench: .venv/installed
	for name in training probe decoding scaling memory startup; do $(BIN)/python -m benchmarks.$$name || exit 1; done

gpu: .venv/installed
	$(BIN)/python -m benchmarks.gpu

torture: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.torture --kills 60

clean:
	rm -rf outputs

# The stamp is made last: an interrupted installation is taken up again.
.venv/installed: requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("hw1 needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@
