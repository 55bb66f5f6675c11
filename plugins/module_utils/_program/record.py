# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast record UNIT`: writes the outcome of a run after everything, and tells the user's command of a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._outcome import INCOMPLETE, OK
from . import evidence, hooks, journal, outcomes, running, systemd
from .assess import Ending
from .definition import Definition, Hook
from .engine import tool_versions
from .evidence import Evidence
from .host import Host, seconds_of, timestamp, version
from .journal import Digest
from .text import complain, say

FORMAT = 1
NUMBERS = (
    "files_new",
    "files_changed",
    "files_unmodified",
    "dirs_new",
    "dirs_changed",
    "dirs_unmodified",
    "data_added",
    "data_added_packed",
    "total_files_processed",
    "total_bytes_processed",
    "total_duration",
)


def record(host: Host, definition: Definition, environment: Mapping[str, str]) -> int:
    """Write outcome and history; call `on_failure`. Returns 0 whatever the outcome is, 1 if it cannot be written."""
    # Without it, somebody started this by hand.
    told = "MONITOR_SERVICE_RESULT" in environment
    written = True
    done: list[Evidence] = []
    while True:
        with outcomes.turn(host, definition.unit):
            before = outcomes.last(host, definition.unit)
            if done:
                invocation, ending = _missed(host, definition, done)
            elif told:
                invocation, ending = environment.get("MONITOR_INVOCATION_ID", ""), Ending.of(environment, "MONITOR_")
            else:
                invocation, ending = _asked(host, definition)
            known = None if done and not invocation else _evidence(host, definition, invocation, ending, before, told)
            if known is None:
                break
            outcome = describe(host, definition, known, before)
            written &= keep(host, definition, outcome, before)
        written &= tell(host, definition, outcome, before)
        running.end(host, definition.unit, known.invocation)
        say(" ".join(str(part) for part in (definition.unit, outcome["outcome"], outcome["reason"] or "") if part))
        done.append(known)
    if not done:
        say(f"systemd knows of no other run of {definition.unit} that has ended: nothing is recorded")
    return 0 if written else 1


def _missed(host: Host, definition: Definition, done: list[Evidence]) -> tuple[str, Ending]:
    """A run that ended as the first of `done` did while that one was told of: systemd does not start what it is starting
    already, so there is no other recorder for it. An empty id if there is none."""
    invocation, ending = _asked(host, definition)
    # One that ended in the other way is the other instance's. Those that are done need not be on record: the disk may be full.
    ours = (ending.result == "success") == (done[0].ending.result == "success")
    return (invocation, ending) if ours and invocation not in {each.invocation for each in done} else ("", Ending())


def _evidence(
    host: Host, definition: Definition, invocation: str, ending: Ending, before: dict[str, Any] | None, told: bool
) -> Evidence | None:
    """What there is to record: the run `invocation`, or that systemd refused to start one; None if neither."""
    on_record = outcomes.of(host, definition.unit, invocation) is not None or invocation == _last_invocation(before)
    if invocation and not on_record:
        return evidence.gather(host, definition, invocation, ending)
    # Something that the unit requires failed, and what systemd knows is about an older run. Times would not tell: clocks
    # are set. Only a recorder that was started by hand, out of a shell, has nothing else.
    refusal = journal.refusal(host, definition.service)
    if not told and (refusal is None or refusal.time <= (seconds_of((before or {}).get("ended")) or 0.0)):
        return None
    # Its unit can be started by hand, too, and is given the same: then there is no refusal that is news.
    if refusal is None and invocation and journal.read(host, invocation, lines=1):
        return None
    if refusal is not None and outcomes.refused(host, definition.unit, refusal.cursor):
        return None
    found = Digest(systemd=[refusal.text], refusal=refusal.cursor) if refusal is not None else Digest()
    return evidence.weigh(host, definition, "", Ending("dependency"), found)


def _last_invocation(before: dict[str, Any] | None) -> str | None:
    """systemd's id of the last run on record that it started; earlier versions kept it for that run's outcome only."""
    known: str | None = before.get("last_invocation") or before.get("invocation_id") if before else None
    return known


