# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd says of run units: one question for all services, and one for all timers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from .definition import Definition
from .host import Host, ProgramError

RUNNING = ("activating", "active", "reloading", "deactivating")
_PROPERTIES = "Id,LoadState,ActiveState,InvocationID"


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
    show = ["systemctl", "show", f"--property={_PROPERTIES}", "--", *(each.service for each in wanted)]
    done = host.command(show, timeout=60)
    if done.status:
        raise ProgramError(f"systemctl show failed: {done.stderr.strip() or done.status}")
    blocks: dict[str, dict[str, str]] = {}
    for block in done.stdout.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        blocks[values.get("Id", "")] = values
    following = _following(host, [each.timer for each in wanted])
    return {each.unit: _state(blocks.get(each.service, {}), following.get(each.timer)) for each in wanted}


def _following(host: Host, timers: list[str]) -> dict[str, float]:
    """When each active timer elapses. `systemctl show` would say it in the host's time zone only, as words."""
    done = host.command(["systemctl", "list-timers", "--output=json", "--", *timers], timeout=60)
    try:
        found = {each["unit"]: each["next"] for each in json.loads(done.stdout or "[]")}
    except (ValueError, KeyError, TypeError):
        raise ProgramError(f"systemctl list-timers failed: {done.stderr.strip() or done.status}") from None
    return {timer: microseconds / 1e6 for timer, microseconds in found.items() if microseconds}


def _state(service: dict[str, str], following: float | None) -> UnitState:
    return UnitState(
        loaded=service.get("LoadState") == "loaded",
        running=service.get("ActiveState") in RUNNING,
        invocation=service.get("InvocationID", ""),
        next=following,
    )
