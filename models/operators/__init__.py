# SPDX-License-Identifier: Apache-2.0
"""The maxima of products and of sums: in C++, Triton and plain PyTorch or NumPy."""
