# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast finish UNIT`: was it the right repository, and `post` hooks. ExecStopPost= of a run unit, always, as root."""

from __future__ import annotations

from collections.abc import Mapping

from . import evidence, hooks, same
from . import state as states
from .assess import Ending
from .definition import Definition
from .host import Host
from .state import State
from .text import complain


def finish(host: Host, definition: Definition, environment: Mapping[str, str]) -> int:
    """Compare the repository, run all `post` hooks with the outcome so far. Returns 1 if it was another or one failed."""
    invocation, ending = environment.get("INVOCATION_ID", ""), Ending.of(environment)
    state = states.load(host, definition.unit, invocation) or State(definition.unit, invocation, host.now())
    if definition.dumps and ending.result != "success":
        # If it was ended while one was made, that one goes on.
        units = [dump.unit for dump in definition.dumps]
        host.command(["systemctl", "stop", "--no-block", "--", *units], timeout=30)
    # Another exit status is a failure anyway.
    if state.stopped is None and ending.exit_status in (0, 3):
        saved_in = None
        if definition.borg is not None and not definition.dumps_only:
            # Borg says it itself.
            summary = evidence.gather(host, definition, invocation, ending).digest.summary
            saved_in = (summary or {}).get("repository_id")
        doubt = same.doubt(host, definition, state.started, saved_in)
        if doubt is not None:
            state.stopped, state.message = doubt
            state.save(host)
            complain(f"{state.stopped}: {state.message}")
    if definition.post:
        _post(host, definition, state, ending)
    return 1 if state.stopped or state.post_failed else 0


def _post(host: Host, definition: Definition, state: State, ending: Ending) -> None:
    known = evidence.gather(host, definition, state.invocation, ending)
    variables = hooks.environment(
        definition,
        outcome=known.assessment.outcome,
        reason=known.assessment.reason or "",
        message=evidence.without_secrets(host, definition, known.assessment.message),
        snapshot=str((known.digest.summary or {}).get("snapshot_id", "")),
    )
    for number, hook in enumerate(definition.post, 1):
        problem = hooks.run(hook, variables)
        if problem:
            state.post_failed.append(f"post hook {number}: {problem}")
            state.save(host)
            complain(state.post_failed[-1])
