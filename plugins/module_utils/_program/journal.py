# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restic and systemd said about one invocation, read from the journal."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

from .host import Host
from .text import one_line

# The summary comes last; of a run that complains about more files than this, the latest lines are looked at.
LINES = 2000
TIMEOUT = 60
# It may lag behind a process that has just ended: looks for its last line, and seconds between them.
LOOKS = 15
PAUSE = 0.2
_WARNING = 4
# How restic ends its line about a path that is not there.
SKIPPED = " does not exist, skipping"
# What prepare says first. Where it is gone, so may be what the engine warned of: the oldest lines go first.
BEGINNING = "the run begins"
LOST = (
    "the journal has lost the beginning of this run, so nobody knows what it warned of: give it more room"
    " (SystemMaxUse=, or RuntimeMaxUse= where it is in memory, of journald.conf)"
)
# What programs send to move a terminal's cursor; restic does so when it is ended, also where there is no terminal.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the journal; `time` in seconds since 1970, `program` is systemd's identifier, `pid1` its own word.

    `cursor` is the journal's name for it.
    """

    time: float
    program: str
    text: str
    priority: int = 6
    pid1: bool = False
    cursor: str = ""


@dataclasses.dataclass
class Digest:
    """Restic's own words: the summary, the fatal error, errors of single files, other lines; systemd's complaints; times."""

    summary: dict[str, Any] | None = None
    fatal: str | None = None
    errors: list[str] = dataclasses.field(default_factory=list)
    lines: list[str] = dataclasses.field(default_factory=list)
    systemd: list[str] = dataclasses.field(default_factory=list)
    percent_done: float | None = None
    # The journal's name for the line by which systemd said that it did not even start the run.
    refusal: str | None = None
    # Of borg, which names what happened: a reason of the outcome, and how many of `errors` are paths that are not there.
    reason: str | None = None
    missing: int = 0
    # Whether the beginning of the run is still there, where that matters.
    whole: bool = True
    first: float | None = None
    last: float | None = None


def read(
    host: Host, invocation: str, *, program: str = "", lines: int = LINES, more: tuple[str, ...] = ()
) -> list[Entry]:
    """The last lines of the invocation, oldest first: of all its programs, or of `program` and systemd only.

    `more` are further alternatives to match.
    """
    if not invocation:
        return []
    # Only fields with a leading underscore cannot be forged; systemd's own lines carry another one, hence _PID=1.
    ours = [f"_SYSTEMD_INVOCATION_ID={invocation}", *([f"SYSLOG_IDENTIFIER={program}"] if program else [])]
    ours += ["+", f"INVOCATION_ID={invocation}", "_PID=1"]
    return _entries(host, [f"--lines={lines}", *ours, *more])


def has_beginning(host: Host, invocation: str) -> bool:
    """Whether the first line of an invocation is still there."""
    return bool(_entries(host, ["--lines=1", f"_SYSTEMD_INVOCATION_ID={invocation}", f"MESSAGE={BEGINNING}"]))


def skipped(host: Host, invocation: str, program: str) -> list[str]:
    """What restic said of paths that are not there: before all else, so in a long run not among the last lines."""
    ours = [f"_SYSTEMD_INVOCATION_ID={invocation}", f"SYSLOG_IDENTIFIER={program}"]
    said = [entry.text.strip() for entry in _entries(host, [f"--grep={SKIPPED}$", *ours])]
    return [line for line in said if line.endswith(SKIPPED)]


def cursor(host: Host) -> str:
    """Where the journal ends now; empty if it does not say."""
    done = host.command(["journalctl", "--quiet", "--no-pager", "--lines=0", "--show-cursor"], timeout=TIMEOUT)
    found = re.search(r"^-- cursor: (\S+)$", done.stdout, re.MULTILINE)
    return found[1] if found else ""


def since(host: Host, place: str, service: str) -> list[Entry]:
    """What is JSON, or part of it, of what the processes of `service` said since the cursor `place`, oldest first."""
    # journalctl 252 leaves out the first match after --after-cursor=; at the cursor itself is another unit's line. With a
    # cursor --lines= is about the first ones, and a command may say much before the summary.
    return _entries(host, [f"--cursor={place}", "--grep=^[{} ]", f"_SYSTEMD_UNIT={service}"])


def until_summary(host: Host, ask: Callable[[], Digest], *, expected: bool = True) -> Digest:
    """What `ask` finds, asked again for a while if the `expected` summary is not there yet."""
    found = Digest()
    for look in range(LOOKS if expected else 1):
        if look:
            host.sleep(PAUSE)
        sync(host)
        found = ask()
        if found.summary is not None:
            break
    return found


def refusal(host: Host, service: str) -> Entry | None:
    """The last time systemd did not start `service` because something that it requires failed."""
    # The recorder is started by the same event.
    sync(host)
    found = _entries(host, ["--lines=1", "_PID=1", f"UNIT={service}", "JOB_RESULT=dependency"])
    return found[-1] if found else None


def sync(host: Host) -> None:
    """Wait until the journal has what was written so far."""
    host.command(["journalctl", "--sync"], timeout=TIMEOUT)


def digest(entries: list[Entry], program: str, service: str) -> Digest:
    """Sort the lines of an invocation; `program` is the name of restic's or borgmatic's binary."""
    from . import borg

    result = Digest(first=entries[0].time, last=entries[-1].time) if entries else Digest()
    for entry in entries:
        if entry.pid1:
            if entry.priority <= _WARNING:
                result.systemd.append(entry.text.replace(f"{service}: ", ""))
        elif entry.program == program and not borg.understand(result, entry.text):
            _restic(result, entry.text)
    return result


def message(text: str) -> dict[str, Any] | None:
    """The object in a line of restic's --json; None for another line."""
    if not text.startswith("{"):
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) and isinstance(content.get("message_type"), str) else None


