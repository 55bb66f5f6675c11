# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast verify UNIT`: makes a run fail that saved less than was declared. ExecStartPost= of a run unit, as root.

Where a job has only dumps it is ExecStart=: the dumps have made their snapshots before, and this looks whether they did.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import evidence
from . import state as states
from .assess import Ending
from .definition import Definition
from .host import Host
from .journal import LOST
from .text import complain


def verify(host: Host, definition: Definition, environment: Mapping[str, str]) -> int:
    """Returns 1 if a declared path was missing or a dump made no snapshot; missing paths pass where incomplete is ok."""
    state = states.load(host, definition.unit, environment.get("INVOCATION_ID", ""))
    if state is None:
        complain("this run was not prepared: ExecStartPre=+holdfast prepare is missing from the unit")
        return 1
    problems = [f"dump {name} failed" for name in state.without_snapshot(definition)]
    if definition.borg is not None and not definition.dumps_only and definition.incomplete_is == "failed":
        # borgmatic ends with 0 whatever borg warned of.
        known = evidence.gather(host, definition, state.invocation, Ending("success", "exited", "0"))
        problems += known.digest.errors or ([] if known.digest.whole else [LOST])
    if definition.incomplete_is == "failed":
        problems += [f"declared but not there: {path}" for path in state.missing]
    for problem in problems:
        complain(problem)
    return 1 if problems else 0
