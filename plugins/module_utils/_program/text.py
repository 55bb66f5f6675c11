# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines, numbers and tables for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def one_line(text: str) -> str:
    """Text for a terminal: what cannot be printed is escaped, so that it stays one line and moves no cursor."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _shown(text: str) -> str:
    # Much of what is said holds names of files, which any user may choose.
    return "\n".join("\t".join(one_line(each) for each in line.split("\t")) for line in text.split("\n"))


def say(line: str = "") -> None:
    """Tell the person or the journal a line at once."""
    print(_shown(line), flush=True)  # pylint: disable=ansible-bad-function # a program of its own, not a module


def complain(line: str) -> None:
    """Tell standard error a line."""
    print(_shown(line), file=sys.stderr, flush=True)  # pylint: disable=ansible-bad-function # as above


def size(value: float | None) -> str:
    """Bytes with a binary unit; '-' for None."""
    if value is None:
        return "-"
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def span(seconds: float | None) -> str:
    """A span of time in its largest unit; '-' for None."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= length * (2 if unit == "d" else 1):
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    cells = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)
