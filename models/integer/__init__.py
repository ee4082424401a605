# SPDX-License-Identifier: Apache-2.0
"""From a trained network to integers: folding, quantisation, the integer network."""
