# Two commands: `make reproduce` and `make test`. Both build .venv first; a second call is instant.
PYTHON ?= python3
TIER ?= laptop
NOTEBOOK ?= all
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
STAMP := $(VENV)/.ready

.PHONY: reproduce test nightly pretrain lab bench setup wheels clean help

help:           ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

reproduce: $(STAMP) ## run the numbered notebooks and build the report (TIER=, NOTEBOOK= narrow it)
	$(BIN)/motionlab run $(NOTEBOOK) --tier $(TIER)
	$(BIN)/motionlab report

test: $(STAMP)      ## all tests, every notebook at tier smoke, the import contract, the committed verdicts
	$(BIN)/python -m pytest
	$(BIN)/lint-imports
	$(BIN)/motionlab verify

nightly: $(STAMP)   ## the searching tests at length, the fault and tamper campaigns (an hour)
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest tests/test_parsers.py --timeout 3600
	$(BIN)/python -m pytest -m slow --timeout 3600
	$(BIN)/python tests/faults.py --out docs/faults.md
	$(BIN)/python tests/tampering.py --out docs/tamper.md

pretrain: $(STAMP)  ## train every shipped checkpoint again (hours on a CPU; a second call goes on)
	$(BIN)/motionlab pretrain

lab: $(STAMP)       ## open JupyterLab on the notebooks (LAB= takes options of its own)
	$(BIN)/jupyter lab notebooks $(LAB)

bench: $(STAMP)     ## benchmarks: ratios within one run
	for f in tests/benchmarks/bench_*.py; do $(BIN)/python $$f; done

setup: $(STAMP)     ## only the environment

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Setting up $(VENV): about 4 minutes and 7 GB the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e '.[lab,wandb,test]'
	@# A second phase, because its build imports torch. Without it transformers' class serves (teacher sam2_transformers).
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt --no-build-isolation -e '.[sam2]' \
		|| echo "sam2 cannot be installed here: teacher sam2_transformers serves in its place"
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "motionlab" > /dev/null
	@touch $(STAMP)

wheels: $(STAMP)    ## dist/: the library with its notebooks and evidence, and the trained models
	rm -rf build weights/build dist
	$(BIN)/python -m pip wheel -q --no-deps --disable-pip-version-check -w dist . ./weights
	@ls -l dist

clean:          ## remove the environment and the runs
	rm -rf $(VENV) runs
