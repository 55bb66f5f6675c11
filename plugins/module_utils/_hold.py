# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The run units of a repository: which of them run, and how they are kept from starting for a moment."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Iterator

from ._restic import EngineError
from ._run import Result, run

UNITS = "/etc/systemd/system"
# What a run that was killed keeps waiting, at most. More than a change of a passphrase takes, openings included.
HOLD_SECONDS = 300
_COMMAND_SECONDS = 30.0
_RUNNING = "active,activating,deactivating,reloading"


def running(repository: str, *, runner: Callable[..., Result] = run) -> list[str]:
    """Return the units of backups and dumps that use the repository now. Raises EngineError where systemd does not say."""
    patterns = [f"holdfast-*--{repository}.service", f"holdfast-*--{repository}--*.service"]
    argv = ["systemctl", "list-units", "--plain", "--no-legend", "--no-pager", "--full", f"--state={_RUNNING}"]
    done = runner([*argv, "--", *patterns], timeout=_COMMAND_SECONDS)
    if done.code != 0:
        raise EngineError(f"systemctl does not say which backups run: {done.stderr.strip()[:200]}")
    units = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    # The recorder of a run uses no repository.
    return sorted(unit for unit in units if "@" not in unit)


def held(repository: str, *, runner: Callable[..., Result] = run) -> bool:
    """Tell whether somebody holds the repository's run units off now."""
    done = runner(["systemctl", "is-active", _name(repository)], timeout=_COMMAND_SECONDS)
    return done.stdout.strip() in _RUNNING.split(",")


def _name(repository: str, by: str = "hold") -> str:
    return f"holdfast-{by}-{repository}.service"


@contextlib.contextmanager
def held_off(
    repository: str, *, units: str = UNITS, runner: Callable[..., Result] = run, by: str = "hold"
) -> Iterator[None]:
    """Keep the repository's run units from starting; they wait, and start with what is there afterwards.

    A unit of our own is ordered before them, and is starting for as long as this lasts. Who holds off `by` another name does
    not end it with theirs. Raises EngineError.
    """
    services = [path.rpartition("/")[2] for path in sorted(glob.glob(f"{units}/holdfast-*--{repository}.service"))]
    name = _name(repository, by)
    argv = ["systemd-run", "--quiet", "--no-block", "--collect", f"--unit={name}", "--property=Type=oneshot"]
    argv += [f"--property=Before={' '.join(services)}"] if services else []
    # One that an interrupted run left would be in the way of ours.
    runner(["systemctl", "stop", name], timeout=_COMMAND_SECONDS)
    done = runner([*argv, "--", "sleep", str(HOLD_SECONDS)], timeout=_COMMAND_SECONDS)
    if done.code != 0:
        raise EngineError(f"backups of {repository} cannot be held off: {done.stderr.strip()[:200]}")
    try:
        yield
    finally:
        runner(["systemctl", "stop", name], timeout=_COMMAND_SECONDS)
