# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast finish UNIT`: `post` hooks, whatever happened. ExecStopPost= of a run unit, as root."""

from __future__ import annotations

from collections.abc import Mapping

from . import evidence, hooks
from .assess import Ending
from .definition import Definition
from .host import Host
from .state import State
from .text import complain


def finish(host: Host, definition: Definition, environment: Mapping[str, str]) -> int:
    """Run all `post` hooks, with the outcome so far in their environment. Returns 1 if one of them failed."""
    if not definition.post:
        return 0
    invocation = environment.get("INVOCATION_ID", "")
    known = evidence.gather(host, definition, invocation, Ending.of(environment))
    variables = hooks.environment(
        definition,
        outcome=known.assessment.outcome,
        reason=known.assessment.reason or "",
        message=known.assessment.message,
        snapshot=str((known.digest.summary or {}).get("snapshot_id", "")),
    )
    state = known.state or State(definition.unit, invocation, host.now())
    for number, hook in enumerate(definition.post, 1):
        problem = hooks.run(hook, variables)
        if problem:
            state.post_failed.append(f"post hook {number}: {problem}")
            state.save(host)
            complain(state.post_failed[-1])
    return 1 if state.post_failed else 0
