# SPDX-License-Identifier: Apache-2.0
"""Whole networks on a chip: from a trained network to blocks, their check and their placement."""
