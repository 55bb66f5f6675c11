# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast log` and `holdfast snapshots`: what happened, and what there is."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from typing import Any

from .._model import parse_time
from . import borg, journal, outcomes, restic, systemd, text
from . import definition as definitions
from .definition import Definition
from .host import Host, ProgramError, seconds_of
from .restore import ahead
from .text import say

LOG_LINES = 5000


def log(host: Host, job: str) -> int:
    """Print the journal of the last run of each run unit of `job`, dumps included, restic's JSON as sentences."""
    for number, definition in enumerate(definitions.resolve(host, job)):
        if number:
            say()
        say(f"== {definition.unit}")
        for line in _log(host, definition):
            say(line)
    return 0


def _log(host: Host, definition: Definition) -> list[str]:
    state = systemd.ask(host, [definition], closely=True)[definition.unit]
    last = outcomes.last(host, definition.unit)
    recorded = str((last or {}).get("invocation_id") or "")
    # One that is not on record is later: the disk was full, say.
    newest = state.running or not recorded or outcomes.of(host, definition.unit, state.invocation) is None
    invocation = state.invocation if newest and state.invocation else recorded
    entries = journal.read(host, invocation, lines=LOG_LINES)
    if last is not None and not recorded and not state.running:
        ended = seconds_of(last["ended"])
        # Systemd did not even start it, and its journal has the run before at most.
        if ended is not None and not (entries and entries[-1].time > ended):
            return [f"{_local(ended)} {line}" for line in last["message"].splitlines()] + [
                _outcome(host, definition, last)
            ]
    if not entries:
        return ["no run in the journal"]
    if definition.dumps:
        entries = _with_dumps(host, definition, entries)
    lines = [line for entry in entries for line in _sentences(entry, os.path.basename(definition.binary))]
    if last is not None and recorded == invocation:
        lines.append(_outcome(host, definition, last))
    return lines


def _outcome(host: Host, definition: Definition, last: dict[str, Any]) -> str:
    reason = f", {last['reason']}" if last["reason"] else ""
    before = outcomes.elsewhere(last, outcomes.repository_id(host, definition))
    return f"outcome: {last['outcome']}{reason}{', into a repository that was here before' if before else ''}"


def _local(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _with_dumps(host: Host, definition: Definition, entries: list[journal.Entry]) -> list[journal.Entry]:
    begin, end = entries[0].time, entries[-1].time
    for dump in definition.dumps:
        found = journal.read(host, "0" * 32, lines=LOG_LINES, more=("+", f"_SYSTEMD_UNIT={dump.unit}"))
        during = [entry for entry in found if begin <= entry.time <= end]
        entries = [*entries, *(during if definition.borg is None else _in_sentences(during))]
    return sorted(entries, key=lambda entry: entry.time)


def _in_sentences(entries: list[journal.Entry]) -> list[journal.Entry]:
    """Lines of a dump of borg's, with sentences for the object that it prints over many of them."""
    created = borg.created([entry.text for entry in entries])
    if created is None:
        return entries
    where, said = created
    last = entries[where.stop - 1]
    sentences = [dataclasses.replace(last, text=line) for line in summary(said)]
    return [*entries[: where.start], *sentences, *entries[where.stop :]]


def _sentences(entry: journal.Entry, program: str) -> list[str]:
    when = _local(entry.time)
    content = journal.message(entry.text) if entry.program == program else None
    if entry.program == program and content is None:
        said = journal.Digest()
        if borg.understand(said, entry.text):
            words = [said.fatal or "", *said.errors, *said.lines, *(summary(said.summary) if said.summary else [])]
            return [f"{when} {entry.program}: {line}" for line in words if line]
    lines = _said(content) if content is not None else [entry.text]
    return [f"{when} {entry.program}: {line}" for line in lines]


def _said(content: dict[str, Any]) -> list[str]:
    kind = content["message_type"]
    if kind == "status":
        done = f"{100 * float(content.get('percent_done', 0)):.0f} % done"
        return [f"{done}, {content.get('files_done', 0)} files, {text.size(content.get('bytes_done', 0))}"]
    if kind == "error":
        return [f"error: {journal.error_text(content)}"]
    if kind == "exit_error":
        return [line for line in str(content.get("message", "")).splitlines() if line]
    if kind == "summary":
        return summary(content)
    return [json.dumps(content, sort_keys=True)]


def summary(content: dict[str, Any]) -> list[str]:
    """Restic's summary of a backup in two sentences, or one for a dry run."""
    dry = bool(content.get("dry_run"))
    if "files_new" not in content:
        # Borg does not say which are new.
        processed, added = text.size(content.get("total_bytes_processed")), text.size(content.get("data_added"))
        return [
            f"files: {content.get('total_files_processed', 0)}, {processed} in all; added {added}",
            f"snapshot {str(content.get('snapshot_id', ''))[:8]}",
        ]
    lines = [
        f"files: {content.get('files_new', 0)} new, {content.get('files_changed', 0)} changed,"
        f" {content.get('files_unmodified', 0)} unchanged, {text.size(content.get('total_bytes_processed'))} in all;"
        f" {'would add' if dry else 'added'} {text.size(content.get('data_added_packed', content.get('data_added')))}"
    ]
    if not dry:
        lines.append(f"snapshot {str(content.get('snapshot_id', ''))[:8]}")
    return lines


def snapshots(host: Host, job: str, *, as_json: bool) -> int:
    """Print the snapshots of `job` in one repository."""
    definition = definitions.resolve_one(host, job)
    found = (restic if definition.borg is None else borg).snapshots(host, definition)
    if as_json:
        say(json.dumps({"unit": definition.unit, "snapshots": found}, indent=1))
        return 0
    if not found:
        raise ProgramError(f"{definition.unit} has no snapshots yet")
    rows = [
        (
            each["id"][:8],
            _local(parse_time(each["time"])) + (" (in the future)" if ahead(host, each) else ""),
            str(each["hostname"]),
            each["dump"] or "files",
            text.size(each["total_bytes"]),
            " ".join(each["paths"]),
        )
        for each in found
    ]
    say(text.table(("ID", "TIME", "HOST", "WHAT", "SIZE", "PATHS"), rows))
    return 0
