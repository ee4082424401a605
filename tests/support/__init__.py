# SPDX-License-Identifier: Apache-2.0
"""What several tests share: calling commands, simulating and proving blocks, small libraries and networks."""
