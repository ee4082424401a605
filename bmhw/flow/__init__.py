# SPDX-License-Identifier: Apache-2.0
"""From Verilog to measured gates, area and critical path with Yosys and abc."""

from .synthesis import OBJECTIVES, Synthesis, synthesize

__all__ = ["OBJECTIVES", "Synthesis", "synthesize"]
