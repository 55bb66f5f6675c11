# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast unlock JOB`: takes the locks away that a program which was killed left in the repository."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from .. import _hold, _locks
from .._restic import EngineError
from .._run import Result
from . import borg, restic
from . import definition as definitions
from .definition import Definition
from .host import Host, ProgramError
from .text import one_line, say

SERVICES = "/etc/systemd/system"


def unlock(host: Host, job: str) -> int:
    """Unlock the repository of `job`, unless a run of this host uses it. Returns 0, or raises ProgramError."""
    definition = definitions.resolve_one(host, job)
    runner = _runner(host)
    try:
        _refuse_in_use(definition, runner)
        if definition.borg is not None:
            say(
                f"{definition.unit}: borg breaks every lock of the repository, also that of somebody who works in it by hand"
                " now, the server's administrator say"
            )
        # A run that begins just now would lose its lock as well. Whoever unlocks it at the same time ends their own hold only.
        by = f"unlock{os.getpid()}"
        with _hold.held_off(definition.repository, units=str(host.path(SERVICES)), runner=runner, by=by):
            _refuse_running(definition, runner)
            if definition.borg is None:
                _restic(host, definition, runner)
            else:
                borg.break_lock(host, definition)
                say(f"{definition.unit}: neither the repository nor its cache on this host is locked any more")
    except EngineError as error:
        raise ProgramError(str(error)) from error
    return 0


def _restic(host: Host, definition: Definition, runner: Callable[..., Result]) -> None:
    found = restic.lock_names(host, definition, _locks.MOST)
    locks = [restic.lock(host, definition, name) for name in found]
    holders = [text for text in (_holder(host, definition, lock) for lock in locks) if text]
    if holders:
        raise ProgramError(f"{definition.repository} is in use by {'; '.join(holders)}: wait until that is over")
    if found:
        # To look at many locks may have taken longer than runs are held off.
        _refuse_running(definition, runner)
        # The runs of other hosts nobody holds off at all.
        if set(restic.lock_names(host, definition, _locks.MOST)).difference(found):
            raise ProgramError(
                f"{definition.repository} is in use: another lock was made meanwhile; wait until that is over"
            )
        restic.remove_locks(host, definition)
    say(f"{definition.unit}: {f'locks that were removed: {len(found)}' if found else 'there is no lock'}")


def _holder(host: Host, definition: Definition, lock: dict[str, Any]) -> str:
    """Who holds a lock, in words; empty for nobody."""
    who = _locks.holder(lock, host=host.name(), binary=definition.binary, now=host.now(), running=host.program)
    return one_line(who)


def _refuse_in_use(definition: Definition, runner: Callable[..., Result]) -> None:
    # To hold runs off ourselves would let go those that a playbook holds off.
    if _hold.held(definition.repository, runner=runner):
        raise ProgramError(
            f"a playbook changes the passphrase of {definition.repository} now, or was cut off less than {_hold.HOLD_SECONDS} s"
            " ago; try again later"
        )
    _refuse_running(definition, runner)


def _refuse_running(definition: Definition, runner: Callable[..., Result]) -> None:
    busy = _hold.running(definition.repository, runner=runner)
    if busy:
        raise ProgramError(
            f"{definition.repository} is in use by {', '.join(busy)}, whose lock it is; wait until that has ended, or end it:"
            f" systemctl stop {' '.join(busy)}"
        )


def _runner(host: Host) -> Callable[..., Result]:
    def run(argv: Sequence[str], *, timeout: float) -> Result:
        done = host.command(argv, timeout=timeout)
        return Result(done.status, done.stdout, done.stderr)

    return run
