# SPDX-License-Identifier: Apache-2.0
"""Blocks as Verilog that a person can read, and wrappers around them."""
