# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast prepare UNIT`: everything that has to be right before restic runs. ExecStartPre= of a run unit, as root."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from .. import _record, _secrets
from . import borg, hooks, journal, running, sources
from .definition import Definition, Dump
from .host import ESCROW, Host, ProgramError
from .mounts import mounted
from .state import State
from .text import complain, say


class _Refused(Exception):
    """The run cannot take place: a reason of the outcome, and what to say."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def prepare(host: Host, definition: Definition, environment: Mapping[str, str]) -> int:
    """Check, run `pre` hooks and dumps, write the list of sources. Returns the exit code: not 0 stops the run."""
    say(journal.BEGINNING)
    state = State(definition.unit, environment.get("INVOCATION_ID", ""), host.now())
    if running.noted(host, definition.unit) is not None:
        # What happens once in years is imported when it does.
        from . import interrupted

        if running.cut_off(host, definition.unit) is not None:
            interrupted.settle(host, definition)
        else:
            interrupted.settle_unrecorded(host, definition, state.invocation)
    state.begin(host)
    try:
        running.begin(host, definition.unit, state.invocation, state.started)
    except OSError as error:
        # A full disk is no reason not to back up.
        complain(f"nobody will know of this run if the host goes down: {error}")
    try:
        _wait(host, definition)
        _check(host, definition)
        _pre(definition)
        if definition.borg is not None:
            borg.write_environment(host)
        _dumps(host, definition, state)
        # Hooks and dumps may have taken hours. systemd reads the files anew for what comes next.
        _settle(host, definition)
    except _Refused as refused:
        state.stopped, state.message = refused.reason, str(refused)
        state.save(host)
        complain(f"{refused.reason}: {refused}")
        return 1
    # After the hooks, which may be what makes the sources.
    extra, state.missing = sources.gather(host, definition)
    sources.write(host, definition, extra)
    state.save(host)
    for path in state.missing:
        complain(f"declared but not there: {path}")
    return 0


def _wait(host: Host, definition: Definition) -> None:
    """Wait while a playbook changes what the server takes: it would be refused, or cut off, in the middle of the run."""
    path = host.path(f"{_secrets.HELD}/{definition.repository}")
    # A playbook that fails each time, and is run again and again, renews the file; and systemd ends a run at its timeout.
    limit = min(_secrets.HELD_SECONDS, (definition.timeout_seconds or definition.longest) // 2)
    for waited in range(limit):
        # The clock may have been set back since.
        if _age(host, path) >= _secrets.HELD_SECONDS:
            return
        if not waited:
            say("the server is being told of new secrets: the run waits until it goes by them")
        host.sleep(1)


def _age(host: Host, path: Path) -> float:
    try:
        return abs(host.now() - path.stat().st_mtime)
    except OSError:
        return math.inf


def _check(host: Host, definition: Definition) -> None:
    if definition.mount is not None and not mounted(host, definition.mount):
        raise _Refused("unreachable", f"{definition.mount} is not mounted; mount it")
    for path in definition.secret_files:
        if not host.path(path).is_file():
            raise _Refused("lost key file", f"{path} is not there; bring it back with the playbook restore_identity")
    if not host.path(definition.record).is_file():
        raise _Refused("no record", f"{definition.record} is not there; run the site playbook for this host")
    if definition.escrow_mode in ("age", "controller"):
        _check_escrow(host, definition)
    _settle(host, definition)


def _settle(host: Host, definition: Definition) -> None:
    """Go by the REST password that the server takes now."""
    if definition.rest is None:
        return
    # What speaks HTTP is slow to import, and most calls of the program need none of it.
    from . import rest

    problem = rest.settle(host, definition)
    if problem:
        raise _Refused("wrong credentials", problem)


def _check_escrow(host: Host, definition: Definition) -> None:
    try:
        identity = _secrets.Identity.parse(host.path(definition.identity_file).read_text(encoding="utf-8"))
        accepted = identity.accepted_fingerprints(host.now())
    except FileNotFoundError:
        raise _Refused("lost key file", f"{definition.identity_file} is not there; run the site playbook") from None
    except (OSError, _secrets.SecretsError) as error:
        raise _Refused("lost key file", f"{definition.identity_file} cannot be used: {error}") from error
    if definition.borg is not None and identity.borg_key != _recorded_key(host, definition):
        raise _Refused(
            "no escrow",
            f"the escrow bundle of {definition.repository} does not hold the key of its repository; run the site playbook",
        )
    known = (host.read_json(ESCROW) or {}).get("repositories")
    kept = known.get(definition.repository) if isinstance(known, dict) else None
    if kept is None or kept not in accepted:
        raise _Refused(
            "no escrow",
            f"the controller keeps no escrow bundle with today's secrets of {definition.repository}; run the site playbook",
        )


def _recorded_key(host: Host, definition: Definition) -> str:
    try:
        return _record.parse(host.path(definition.record).read_text(encoding="ascii")).key
    except (OSError, ValueError) as error:
        raise _Refused("no record", f"{definition.record} cannot be used: {error}; run the site playbook") from error


def _pre(definition: Definition) -> None:
    for number, hook in enumerate(definition.pre, 1):
        problem = hooks.run(hook, hooks.environment(definition))
        if problem:
            raise _Refused("pre hook", f"pre hook {number}: {problem}")


def _dumps(host: Host, definition: Definition, state: State) -> None:
    for dump in definition.dumps:
        try:
            state.dumps[dump.name] = _dump(host, definition, dump)
        except ProgramError as error:
            complain(f"dump {dump.name} failed: {error}; see: journalctl -u {dump.unit}")
            state.dumps_failed.append(dump.name)
        state.save(host)


def _dump(host: Host, definition: Definition, dump: Dump) -> str:
    """Run the companion unit; returns the id of its snapshot. Raises ProgramError if it made none, or an empty one."""
    program = os.path.basename(definition.binary)
    place = journal.cursor(host)
    done = host.command(["systemctl", "start", "--", dump.unit], timeout=definition.longest)
    if done.status == 124:
        host.command(["systemctl", "stop", "--", dump.unit], timeout=120)
    if done.status:
        raise ProgramError(done.stderr.strip() or f"systemctl ended with exit status {done.status}")
    if not place:
        raise ProgramError("the journal cannot be read, so nobody knows whether it made a snapshot")

    def asked() -> journal.Digest:
        entries = journal.since(host, place, dump.unit)
        if definition.borg is not None:
            created = borg.created([entry.text for entry in entries])
            return journal.Digest(summary=created[1] if created else None)
        return journal.digest(entries, program, dump.unit)

    summary = journal.until_summary(host, asked).summary or {}
    if not summary.get("snapshot_id"):
        raise ProgramError("it ended well, but made no snapshot")
    # A command that pipes may end well where the one that it asks did not. Restic takes no empty dump, and says so; borg does.
    if definition.borg is not None and not borg.size_of(host, definition, summary["archive"]):
        raise ProgramError("it ended well, but its command wrote nothing: the snapshot is empty")
    return str(summary["snapshot_id"])
