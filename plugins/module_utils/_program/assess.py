# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is known of a run to its outcome, reason and message. A pure function of its evidence."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from .. import _causes
from .._outcome import FAILED, INCOMPLETE, OK, meaning
from .definition import Definition
from .journal import LOST, SKIPPED, Digest
from .state import State

LONGEST_LINE = 300
LONGEST_MESSAGE = 1000

_UNREACHABLE = (
    r"connection (?:refused|reset|timed out)|no such host|no route to host|network is unreachable|i/o timeout|"
    r"tls: |x509: |dial (?:tcp|udp)|server misbehaving|deadline exceeded|\b(?:403|50[0-4])\b|transport endpoint|stale|"
    r"ssh: connect to host|could not resolve hostname|talking HTTP to rclone|unable to start the sftp session|holdfast: \S+--\S+|"
    rf"{_causes.STORE_TROUBLE}"
)
# What restic's own lines say when its exit code only says "failed"; the first that matches counts.
_TEXTS = (
    ("disk full", r"no space left on device|disk quota exceeded|insufficient storage|\b507\b"),
    # A lock that cannot be written says nothing of other locks.
    ("locked", r"repository is already locked"),
    ("wrong password", r"wrong password|no key found"),
    # What rest-server says of its users is nothing about what opens the repository.
    ("wrong credentials", r"\b401\b|unauthorized"),
    ("source missing", r"all source directories/files do not exist|nothing to backup"),
    ("no repository", r"repository does not exist"),
    ("interrupted", r"signal \w+ received"),
    ("unreachable", _UNREACHABLE),
)
_CODES = {10: "no repository", 11: "locked", 12: "wrong password", 130: "interrupted"}
# What the Go runtime says of a panic, and restic of a signal or of its own cancellation.
_CRASHED, _CANCELLED = 2, 130
_SKIPPED = re.compile(rf"\A(.*){SKIPPED}\Z", re.DOTALL)
_ENDING_SIGNALS = ("TERM", "INT", "HUP")
# Exit statuses that systemd itself gives a process it could not start.
_CREDENTIALS = 243
_SYSTEMD_STATUSES = range(200, 256)


@dataclasses.dataclass(frozen=True)
class Ending:
    """How systemd saw the service end: SERVICE_RESULT, EXIT_CODE and EXIT_STATUS; empty where it set none."""

    result: str = ""
    code: str = ""
    status: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str], prefix: str = "") -> Ending:
        """Out of the environment of ExecStopPost=, or (prefix MONITOR_) of a unit started by OnSuccess=/OnFailure=."""
        names = ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS")
        return cls(*(environment.get(f"{prefix}{name}", "") for name in names))

    @property
    def exit_status(self) -> int | None:
        """Exit status of restic; None when it did not end by itself or never ran."""
        return int(self.status) if self.code == "exited" and self.status.isdigit() else None


@dataclasses.dataclass(frozen=True)
class Assessment:
    """The outcome of a run; `reason` is None for ok, `message` is for people."""

    outcome: str
    reason: str | None = None
    message: str = ""


def assess(
    definition: Definition, ending: Ending, state: State | None, digest: Digest, lost: str | None = None
) -> Assessment:
    """Weigh the evidence. `lost` is the reason if a file without which the unit cannot start is not there."""
    found = _stopped(state) or _run(definition, ending, digest, lost)
    if state is not None and found.outcome != FAILED:
        found = _with_findings(found, state, definition)
    if found.outcome == OK and state is None:
        found = Assessment(FAILED, "unknown", "what was found while it ran is gone, so nobody knows what was missing")
    # What is incomplete ends badly by itself, but where that is accepted.
    well = (OK, INCOMPLETE) if definition.incomplete_is == "ok" else (OK,)
    if found.outcome in well and ending.result not in ("success", ""):
        found = Assessment(FAILED, "unknown", _text([*digest.systemd, f"systemd says: {ending.result}", found.message]))
    return found


def _stopped(state: State | None) -> Assessment | None:
    if state is None or state.stopped is None:
        return None
    return Assessment(FAILED, state.stopped, _text([state.message]))


