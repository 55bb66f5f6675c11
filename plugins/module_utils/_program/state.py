# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one invocation of a run unit has found so far: written by prepare and finish, read by verify and the recorder."""

from __future__ import annotations

import contextlib
import dataclasses
import os

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

    def begin(self, host: Host) -> None:
        """Keep it as that of a new run, and that of the run before beside it: its recorder may still be at work."""
        with contextlib.suppress(FileNotFoundError):
            os.replace(host.path(f"{RUNTIME}/{self.unit}.json"), host.path(f"{RUNTIME}/{self.unit}.before.json"))
        self.save(host)

    def save(self, host: Host) -> None:
        """Keep what was found so far."""
        host.write_json(f"{RUNTIME}/{self.unit}.json", dataclasses.asdict(self), mode=0o600)


def newest(host: Host, unit: str) -> str:
    """The invocation that was prepared last since the host booted; empty if there is none."""
    return str((host.read_json(f"{RUNTIME}/{unit}.json") or {}).get("invocation") or "")


def load(host: Host, unit: str, invocation: str) -> State | None:
    """The findings of exactly this invocation; None when it has left none."""
    for name in (unit, f"{unit}.before"):
        content = host.read_json(f"{RUNTIME}/{name}.json")
        if content is not None and invocation and content.get("invocation") == invocation:
            with contextlib.suppress(TypeError):
                return State(**content)
    return None
