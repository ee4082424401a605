# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.sim``: handed over to :mod:`bmhw.simulate`."""

from bmhw.simulate import main, run

if __name__ == "__main__":
    run(main)