def _run(definition: Definition, ending: Ending, digest: Digest, lost: str | None) -> Assessment:
    status = ending.exit_status
    words = [digest.fatal or "", *digest.lines]
    if ending.result in ("timeout", "watchdog") and digest.summary is None:
        # A server that never answered is the reason, or what the tool gave up for and did not end; the limit is only how it ended.
        answered = digest.percent_done is not None or not re.search(_UNREACHABLE, "\n".join(words), re.IGNORECASE)
        given_up = _reason_in([digest.fatal or ""])
        reason = "unreachable" if not answered else "timeout" if given_up in (None, "interrupted") else given_up
        return Assessment(FAILED, reason, _text(["it was ended by its time limit", *words]))
    if ending.result == "oom-kill":
        return Assessment(FAILED, "killed", "the kernel ended it: out of memory")
    if ending.code in ("killed", "dumped"):
        reason = "interrupted" if ending.status in _ENDING_SIGNALS else "killed"
        return Assessment(FAILED, reason, _text([f"ended by signal {ending.status}", *words]))
    if status is None or status in _SYSTEMD_STATUSES:
        return Assessment(
            FAILED, _unstarted_reason(status, lost), _text(digest.systemd or ["systemd did not start it"])
        )
    if definition.dumps_only:
        # What ended is the check of what the dumps left, which is looked at below.
        return Assessment(OK)
    outcome = meaning(definition.program, status).outcome
    if outcome == FAILED:
        if _gave_up_on_source(definition, status, digest, words):
            gave_up = "restic gave up on what it could not read: no snapshot was made"
            return Assessment(FAILED, "source unreadable", _text([*digest.errors, gave_up, *words]))
        # First what it means: what a tool says of a connection that ended is long, and says little.
        cause = _causes.cause("\n".join(words))
        meant = [cause.words] if cause is not None else []
        known = _CODES.get(status) if definition.borg is None else digest.reason
        if digest.fatal and definition.borg is not None:
            # borgmatic says in many lines that it was borg who failed.
            words = [digest.fatal]
            # All that borg itself knows of a server that it does not reach.
            if cause is not None and known == "unreachable":
                known = cause.reason
        reason = known or _reason_in(words) or "unknown"
        return Assessment(
            FAILED, reason, _text([*meant, *words, *digest.errors] if any(words) else [f"exit status {status}"])
        )
    if digest.summary is None:
        return Assessment(FAILED, "unknown", _text([f"exit status {status} without a summary", *words]))
    if not digest.summary.get("snapshot_id"):
        return Assessment(FAILED, "unknown", _text([f"exit status {status}, but no snapshot was made", *words]))
    skipped = [line for line in digest.lines if _skips(definition, line)]
    if definition.borg is not None and digest.errors:
        reason = "source missing" if digest.missing == len(digest.errors) else "source unreadable"
        return Assessment(INCOMPLETE, reason, _text([*digest.errors, *words]))
    # Restic before 0.19 leaves out a path that it does not see, in its sandbox say, and ends with 0.
    if definition.borg is None and (outcome == INCOMPLETE or skipped):
        reason = "source missing" if skipped and not digest.errors else "source unreadable"
        return Assessment(INCOMPLETE, reason, _text([*digest.errors, *skipped, *words]))
    if not digest.whole:
        return Assessment(INCOMPLETE, "unknown", _text([LOST, *words]))
    empty = digest.summary.get("total_files_processed") == 0
    return Assessment(OK, None, "no file is in this snapshot: what is to be saved is empty" if empty else "")


def _gave_up_on_source(definition: Definition, status: int, digest: Digest, words: list[str]) -> bool:
    """Whether a file that it could not read ended restic as a whole: with 0.19.1 a race, a panic or its own cancellation."""
    if definition.borg is not None or not digest.errors:
        return False
    if status == _CRASHED:
        return any(line.startswith("panic: ") for line in digest.lines)
    return status == _CANCELLED and (digest.fatal or "").endswith("context canceled") and _reason_in(words) is None


def _skips(definition: Definition, line: str) -> bool:
    """Whether restic says that a path which is not optional is not there."""
    found = _SKIPPED.match(line)
    return found is not None and found[1] not in definition.optional_paths


def _unstarted_reason(status: int | None, lost: str | None) -> str:
    return "lost key file" if status == _CREDENTIALS else lost or "unknown"


def _reason_in(lines: list[str]) -> str | None:
    cause = _causes.cause("\n".join(lines))
    if cause is not None:
        return cause.reason
    for reason, pattern in _TEXTS:
        if any(re.search(pattern, line, re.IGNORECASE) for line in lines):
            return reason
    return None


def _with_findings(found: Assessment, state: State, definition: Definition) -> Assessment:
    if state.missing:
        lines = [found.message] if found.message else []
        lines += [f"declared but not there: {path}" for path in state.missing]
        found = Assessment(INCOMPLETE, found.reason or "source missing", _text(lines))
    without = state.without_snapshot(definition)
    if without:
        lines = [f"dump failed: {', '.join(without)}", found.message]
        found = Assessment(FAILED, "dump", _text(lines))
    if state.post_failed:
        found = Assessment(FAILED, "post hook", _text([*state.post_failed, found.message]))
    return found


def _text(lines: list[str]) -> str:
    """The first different lines, bounded, without what looks like credentials in a URL."""
    cleaned = (re.sub(r"://[^/@\s]+@", "://***@", " ".join(line.split())) for line in lines)
    cut = (line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…" for line in cleaned if line)
    text = "\n".join(dict.fromkeys(cut))
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 1]}…"
