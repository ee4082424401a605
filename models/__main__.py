# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.models``: handed over to :mod:`bmhw.model_list`."""

from bmhw.model_list import main, run

if __name__ == "__main__":
    run(main)
