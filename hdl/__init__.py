# SPDX-License-Identifier: Apache-2.0
"""Number formats (NumPy) and the hardware generators (Amaranth) that are built from them."""