def _asked(host: Host, definition: Definition) -> tuple[str, Ending]:
    """What systemd knows of the last run itself; an empty id if it has not ended yet, or is on record."""
    names = "ActiveState,InvocationID,Result,ExecMainCode,ExecMainStatus"
    done = host.command(["systemctl", "show", f"--property={names}", definition.service], timeout=30)
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    invocation = values.get("InvocationID", "")
    if values.get("ActiveState") in systemd.RUNNING or outcomes.of(host, definition.unit, invocation) is not None:
        return "", Ending()
    codes = {"1": "exited", "2": "killed", "3": "dumped"}
    code = codes.get(values.get("ExecMainCode", ""), "")
    status = values.get("ExecMainStatus", "") if code else ""
    return invocation, Ending(values.get("Result", ""), code, status)


def describe(host: Host, definition: Definition, known: Evidence, before: dict[str, Any] | None) -> dict[str, Any]:
    """The outcome of a run, `before` being the one before it. Nobody is told yet."""
    found, state, summary = known.assessment, known.state, known.digest.summary
    ended = host.now()
    started = state.started if state else known.digest.first or ended
    repository = outcomes.repository_id(host, definition)
    # What was saved into another repository is not in this one.
    last_ok = None if outcomes.elsewhere(before, repository) else (before or {}).get("last_ok")
    return {
        "format": FORMAT,
        "unit": definition.unit,
        "job": definition.job,
        "repository": definition.repository,
        "engine": definition.engine,
        # A record that is lost says nothing of the one before.
        "repository_id": repository or (before or {}).get("repository_id"),
        "outcome": found.outcome,
        "reason": found.reason,
        "message": evidence.without_secrets(host, definition, found.message),
        "started": timestamp(started),
        "ended": timestamp(ended),
        "duration_seconds": round(max(ended - started, 0.0), 1),
        "exit_status": None if definition.dumps_only else known.ending.exit_status,
        "service_result": known.ending.result or None,
        "invocation_id": known.invocation or None,
        # That of the run before, where systemd refused this one: it goes on telling of that.
        "last_invocation": known.invocation or _last_invocation(before),
        "refusal": known.digest.refusal,
        "snapshot": (summary or {}).get("snapshot_id"),
        "summary": {name: summary[name] for name in NUMBERS if name in summary} if summary else None,
        "missing": state.missing if state else [],
        "dumps": state.dumps if state else {},
        "dumps_failed": state.dumps_failed if state else [],
        "last_ok": timestamp(ended) if found.outcome == OK else last_ok,
        "told": None,
        "versions": {"holdfast": version(), **tool_versions(host, definition)},
    }


def _is_bad(definition: Definition, outcome: dict[str, Any]) -> bool:
    accepted = (OK, INCOMPLETE) if definition.incomplete_is == "ok" else (OK,)
    return outcome["outcome"] not in accepted


def keep(host: Host, definition: Definition, outcome: dict[str, Any], before: dict[str, Any] | None) -> bool:
    """Write the outcome after the one `before`. Returns whether it is written: a full disk keeps nobody from being told."""
    try:
        outcomes.write(host, definition.unit, outcome, before)
    except OSError as error:
        complain(f"the outcome of {definition.unit} cannot be written: {error}")
        return False
    return True


def tell(host: Host, definition: Definition, outcome: dict[str, Any], before: dict[str, Any] | None) -> bool:
    """Call the user's command if it is a bad outcome, and write down whether that went well. Returns whether it is written.

    The outcome is on record already: this may take its time, in which other runs end and are recorded, and may fail.
    """
    if not _is_bad(definition, outcome) or definition.on_failure is None:
        return True
    outcome["told"] = _call(definition, definition.on_failure, outcome)
    with outcomes.turn(host, definition.unit):
        return keep(host, definition, outcome, before)


def _call(definition: Definition, hook: Hook, outcome: dict[str, Any]) -> bool:
    names = ("outcome", "reason", "message", "started", "ended", "snapshot", "last_ok")
    variables = hooks.environment(
        definition, host=definition.host, **{name: str(outcome[name] or "") for name in names}
    )
    problem = hooks.run(hook, variables)
    if problem:
        complain(f"nobody was told of this: {problem}")
    return problem is None
