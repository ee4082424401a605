# SPDX-License-Identifier: Apache-2.0
"""Measuring: neurons, layers, FPGA, selection of architectures, pipelining, exploration."""
