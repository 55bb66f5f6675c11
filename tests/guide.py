# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/operating.md and docs/borg.md say to type, for tests that do so."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks(heading: str, guide: str = "operating.md") -> list[str]:
    """The blocks of commands of one section."""
    text = (DOCS / guide).read_text()
    begin = f"\n## {heading}\n"
    assert text.count(begin) == 1, f"{guide} has no section {heading!r}"
    section = text.partition(begin)[2].partition("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
