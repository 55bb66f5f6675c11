# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast status`: every run unit of this host, for people and (--json) for the fleet's table."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from .._outcome import ABSENT, FAILED, INCOMPLETE, LOCKED, NEVER_RAN, OK, PRESENT, UNREACHABLE, WRONG_KEY
from . import definition as definitions
from . import journal, outcomes, systemd, text
from .definition import Definition
from .engine import restic_version
from .host import Host, ProgramError, seconds_of, timestamp, version
from .systemd import UnitState
from .text import complain, say

# One progress line a minute at least, so the latest lines hold one.
PROGRESS_LINES = 50
_STATES = {
    "no repository": ABSENT,
    "locked": LOCKED,
    "wrong password": WRONG_KEY,
    **dict.fromkeys(("unreachable", "host key", "key refused", "wrong credentials", "quota"), UNREACHABLE),
}
_KEPT = (
    "reason",
    "message",
    "started",
    "ended",
    "duration_seconds",
    "exit_status",
    "last_ok",
    "snapshot",
    "summary",
    "missing",
    "dumps",
    "dumps_failed",
    "told",
)


def status(host: Host, job: str | None, *, as_json: bool) -> int:
    """Print the state of all run units, or of those of `job`. Returns 0 whatever it is; 1 if a definition is bad."""
    chosen, problems = _chosen(host, job)
    known = systemd.ask(host, chosen)
    units = [_unit(host, each, known[each.unit]) for each in chosen]
    if as_json:
        say(json.dumps(_document(host, chosen, units), indent=1))
    else:
        say(_table(host, units))
    for problem in problems:
        complain(f"holdfast: {problem}")
    return 1 if problems else 0


def _chosen(host: Host, job: str | None) -> tuple[list[Definition], list[str]]:
    if job is not None:
        return definitions.resolve(host, job), []
    chosen, problems = [], []
    for name in definitions.names(host):
        try:
            chosen.append(definitions.load(host, name))
        except ProgramError as error:
            problems.append(str(error))
    return chosen, problems


def _document(host: Host, chosen: list[Definition], units: list[dict[str, Any]]) -> dict[str, Any]:
    binaries = {each.binary: each for each in chosen if each.borg is None}
    versions = [restic_version(host, each) for each in binaries.values()]
    return {
        "format": 1,
        "hostname": socket.gethostname(),
        "time": timestamp(host.now()),
        "holdfast": version(),
        "restic": versions[0] if versions else None,
        "units": units,
    }


def _unit(host: Host, definition: Definition, state: UnitState) -> dict[str, Any]:
    last = _last(host, definition, state)
    outcome = last["outcome"] if last else NEVER_RAN
    result: dict[str, Any] = {
        "unit": definition.unit,
        "job": definition.job,
        "repository": definition.repository,
        "engine": definition.engine,
        "access": definition.access,
        "escrow": definition.escrow_mode,
        "outcome": outcome,
        **{key: last.get(key) if last else None for key in _KEPT},
        "next": timestamp(state.next) if state.next is not None else None,
        "loaded": state.loaded,
        "running": state.running,
        "percent_done": _percent(host, definition, state),
    }
    last_ok = seconds_of(result["last_ok"])
    result["age_seconds"] = int(host.now() - last_ok) if last_ok is not None else None
    result["repository_state"] = PRESENT if outcome in (OK, INCOMPLETE) else _STATES.get(result["reason"] or "")
    return result


def _last(host: Host, definition: Definition, state: UnitState) -> dict[str, Any] | None:
    """The outcome of the last run; of a failed one that is not on record, because the disk is full say, what systemd knows.

    None where that was into another repository than today's, which has nothing of it.
    """
    last = outcomes.last(host, definition.unit)
    if outcomes.elsewhere(last, outcomes.repository_id(host, definition)):
        last = None
    if not state.failed or not state.invocation or outcomes.of(host, definition.unit, state.invocation) is not None:
        return last
    message = (
        f"it failed, and its outcome is not on record; see: holdfast log {definition.unit};"
        f" journalctl -u 'holdfast-record@{definition.unit}*'"
    )
    return {"outcome": FAILED, "reason": "unknown", "message": message, "last_ok": (last or {}).get("last_ok")}


def _percent(host: Host, definition: Definition, state: UnitState) -> float | None:
    if not state.running:
        return None
    entries = journal.read(host, state.invocation, lines=PROGRESS_LINES)
    return journal.digest(entries, os.path.basename(definition.binary), definition.service).percent_done


def _table(host: Host, units: list[dict[str, Any]]) -> str:
    if not units:
        return "no run units on this host"
    rows, notes = [], []
    for unit in units:
        following = seconds_of(unit["next"])
        rows.append(
            (
                unit["unit"],
                unit["outcome"],
                unit["reason"] or "-",
                unit["last_ok"] or "never",
                text.span(unit["age_seconds"]),
                f"in {text.span(following - host.now())}" if following is not None else "no timer",
                _running(unit),
            )
        )
        if unit["message"]:
            lines = "\n  ".join(unit["message"].splitlines())
            notes.append(f"{unit['unit']}: {unit['reason'] or unit['outcome']}\n  {lines}")
        if not unit["loaded"]:
            notes.append(f"{unit['unit']}: systemd has no holdfast-{unit['unit']}.service; run the site playbook")
    header = ("UNIT", "OUTCOME", "REASON", "LAST OK", "AGE", "NEXT", "RUNNING")
    return "\n\n".join([text.table(header, rows), *notes])


def _running(unit: dict[str, Any]) -> str:
    if not unit["running"]:
        return "-"
    return "yes" if unit["percent_done"] is None else f"{unit['percent_done']:.0f} %"
