# make help lists the targets. PYTHON=python3.12 chooses the interpreter (3.11 or newer).
# uv installs where it is found, several times faster; UV= uses pip nevertheless.

PYTHON ?= python3
SEEDS ?= 1
UV := $(shell command -v uv 2>/dev/null)
GPU := $(shell nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
COMMA := ,
EXTRAS := train$(if $(GPU),$(COMMA)vllm)
INFER_EXTRAS := infer,infer-$(if $(GPU),gpu,cpu)
# Tested versions. A GPU resolves to others and has files of its own, once `make constraints` has written them there.
TRAIN_CONSTRAINTS := constraints/train$(if $(GPU),-gpu).txt
INFER_CONSTRAINTS := constraints/infer-$(if $(GPU),gpu,cpu).txt
# transformers 4.57.6 next to the environment's 5.5.4, for the tests that run with both.
OVERLAY := .overlay-transformers-4

# $(call venv,FOLDER)   $(call install,FOLDER) REQUIREMENT ...   $(call constrained,FILE): the file, where there is one
venv = $(if $(UV),"$(UV)" venv --quiet --seed --allow-existing --python $(PYTHON) $(1),$(PYTHON) -m venv $(1))
pip = $(1)/bin/python -m pip install --disable-pip-version-check --quiet
install = $(if $(UV),"$(UV)" pip install --quiet --python $(1)/bin/python,$(call pip,$(1)))
constrained = $(if $(wildcard $(1)),--constraint $(1))

.PHONY: help demo demo-abstract demo-questions check test docs reference constraints env dev-env infer-env clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: env  ## the environment, then the tiny profile through all stages; SEEDS=3 for standard errors
	@PATH="$(CURDIR)/.venv/bin:$$PATH" bash scripts/demo.sh $(SEEDS)

demo-abstract: .venv/.ready-abstract  ## traces of symbols and their controls (tiny_abstract); SEEDS=3 for standard errors
	@PATH="$(CURDIR)/.venv/bin:$$PATH" bash scripts/demo.sh $(SEEDS) tiny_abstract

demo-questions: env  ## few traces, many solutions: what a hint is worth (tiny_questions); SEEDS=3 for standard errors
	@PATH="$(CURDIR)/.venv/bin:$$PATH" bash scripts/demo.sh $(SEEDS) tiny_questions

check: .venv/.ready-dev  ## lint, format, spelling, types and the quick tests, on all cores: two minutes on 2
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/codespell
	.venv/bin/mypy
	PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest -q -n auto -m "not slow and not host and not infer"

test: .venv/.ready-dev $(OVERLAY)/.ready .venv-infer/.ready  ## both environments, then all tests, the real vLLM included: half an hour on 2 cores
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	PATH="$(CURDIR)/.venv/bin:$$PATH" VR_INFER_PYTHON="$(CURDIR)/.venv-infer/bin/python" .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

docs: .venv/.ready-dev  ## the documentation as a site in build/site; a dead link is an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet

reference: .venv/.ready-dev  ## docs/configuration.md and the JSON schema of pipeline.yaml, from the code
	.venv/bin/python docs/reference.py

constraints: .venv/.ready-dev .venv-infer/.ready  ## the versions of both environments, as tested, into constraints/
	.venv/bin/python scripts/write_constraints.py .venv/bin/python $(TRAIN_CONSTRAINTS)
	.venv/bin/python scripts/write_constraints.py .venv-infer/bin/python $(INFER_CONSTRAINTS)

env: .venv/.ready  ## .venv: training and pipeline (with vLLM where there is a GPU)

dev-env: .venv/.ready-dev  ## .venv with what the tests, the checks and the documentation need

infer-env: .venv-infer/.ready  ## .venv-infer: SkyThought and vLLM, on a CPU or the newest on a GPU

clean:  ## remove runs, the site, and the caches of the tools
	rm -rf runs build .pytest_cache .ruff_cache .mypy_cache

.venv/.ready: pyproject.toml $(wildcard $(TRAIN_CONSTRAINTS))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); this needs CPython 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(call venv,.venv)
	@echo "installing into .venv, about 6 GB ..."
	$(call install,.venv) $(call constrained,$(TRAIN_CONSTRAINTS)) --editable ".[$(EXTRAS)]"
	@touch $@

.venv/.ready-dev: .venv/.ready
	$(call install,.venv) $(call constrained,$(TRAIN_CONSTRAINTS)) --editable ".[$(EXTRAS),gym,abstract,dev]"
	@touch $@

.venv/.ready-abstract: .venv/.ready
	$(call install,.venv) $(call constrained,$(TRAIN_CONSTRAINTS)) --editable ".[$(EXTRAS),abstract]"
	@touch $@

$(OVERLAY)/.ready: .venv/.ready
	$(call pip,.venv) --upgrade --no-deps --target $(OVERLAY) "transformers==4.57.6" "huggingface-hub==0.36.2"
	@touch $@

# skythought 0.1.0 declares an old Python and an old vLLM; what it really needs is in the extra. On a CPU, torchvision comes
# as a CUDA build that does not match, and then transformers cannot be imported.
.venv-infer/.ready: pyproject.toml $(wildcard $(INFER_CONSTRAINTS))
	$(call venv,.venv-infer)
	@echo "installing into .venv-infer, about 4 GB ..."
	$(if $(GPU),,$(call install,.venv-infer) "torch==2.13.0")
	$(call install,.venv-infer) $(call constrained,$(INFER_CONSTRAINTS)) --editable ".[$(INFER_EXTRAS)]"
	$(call pip,.venv-infer) --ignore-requires-python --no-deps "skythought==0.1.0"
	$(if $(GPU),,.venv-infer/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec)
	@touch $@
