# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd says of run units: one question for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from .definition import Definition
from .host import Host, ProgramError

RUNNING = ("activating", "active", "reloading", "deactivating")
_PROPERTIES = "Id,LoadState,ActiveState,InvocationID,NextElapseUSecRealtime"


@dataclasses.dataclass(frozen=True)
class UnitState:
    """A service with its timer; `next` in seconds since 1970, None where nothing will start it."""

    loaded: bool = False
    running: bool = False
    invocation: str = ""
    next: float | None = None


def ask(host: Host, definitions: Iterable[Definition]) -> dict[str, UnitState]:
    """The state of each run unit, by its name. Raises ProgramError when systemd does not answer."""
    wanted = list(definitions)
    if not wanted:
        return {}
    names = [name for each in wanted for name in (each.service, each.timer)]
    done = host.command(
        ["systemctl", "show", "--timestamp=unix", f"--property={_PROPERTIES}", "--", *names], timeout=60
    )
    if done.status:
        raise ProgramError(f"systemctl show failed: {done.stderr.strip() or done.status}")
    blocks: dict[str, dict[str, str]] = {}
    for block in done.stdout.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        blocks[values.get("Id", "")] = values
    return {each.unit: _state(blocks.get(each.service, {}), blocks.get(each.timer, {})) for each in wanted}


def _state(service: dict[str, str], timer: dict[str, str]) -> UnitState:
    stamp = timer.get("NextElapseUSecRealtime", "").lstrip("@")
    return UnitState(
        loaded=service.get("LoadState") == "loaded",
        running=service.get("ActiveState") in RUNNING,
        invocation=service.get("InvocationID", ""),
        next=float(stamp) if stamp.isdigit() and timer.get("ActiveState") == "active" else None,
    )
