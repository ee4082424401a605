# SPDX-License-Identifier: Apache-2.0
"""Training: data sets, methods, recipes, the trainer."""
