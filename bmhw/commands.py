# SPDX-License-Identifier: Apache-2.0
"""The commands of ``bmhw``: which module has which."""

import importlib
from types import ModuleType

__all__ = ["COMMANDS", "module_of"]

COMMANDS = {
    "synth": ("bmhw.synth", "what a neuron costs: gates, path, parts; both neurons side by side"),
    "export": ("bmhw.export", "a neuron's Verilog, description, FuseSoC core and self-checking bench"),
    "evaluate": ("bmhw.evaluate", "the accuracy of a trained network, as floating point and as hardware computes it"),
    "sim": ("bmhw.simulate", "a trained neuron's Verilog against the integer model, bit for bit"),
    "layers": ("bmhw.layers", "a network's layers as MAC and as BM hardware"),
    "fpga": ("bmhw.fpga", "both neurons placed and routed on an FPGA"),
    "network": ("bmhw.network", "a whole trained network as hardware: plan, Verilog, check"),
    "elements": ("bmhw.elements", "what takes one input a cycle: BM and MAC elements, in gates and placed"),
    "tradeoff": ("bmhw.tradeoff", "every trained network's accuracy against its elements, neuron and weights"),
    "train": ("bmhw.train", "train a network and write its integer weights"),
    "models": ("bmhw.model_list", "the networks that ship, or those in a folder"),
    "accuracy": ("bmhw.accuracy", "accuracy tables and plots of trained networks"),
    "report": ("bmhw.report", "docs/results from the measured files"),
    "explore": ("bmhw.explore", "measure every architecture again"),
    "calibrate": ("bmhw.calibrate", "measure again what plans estimate logic cells with"),
    "doctor": ("bmhw.doctor", "versions, which tools are found where, and what to install for the rest"),
    "completion": ("bmhw.completion", "a completion script for bash, zsh or tcsh"),
}
"""Name of a command -> its module and what it does."""


def module_of(name: str) -> ModuleType:
    """The module of a command: ``main(argv)`` runs it, ``parser()`` has its options."""
    return importlib.import_module(COMMANDS[name][0])
