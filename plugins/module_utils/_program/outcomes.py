# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome of the last run and the bounded history: /var/lib/holdfast/outcomes/<unit>.json and .history.jsonl."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

from .. import _record
from .definition import Definition
from .host import OUTCOMES, RUNTIME, Host

HISTORY = 100


def last(host: Host, unit: str) -> dict[str, Any] | None:
    """The recorded outcome of the last run; None if it never ran."""
    return host.read_json(f"{OUTCOMES}/{unit}.json")


def repository_id(host: Host, definition: Definition) -> str | None:
    """The id of the repository that is on record today; None where that cannot be known."""
    try:
        return _record.parse(host.path(definition.record).read_text(encoding="ascii")).id
    except (OSError, ValueError):
        return None


def elsewhere(outcome: dict[str, Any] | None, repository: str | None) -> bool:
    """Whether an outcome is about another repository than `repository`, an id; earlier versions did not note it."""
    return repository is not None and (outcome or {}).get("repository_id") not in (None, repository)


def of(host: Host, unit: str, invocation: str) -> dict[str, Any] | None:
    """The recorded outcome of the run with this id of systemd's; None if it is not on record."""
    known = [*_history(host, unit), last(host, unit) or {}]
    return next((each for each in reversed(known) if each.get("invocation_id") == invocation), None)


def refused(host: Host, unit: str, cursor: str) -> bool:
    """Whether the refusal with this name of the journal's is on record."""
    return bool(cursor) and any(
        each.get("refusal") == cursor for each in [*_history(host, unit), last(host, unit) or {}]
    )


@contextlib.contextmanager
def turn(host: Host, unit: str) -> Iterator[None]:
    """Of the recorders of one unit, which are two instances, one at a time looks for what to record and writes it."""
    path = host.path(f"{RUNTIME}/{unit}.lock")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Only root may open it, or any user could stop the recorder.
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write(host: Host, unit: str, outcome: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Put an outcome on record, again if need be: in the history, which keeps the last 100, and as the last one unless
    there is a later one than `before` by now. Raises OSError.

    For root alone: a message names files that lie in private directories.
    """
    directory = host.path(OUTCOMES)
    directory.mkdir(parents=True, exist_ok=True)
    # Earlier versions let everybody read what is in it.
    directory.chmod(0o700)
    now = last(host, unit)
    if now == before or (now is not None and _same(now, outcome)):
        host.write_json(f"{OUTCOMES}/{unit}.json", outcome, mode=0o600)
    known = _history(host, unit, whole=True)
    place = next((number for number, each in enumerate(known) if _same(each, outcome)), len(known))
    known[place : place + 1] = [outcome]
    lines = "".join(f"{json.dumps(each, sort_keys=True)}\n" for each in known[-HISTORY:])
    host.write(f"{OUTCOMES}/{unit}.history.jsonl", lines.encode("utf-8"), mode=0o600)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both are of one run; of what systemd did not even start there is only the time."""
    name = "invocation_id" if other.get("invocation_id") else "ended"
    return one.get("invocation_id") == other.get("invocation_id") and one.get(name) == other.get(name)


def _history(host: Host, unit: str, *, whole: bool = False) -> list[dict[str, Any]]:
    """What is known of it; `whole` raises OSError where it cannot be read, before somebody writes it anew without the rest."""
    try:
        lines = host.path(f"{OUTCOMES}/{unit}.history.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError:
        if whole:
            raise
        return []
    found = []
    for line in lines:
        # A damaged one must not keep the others, or the next, from being known.
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [each for each in found if isinstance(each, dict)]
