# SPDX-License-Identifier: Apache-2.0
"""Blocks of arithmetic: adders, comparators, compressors, multipliers, maxima, logarithm, exponential, tables."""
