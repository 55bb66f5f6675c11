# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast interrupted`: records the runs that ended with the host itself. Once after each boot, as root."""

from __future__ import annotations

from .._outcome import FAILED
from . import definition as definitions
from . import outcomes, record, running
from .assess import Assessment, Ending
from .definition import Definition
from .evidence import Evidence
from .host import Host, ProgramError
from .journal import Digest
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
    if begun is None:
        return True
    written = True
    with outcomes.turn(host, definition.unit):
        before = outcomes.last(host, definition.unit)
        outcome = outcomes.of(host, definition.unit, begun.invocation)
        if outcome is None:
            known = Evidence(
                begun.invocation,
                Ending(),
                State(definition.unit, begun.invocation, begun.started),
                Digest(),
                Assessment(FAILED, "interrupted", MESSAGE),
            )
            # When it ended nobody knows.
            outcome = {**record.describe(host, definition, known, before), "duration_seconds": None}
            written = record.keep(host, definition, outcome, before)
            say(f"{definition.unit} failed interrupted")
        else:
            # It went down when the outcome was written, and maybe nobody told yet. A later one stays the last.
            before = None
    if outcome.get("told") is None:
        written &= record.tell(host, definition, outcome, before)
    if written:
        running.forget(host, definition.unit)
    return written
