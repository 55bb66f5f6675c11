# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast run JOB`: starts run units now, or (--dry-run) shows what restic would do, by a copy of the unit."""

from __future__ import annotations

import os
import re
from typing import Any

from .._outcome import INCOMPLETE, OK
from . import definition as definitions
from . import evidence, journal, outcomes, show, sources, systemd, text
from .definition import Definition
from .host import Host, ProgramError
from .text import complain, say

# Seconds for the recorder to write the outcome after the unit has ended.
RECORD_PATIENCE = 120
TRANSIENT = "/run/systemd/system"
_DROPPED = re.compile(
    r"\A(?:ExecStartPre|ExecStartPost|ExecStop|ExecStopPost|OnSuccess|OnFailure|OnSuccessJobMode|OnFailureJobMode)\s*="
)
_BACKUP = re.compile(r"(?<=\s)backup(?=\s)")


def run(host: Host, job: str, *, wait: bool, dry_run: bool) -> int:
    """Start all run units of `job`. Returns 1 if, having waited, one of them was neither ok nor acceptable."""
    chosen = definitions.resolve(host, job)
    known = systemd.ask(host, chosen)
    for each in chosen:
        if not known[each.unit].loaded:
            raise ProgramError(f"systemd has no {each.service}; run the site playbook for this host")
    if dry_run:
        return max(_dry_run(host, each) for each in chosen)
    for each in chosen:
        say(f"{each.unit} {'is already running' if known[each.unit].running else 'is being started'}")
    before = {each.unit: outcomes.last(host, each.unit) for each in chosen}
    argv = ["systemctl", "start", *([] if wait else ["--no-block"]), "--", *(each.service for each in chosen)]
    done = host.command(argv, timeout=max(each.longest for each in chosen) if wait else 60)
    if not wait:
        if done.status:
            raise ProgramError(f"systemctl start failed: {done.stderr.strip()}")
        say(f"see: holdfast status {job}")
        return 0
    return max(_report(host, each, before[each.unit], done.stderr) for each in chosen)


def _report(host: Host, definition: Definition, before: dict[str, Any] | None, stderr: str) -> int:
    after = before
    for _second in range(RECORD_PATIENCE):
        after = outcomes.last(host, definition.unit)
        if after is not None and after != before:
            break
        host.sleep(1)
    if after is None or after == before:
        complain(f"{definition.unit}: no outcome was recorded. {stderr.strip()}")
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


def dry_run_unit(unit: str) -> str:
    """The text of a service without hooks and recorder, whose restic only pretends. Raises ValueError for another one."""
    lines, found = [], 0
    for line in re.sub(r"\\\n\s*", " ", unit).split("\n"):
        if _DROPPED.match(line):
            continue
        is_start = re.match(r"\AExecStart\s*=\s*\S", line)
        changed, count = _BACKUP.subn("backup --dry-run", line, count=1) if is_start else (line, 0)
        found += count
        lines.append(changed)
    if found != 1:
        raise ValueError("its ExecStart= is no restic backup")
    # Otherwise systemd forgets which invocation it was as soon as it has ended well.
    return "\n".join([*lines, "[Service]", "RemainAfterExit=yes"]) + "\n"


def _dry_run(host: Host, definition: Definition) -> int:
    """Hooks and dumps do not run; everything else is the unit's own, the sandbox included."""
    if definition.dumps_only:
        say(f"{definition.unit}: dry run, nothing is saved: it has only dumps, which a dry run leaves out")
        return 0
    if definition.borg is not None:
        raise ProgramError(
            f"{definition.unit} is a job of borg, which has no dry run that tells sizes; leave --dry-run out", 2
        )
    cat = host.command(["systemctl", "cat", "--no-pager", "--", definition.service], timeout=60)
    try:
        copy = dry_run_unit(cat.stdout)
    except ValueError as error:
        raise ProgramError(f"{definition.service} cannot be tried: {error}; run the site playbook") from error
    extra, missing = sources.gather(host, definition)
    sources.write(host, definition, extra)
    name = f"holdfast-dry-run@{definition.unit}.service"
    host.write(f"{TRANSIENT}/{name}", copy.encode("utf-8"), mode=0o644)
    try:
        host.command(["systemctl", "daemon-reload"], timeout=120)
        done = host.command(["systemctl", "start", "--", name], timeout=definition.longest)
        shown = host.command(["systemctl", "show", "--property=InvocationID", "--value", "--", name], timeout=60)
        journal.sync(host)
        entries = journal.read(host, shown.stdout.strip())
    finally:
        host.command(["systemctl", "stop", "--", name], timeout=120)
        host.path(f"{TRANSIENT}/{name}").unlink()
        host.command(["systemctl", "reset-failed", "--", name], timeout=60)
        host.command(["systemctl", "daemon-reload"], timeout=120)
    said = journal.digest(entries, os.path.basename(definition.binary), name)
    say(f"{definition.unit}: dry run, nothing is saved")
    for line in show.summary(said.summary) if said.summary else []:
        say(f"  {line}")
    problems = [*(f"declared but not there: {path}" for path in missing), *said.errors, *said.lines]
    problems += [said.fatal or evidence.lost(host, definition) or "it failed; see: holdfast log"] if done.status else []
    for problem in problems:
        complain(f"  {problem}")
    return 1 if done.status or missing else 0
