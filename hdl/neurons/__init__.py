# SPDX-License-Identifier: Apache-2.0
"""Neurons: their design, their parts and ends, and whole neurons in every form."""
