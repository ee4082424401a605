# SPDX-License-Identifier: Apache-2.0
"""Architectures as data, and PyTorch modules of them."""
