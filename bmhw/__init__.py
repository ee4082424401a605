# SPDX-License-Identifier: Apache-2.0
"""bmhw: multiplier-free (bipolar morphological) neurons in hardware, measured against multiply-accumulate."""

__version__ = "0.1.0"
