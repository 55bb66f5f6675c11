# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome of the last run and the bounded history: /var/lib/holdfast/outcomes/<unit>.json and .history.jsonl."""

from __future__ import annotations

import json
from typing import Any

from .host import OUTCOMES, Host

HISTORY = 100


def last(host: Host, unit: str) -> dict[str, Any] | None:
    """The recorded outcome of the last run; None if it never ran."""
    return host.read_json(f"{OUTCOMES}/{unit}.json")


def write(host: Host, unit: str, outcome: dict[str, Any]) -> None:
    """Replace the outcome of the last run."""
    host.write_json(f"{OUTCOMES}/{unit}.json", outcome)


def remember(host: Host, unit: str, outcome: dict[str, Any]) -> None:
    """Append to the history, which keeps the last 100."""
    path = f"{OUTCOMES}/{unit}.history.jsonl"
    try:
        lines = host.path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    lines = [*lines[-(HISTORY - 1) :], json.dumps(outcome, sort_keys=True)]
    host.write(path, "".join(f"{line}\n" for line in lines).encode("utf-8"), mode=0o644)