def error_text(content: dict[str, Any]) -> str:
    """What a message of type error says, with the path it is about."""
    error = content.get("error")
    text = str(error.get("message", "")) if isinstance(error, dict) else str(error or "")
    item = str(content.get("item", ""))
    return one_line(text if item in text else f"{item}: {text}")


def _restic(result: Digest, text: str) -> None:
    content = message(text)
    if content is None:
        if text.strip():
            result.lines.append(text.strip())
        return
    kind = content["message_type"]
    if kind == "summary":
        result.summary = content
    elif kind == "exit_error":
        result.fatal = str(content.get("message", ""))
    elif kind == "status":
        share = content.get("percent_done")
        result.percent_done = round(100 * share, 1) if isinstance(share, (int, float)) else None
    elif kind == "error":
        # The scanner meets the same files as the archiver.
        line = error_text(content)
        if line not in result.errors:
            result.errors.append(line)


def _entries(host: Host, asked: list[str]) -> list[Entry]:
    fields = "MESSAGE,SYSLOG_IDENTIFIER,PRIORITY,_PID"
    done = host.command(
        ["journalctl", "--quiet", "--no-pager", "--all", "--output=json", f"--output-fields={fields}", *asked],
        timeout=TIMEOUT,
    )
    return [entry for entry in map(_entry, done.stdout.split("\n")) if entry is not None]


def _entry(line: str) -> Entry | None:
    try:
        content = json.loads(line)
        text = content.get("MESSAGE") or ""
        if isinstance(text, list):
            # A line that is not UTF-8 comes as its bytes.
            text = bytes(text).decode("utf-8", "replace")
        return Entry(
            time=int(content["__REALTIME_TIMESTAMP"]) / 1e6,
            program=str(content.get("SYSLOG_IDENTIFIER", "")),
            text=_ESCAPES.sub("", str(text)),
            priority=int(content.get("PRIORITY", 6)),
            pid1=content.get("_PID") == "1",
            cursor=str(content.get("__CURSOR") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
