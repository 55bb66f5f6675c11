# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one invocation of a run unit has found so far: written by prepare and finish, read by verify and the recorder."""

from __future__ import annotations

import dataclasses

from .definition import Definition
from .host import RUNTIME, Host


@dataclasses.dataclass
class State:
    """Findings of the invocation `invocation` (systemd's id) of `unit`; `started` in seconds since 1970."""

    unit: str
    invocation: str
    started: float
    # Set when the run was stopped before restic, or saved into another repository: a reason of the outcome, and what to say.
    stopped: str | None = None
    message: str = ""
    missing: list[str] = dataclasses.field(default_factory=list)
    # The snapshot of each dump that made one, and those that made none.
    dumps: dict[str, str] = dataclasses.field(default_factory=dict)
    dumps_failed: list[str] = dataclasses.field(default_factory=list)
    post_failed: list[str] = dataclasses.field(default_factory=list)

    def without_snapshot(self, definition: Definition) -> list[str]:
        """Names of the declared dumps that made no snapshot, whatever became of them."""
        return [dump.name for dump in definition.dumps if dump.name not in self.dumps]

    def save(self, host: Host) -> None:
        """Keep it until the next run."""
        host.write_json(f"{RUNTIME}/{self.unit}.json", dataclasses.asdict(self), mode=0o600)


def newest(host: Host, unit: str) -> str:
    """The invocation that was prepared last since the host booted; empty if there is none."""
    return str((host.read_json(f"{RUNTIME}/{unit}.json") or {}).get("invocation") or "")


def load(host: Host, unit: str, invocation: str) -> State | None:
    """The findings of exactly this invocation; None when it has left none."""
    content = host.read_json(f"{RUNTIME}/{unit}.json")
    if content is None or not invocation or content.get("invocation") != invocation:
        return None
    try:
        return State(**content)
    except TypeError:
        return None
