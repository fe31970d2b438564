# `make run`: the main job. `make test`: lint and tests. Both install into .venv first, once.
PYTHON ?= python3
PROFILE ?= $(or $(HW1_PROFILE),auto)
PORT ?= 6006
# VERSIONS: colab for the versions that Colab has, in a .venv of their own
VENV := .venv$(addprefix -,$(VERSIONS))
CONSTRAINTS := constraints$(addprefix -,$(VERSIONS)).txt
BIN := $(VENV)/bin

.PHONY: run test lint format data tensorboard notebook stamp bench gpu torture clean help

help:
	@echo "make run [PROFILE=quick|full|smoke]   execute hw1.ipynb headless, write report and results"
	@echo "make test [VERSIONS=colab]            ruff and pytest; with the versions that Colab has (Python 3.13)"
	@echo "make data                             fetch, check and build data/cifar10"
	@echo "make tensorboard [PROFILE=...]        serve the logs at localhost:$(PORT)"
	@echo "make notebook                         put the package as it is now into hw1.ipynb, for whoever uploads that alone"
	@echo "make stamp [REPO=https://github.com/OWNER/NAME]   let the Colab badges open this repository (default: its origin)"
	@echo "make bench                            speed, side by side (half an hour on 2 cores, otherwise idle)"
	@echo "make gpu                              on a machine with a GPU: what holds on it, and how fast (5 minutes)"
	@echo "make torture                          kill a run 60 times, compare it with an undisturbed one (4 minutes)"
	@echo "make clean                            remove outputs/ (caches in data/ stay)"

run: $(VENV)/installed
	HW1_PROFILE=$(PROFILE) $(BIN)/python -m hw1_utils run

# Test files side by side, one thread each: threads of several processes would only wait for one another.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

data: $(VENV)/installed
	HW1_PROFILE=$(PROFILE) $(BIN)/python -m hw1_utils data

tensorboard: $(VENV)/installed
	$(BIN)/tensorboard --port $(PORT) --logdir $(if $(filter quick smoke,$(PROFILE)),outputs/$(PROFILE)/runs,runs)

notebook: $(VENV)/installed
	$(BIN)/python -m tools.carry

stamp: $(VENV)/installed
	$(BIN)/python -m tools.stamp $(REPO)

bench: $(VENV)/installed
	for name in training probe decoding scaling memory startup; do $(BIN)/python -m benchmarks.$$name || exit 1; done

gpu: $(VENV)/installed
	$(BIN)/python -m benchmarks.gpu

torture: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.torture --kills 60

clean:
	rm -rf outputs

# The stamp is made last: an interrupted installation is taken up again.
$(VENV)/installed: requirements.txt requirements-dev.txt $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit("hw1 needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt -c $(CONSTRAINTS)
	touch $@
