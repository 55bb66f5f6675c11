"""The attacks are programs of this repository, not a part of the collection; they need Python 3.11."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

collect_ignore_glob = [] if sys.version_info >= (3, 11) else ["test_*.py"]
