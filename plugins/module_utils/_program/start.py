# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast run JOB...`: starts run units now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._outcome import INCOMPLETE, OK
from . import definition as definitions
from . import outcomes, pretend, show, systemd, text
from . import state as states
from .definition import Definition
from .host import Done, Host, ProgramError
from .systemd import UnitState
from .text import complain, say

# Seconds for the recorder to write the outcome after the unit has ended.
RECORD_PATIENCE = 120


def run(host: Host, jobs: Sequence[str], *, wait: bool, dry_run: bool) -> int:
    """Start all run units of `jobs`. Returns 1 if, having waited, one of them was neither ok nor acceptable."""
    named = {each.unit: each for job in jobs for each in definitions.resolve(host, job)}
    chosen = [named[unit] for unit in sorted(named)]
    known = systemd.ask(host, chosen, closely=wait)
    for each in chosen:
        if not known[each.unit].loaded:
            raise ProgramError(f"systemd has no {each.service}; run the site playbook for this host")
    if dry_run:
        return max(pretend.pretend(host, each) for each in chosen)
    for each in chosen:
        say(f"{each.unit} {'is already running' if known[each.unit].running else 'is being started'}")
    before = {each.unit: outcomes.last(host, each.unit) for each in chosen}
    # Asked before and after: the outcome of the run before may be written only now.
    ran = {each.unit: _newest(host, each, known[each.unit]) for each in chosen}
    argv = ["systemctl", "start", *([] if wait else ["--no-block"]), "--", *(each.service for each in chosen)]
    done = host.command(argv, timeout=max(each.longest for each in chosen) if wait else 60)
    if not wait:
        if done.status:
            raise ProgramError(f"systemctl start failed: {done.stderr.strip()}")
        say(f"see: holdfast status {jobs[0]}" if len(jobs) == 1 else "see: holdfast status")
        return 0
    status = 0
    now = systemd.ask(host, chosen, closely=True)
    for each in chosen:
        invocation = _newest(host, each, now[each.unit])
        if invocation == ran[each.unit] and not known[each.unit].running:
            # Systemd started none.
            invocation = ""
        status = max(status, _report(host, each, invocation, before[each.unit], done))
    return status


def _newest(host: Host, definition: Definition, state: UnitState) -> str:
    """Systemd's id of the newest run; of one that ended well and has no timer it forgets it."""
    return state.invocation or states.newest(host, definition.unit)


def _report(host: Host, definition: Definition, invocation: str, before: dict[str, Any] | None, done: Done) -> int:
    if not invocation and not done.status:
        complain(f"{definition.unit}: systemd did not run it; see: systemctl status {definition.service}")
        return 1
    after = None
    for _second in range(RECORD_PATIENCE):
        after = _outcome(host, definition, invocation, before)
        if after is not None:
            break
        host.sleep(1)
    if after is None:
        complain(f"{definition.unit}: no outcome was recorded. {done.stderr.strip()}")
        return 1
    reason = f", {after['reason']}" if after["reason"] else ""
    say(f"{definition.unit}: {after['outcome']}{reason} in {text.span(after['duration_seconds'])}")
    lines = show.summary({**after["summary"], "snapshot_id": after["snapshot"]}) if after["summary"] else []
    lines += [
        f"dump {name}: snapshot {snapshot[:8]}" for name, snapshot in (after.get("dumps") or {}).items() if snapshot
    ]
    for line in [*lines, *after["message"].splitlines()]:
        say(f"  {line}")
    accepted = (OK, INCOMPLETE) if definition.incomplete_is == "ok" else (OK,)
    return 0 if after["outcome"] in accepted else 1


def _outcome(
    host: Host, definition: Definition, invocation: str, before: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The outcome of this run once it is recorded; where there was no run, the one that says so."""
    if invocation:
        return outcomes.of(host, definition.unit, invocation)
    last = outcomes.last(host, definition.unit)
    return last if last is not None and last != before and not last.get("invocation_id") else None
