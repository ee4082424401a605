# SPDX-License-Identifier: Apache-2.0
"""Simulators as parameters of tests: what builds for seconds is long, the other one takes part in every run."""

import pytest

from bmhw.sim import usable_simulators

FAST = usable_simulators()[-1]
"""Icarus where it is there: it builds in a tenth of a second."""

FAST_AND_LONG = [pytest.param(name, marks=() if name == FAST else pytest.mark.long) for name in usable_simulators()]
"""Every simulator, the others than :data:`FAST` in long runs only."""
