# SPDX-License-Identifier: Apache-2.0
"""Benches that hold generated Verilog against the integer model, bit for bit (cocotb; Verilator or Icarus).

from bmhw.sim import simulate, verify

outputs = simulate(design, {"x": x, "k1": k1, "k2": k2, "bias": bias})
report = verify(design, inputs)     # report.passed, report.first_mismatch
"""

from .simulation import Mismatch, Report, simulate, verify
from .simulators import SIMULATORS, Simulator, find_simulator, usable_simulators
from .stimulus import corner_vectors, needed_vectors, random_vectors, vectors

__all__ = [
    "SIMULATORS",
    "Mismatch",
    "Report",
    "Simulator",
    "corner_vectors",
    "find_simulator",
    "needed_vectors",
    "random_vectors",
    "simulate",
    "usable_simulators",
    "vectors",
    "verify",
]
