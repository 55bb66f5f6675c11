# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which runs have begun and are not recorded yet: /var/lib/holdfast/running/<unit>.json outlasts what ends the host."""

from __future__ import annotations

import contextlib
import dataclasses

from .host import RUNNING, Host


@dataclasses.dataclass(frozen=True)
class Begun:
    """A run that has begun: systemd's id of it, when (seconds since 1970), and what the kernel and systemd call that boot."""

    invocation: str
    started: float
    boot: str
    userspace: str = ""


def begin(host: Host, unit: str, invocation: str, started: float) -> None:
    """Note that a run has begun."""
    host.write_json(_path(unit), dataclasses.asdict(Begun(invocation, started, host.boot(), host.userspace())))


def end(host: Host, unit: str, invocation: str) -> None:
    """Forget the run, if it is the one that is noted."""
    known = noted(host, unit)
    if known is not None and known.invocation == invocation:
        forget(host, unit)


def forget(host: Host, unit: str) -> None:
    """Forget what is noted of the unit, as far as its file system lets us."""
    with contextlib.suppress(OSError):
        host.path(_path(unit)).unlink()


def units(host: Host) -> list[str]:
    """The units that something is noted of, sorted."""
    return sorted(path.stem for path in host.path(RUNNING).glob("*.json"))


def cut_off(host: Host, unit: str) -> Begun | None:
    """The run that was going on when the host went down; None if there is none."""
    known = noted(host, unit)
    if known is None:
        return None
    return known if _differ(known.boot, host.boot()) or _differ(known.userspace, host.userspace()) else None


def _differ(before: str, now: str) -> bool:
    return "" not in (before, now) and before != now


def noted(host: Host, unit: str) -> Begun | None:
    """What is noted of the unit: a run that goes on, or that nobody recorded."""
    try:
        return Begun(**(host.read_json(_path(unit)) or {}))
    except TypeError:
        return None


def _path(unit: str) -> str:
    return f"{RUNNING}/{unit}.json"
