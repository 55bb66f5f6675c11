# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast interrupted`: records the runs that ended with the host itself. Once after each boot, as root.

And what `prepare` finds noted of the run before: that its recorder wrote nothing down.
"""

from __future__ import annotations

import re

from .._outcome import FAILED
from . import definition as definitions
from . import evidence, outcomes, record, running
from . import state as states
from .assess import Assessment, Ending
from .definition import Definition
from .evidence import Evidence
from .host import Host, ProgramError
from .journal import Digest
from .running import Begun
from .state import State
from .text import complain, say

MESSAGE = "the host went down in the middle of it"


def settle_all(host: Host) -> int:
    """Record them all. Returns 1 if one cannot be recorded, or its definition not be read."""
    problems = 0
    known = definitions.names(host)
    for unit in running.units(host):
        if unit not in known:
            # Its job is no longer declared.
            running.forget(host, unit)
            continue
        try:
            problems += not settle(host, definitions.load(host, unit))
        except ProgramError as error:
            complain(f"holdfast: {error}")
            problems += 1
    return 1 if problems else 0


def settle(host: Host, definition: Definition) -> bool:
    """Record the run of this unit that the host's end cut off, if there is one, and tell of it.

    Returns False if it cannot be written: then it is to be settled again.
    """
    begun = running.cut_off(host, definition.unit)
    return begun is None or _settle(host, definition, begun, Digest(), Assessment(FAILED, "interrupted", MESSAGE))


def settle_unrecorded(host: Host, definition: Definition, invocation: str) -> None:
    """Record the run before the run `invocation`, which begins now, if its recorder has ended and did not, and tell of it.

    How it ended nobody knows any more.
    """
    begun = running.noted(host, definition.unit)
    if begun is None or invocation in ("", begun.invocation) or _recorder_works(host, definition):
        return
    message = (
        f"it has ended, and its recorder (holdfast-record@{definition.unit}) did not write down how; see:"
        f" journalctl _SYSTEMD_INVOCATION_ID={begun.invocation}"
    )
    digest = evidence.gather(host, definition, begun.invocation, Ending()).digest
    _settle(host, definition, begun, digest, Assessment(FAILED, "unknown", message))


def _recorder_works(host: Host, definition: Definition) -> bool:
    """Whether a recorder of the unit is at work or about to be, or may be."""
    recorders = [f"holdfast-record@{definition.unit}{each}.service" for each in ("", "--failed")]
    done = host.command(["systemctl", "show", "--property=ActiveState,Job", "--", *recorders], timeout=30)
    lines = done.stdout.split()
    ended = [line for line in lines if line in ("ActiveState=inactive", "ActiveState=failed")]
    return done.status != 0 or len(ended) != len(recorders) or any(re.match(r"Job=\d", line) for line in lines)


def _settle(host: Host, definition: Definition, begun: Begun, digest: Digest, found: Assessment) -> bool:
    """Record a run as `found`, unless it is on record, and tell of it where nobody was told."""
    written = True
    with outcomes.turn(host, definition.unit):
        before = outcomes.last(host, definition.unit)
        outcome = outcomes.of(host, definition.unit, begun.invocation)
        if outcome is None:
            left = states.load(host, definition.unit, begun.invocation)
            state = left or State(definition.unit, begun.invocation, begun.started)
            known = Evidence(begun.invocation, Ending(), state, digest, found)
            # When it ended nobody knows.
            outcome = {**record.describe(host, definition, known, before), "duration_seconds": None}
            written = record.keep(host, definition, outcome, before)
            say(f"{definition.unit} {found.outcome} {found.reason}")
        else:
            # It went down when the outcome was written, and maybe nobody told yet. A later one stays the last.
            before = None
    if outcome.get("told") is None:
        written &= record.tell(host, definition, outcome, before)
    if written:
        running.forget(host, definition.unit)
    return written
