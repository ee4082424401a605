# SPDX-License-Identifier: Apache-2.0
"""Blocks of whole networks: streams of pixels through windows, folded neurons and the ends that they share."""
