# SPDX-License-Identifier: Apache-2.0
"""What goes to other tools: Verilog with its description, core file and bench."""
