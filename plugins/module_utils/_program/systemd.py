# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd says of run units: one question for all services, one for all timers, and more only for those that run or failed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from .definition import Definition
from .host import Host, ProgramError

RUNNING = ("activating", "active", "reloading", "deactivating")
FAILED = "failed"
_PROPERTIES = "Id,LoadState,ActiveState,InvocationID"


@dataclasses.dataclass(frozen=True)
class UnitState:
    """A service with its timer; `next` in seconds since 1970, None where nothing will start it."""

    loaded: bool = False
    running: bool = False
    failed: bool = False
    invocation: str = ""
    next: float | None = None


def ask(host: Host, definitions: Iterable[Definition], *, closely: bool = False) -> dict[str, UnitState]:
    """The state of each run unit, by its name; `closely` with the invocation of what neither runs nor failed, too. Raises
    ProgramError when systemd does not answer."""
    wanted = list(definitions)
    if not wanted:
        return {}
    blocks = {} if closely else _listed(host, [each.service for each in wanted])
    # All properties of a unit take systemd 3 ms, so only where they are of use: what runs or failed, and what systemd has no
    # need of in memory.
    of_use = (*RUNNING, FAILED)
    asked = [each.service for each in wanted if blocks.get(each.service, {}).get("ActiveState", FAILED) in of_use]
    if asked:
        blocks.update(_shown(host, asked))
    following = _following(host, [each.timer for each in wanted])
    return {each.unit: _state(blocks.get(each.service, {}), following.get(each.timer)) for each in wanted}


def _listed(host: Host, services: list[str]) -> dict[str, dict[str, str]]:
    """The state of those services that are in memory; none where systemd does not say, so that all are asked for."""
    done = host.command(["systemctl", "list-units", "--all", "--output=json", "--", *services], timeout=60)
    try:
        found = json.loads(done.stdout)
        return {each["unit"]: {"LoadState": each["load"], "ActiveState": each["active"]} for each in found}
    except (ValueError, KeyError, TypeError):
        return {}


def _shown(host: Host, services: list[str]) -> dict[str, dict[str, str]]:
    """The properties of services, which systemd reads for it where they are not in memory."""
    done = host.command(["systemctl", "show", f"--property={_PROPERTIES}", "--", *services], timeout=60)
    if done.status:
        raise ProgramError(f"systemctl show failed: {done.stderr.strip() or done.status}")
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in done.stdout.split("\n\n")
    ]
    return {block.get("Id", ""): block for block in blocks}


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
        failed=service.get("ActiveState") == FAILED,
        invocation=service.get("InvocationID", ""),
        next=following,
    )
