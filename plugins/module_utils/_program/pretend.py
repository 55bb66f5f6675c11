# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast run JOB --dry-run`: what a run would save, told by a copy of its unit in the same sandbox."""

from __future__ import annotations

import os
import re

from . import borg, evidence, journal, outcomes, show, sources
from .definition import Definition
from .host import RUNTIME, Host, ProgramError
from .journal import Digest
from .text import complain, one_line, say

TRANSIENT = "/run/systemd/system"
# Borg's list of every file, which would be too much for the journal, and for memory.
LISTS = "/var/lib/holdfast"
_DROPPED = re.compile(
    r"\A(?:ExecStartPre|ExecStartPost|ExecStop|ExecStopPost|OnSuccess|OnFailure|OnSuccessJobMode|OnFailureJobMode)\s*="
)
# The words of a unit that save, and those that only pretend to.
_SAVING = {
    "restic": (re.compile(r"(?<=\s)backup(?=\s)"), "backup --dry-run"),
    "borg": (re.compile(r"(?<=\s)create\s+--json(?=\s*\Z)"), "--dry-run create --list"),
}


def copy_of(unit: str, engine: str, output: str | None = None) -> str:
    """The text of a service without hooks and recorder, whose tool only pretends, and writes to the file `output`.

    Raises ValueError for another service.
    """
    saving, pretending = _SAVING[engine]
    lines, found = [], 0
    for line in re.sub(r"\\\n\s*", " ", unit).split("\n"):
        if _DROPPED.match(line):
            continue
        is_start = re.match(r"\AExecStart\s*=\s*\S", line)
        changed, count = saving.subn(pretending, line, count=1) if is_start else (line, 0)
        found += count
        # systemd removes it at the end, and a true run may be going on in its own.
        lines.append(re.sub(r"\A(RuntimeDirectory\s*=\s*)", r"\g<1>dry-run-", changed))
    if found != 1:
        raise ValueError(f"its ExecStart= is no backup by {engine}")
    # Otherwise systemd forgets which invocation it was as soon as it has ended well.
    lines += ["[Service]", "RemainAfterExit=yes", *([f"StandardOutput=truncate:{output}"] if output else [])]
    return "\n".join(lines) + "\n"


def pretend(host: Host, definition: Definition) -> int:
    """Hooks and dumps do not run; everything else is the unit's own, the sandbox included. Returns the exit code."""
    if definition.dumps_only:
        say(f"{definition.unit}: dry run, nothing is saved: it has only dumps, which a dry run leaves out")
        return 0
    output = f"{LISTS}/dry-run-{definition.unit}.list" if definition.borg is not None else None
    cat = host.command(["systemctl", "cat", "--no-pager", "--", definition.service], timeout=60)
    try:
        copy = copy_of(cat.stdout, definition.engine, output)
    except ValueError as error:
        raise ProgramError(f"{definition.service} cannot be tried: {error}; run the site playbook") from error
    extra, missing = sources.gather(host, definition)
    # A true run may be about to read its own. Borg's is named in its configuration, which both share.
    pretended = f"{RUNTIME}/dry-run-{definition.unit}.sources" if definition.borg is None else None
    if pretended:
        copy = copy.replace(f"{RUNTIME}/{definition.unit}.sources", pretended)
    name = f"holdfast-dry-run@{definition.unit}.service"
    say(f"{definition.unit}: dry run, nothing is saved")
    # Another one would be ended by this one's end.
    with outcomes.turn(host, f"dry-run-{definition.unit}"):
        sources.write(host, definition, extra, pretended)
        try:
            status, said = _pretend(host, definition, name, copy, output)
        finally:
            if pretended:
                host.path(pretended).unlink(missing_ok=True)
    for line in show.summary(said.summary) if said.summary else []:
        say(f"  {line}")
    problems = [*(f"declared but not there: {path}" for path in missing), *said.errors, *said.lines]
    problems += [said.fatal or evidence.lost(host, definition) or "it failed; see: holdfast log"] if status else []
    for problem in problems:
        complain(f"  {problem}")
    # borgmatic ends well although borg warned.
    warned = definition.borg is not None and said.errors and definition.incomplete_is != "ok"
    lacking = missing and definition.incomplete_is != "ok"
    return 1 if status or lacking or warned else 0


def _pretend(host: Host, definition: Definition, name: str, copy: str, output: str | None) -> tuple[int, Digest]:
    """Run the copy, and tell what is in borg's list of files, `output`; exit status, and what it said otherwise."""
    try:
        if output is not None:
            # Names of files are for root alone.
            host.write(output, b"", mode=0o600)
        status, said = _run(host, definition, name, copy)
        if output is not None:
            _tell_list(host, output, said)
        return status, said
    finally:
        if output is not None:
            host.path(output).unlink(missing_ok=True)


def _run(host: Host, definition: Definition, name: str, copy: str) -> tuple[int, Digest]:
    """Run the copy as the service `name`; exit status, and what it said in the journal."""
    host.write(f"{TRANSIENT}/{name}", copy.encode("utf-8"), mode=0o644)
    try:
        # One that was cut off, with its shell say, is still there, and would answer for this one.
        host.command(["systemctl", "stop", "--", name], timeout=120)
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
    return done.status, journal.digest(entries, os.path.basename(definition.binary), name)


def _tell_list(host: Host, output: str, said: Digest) -> None:
    """Tell which files borg would save, which is all that its dry run knows; its warnings are there, too."""
    count = 0
    with open(host.path(output), encoding="utf-8", errors="replace") as lines:
        for line in lines:
            path = borg.listed(line)
            if path:
                count += 1
                say(f"  {one_line(path)}")
            elif path is None and not borg.understand(said, line.rstrip("\n")) and line.strip():
                said.lines.append(line.strip())
    say(f"  files and directories: {count}; of borg nobody knows their size before")
