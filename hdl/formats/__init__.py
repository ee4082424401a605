# SPDX-License-Identifier: Apache-2.0
"""Number formats: codes, conversions, and what a neuron computes, in integers."""
