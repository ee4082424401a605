# SPDX-License-Identifier: Apache-2.0
# make demo       what a BM neuron costs against a multiply-accumulate neuron
# make test       all tests
# make benchmark  how fast the commands are, as ratios
# Each installs what it needs into .venv first. Needed beforehand: Python >= 3.10, make, g++.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install -qq --disable-pip-version-check
# The build that the tests are known to pass with; users choose their own.
TORCH := torch==2.13.0

.PHONY: demo test benchmark clean

demo: $(VENV)/installed
	@$(RUN) -m bmhw.synth --compare --inputs 16 --branches signed --log-bits 5 --objective balanced

test: $(VENV)/installed-test
	@$(RUN) -m pytest -n auto

benchmark: $(VENV)/installed
	@$(RUN) tests/benchmarks/synth_speed.py

clean:
	rm -rf $(VENV) build dist *.egg-info

$(RUN):
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("bmhw needs Python 3.10 or newer, not %d.%d: make PYTHON=python3.x" % v[:2])'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(RUN)
	@echo "Installing bmhw into $(VENV) ..."
	@$(PIP) --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(RUN)
	@echo "Installing bmhw and what its tests need into $(VENV) ..."
	@$(PIP) $(TORCH)
	@$(PIP) --editable '.[test]'
	@touch $@
