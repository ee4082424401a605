# SPDX-License-Identifier: Apache-2.0
"""Files: weights, cards, images, networks of others."""
