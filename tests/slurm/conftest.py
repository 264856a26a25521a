"""Copies of the checkout and a cluster to run them on."""

from __future__ import annotations

import sys
from pathlib import Path

# Where copies of the checkout are made.
sys.path.insert(0, str(Path(__file__).parents[1]))
