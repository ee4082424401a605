# SPDX-License-Identifier: Apache-2.0
"""Cards of trained networks: those that ship, and those of which only the card is kept."""

import json
from pathlib import Path

from bmhw.models.files.store import WEIGHTS

KEPT = Path(__file__).parents[2] / "docs/results/cards"
"""Cards without weights."""

BM_CARDS = [path for folder in (WEIGHTS, KEPT) for path in sorted(folder.glob("*.json"))
            if json.loads(path.read_text())["training"]["layout"] != "mac"]
"""Of both, the networks with BM layers."""
