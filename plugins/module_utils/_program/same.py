# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a run saved into the repository that is on record, and not into another one in its place.

The key hint is only a preference: a repository that was made anew with the same password is opened all the same. Restic
does not say which repository it opened. But its cache has a directory for each id, whose time it sets whenever it opens
that repository; that costs nothing to look at. Only where it proves nothing the repository is opened once more. Borg
says it, but not of dumps: where a job has nothing else, the repository is opened once more too.
"""

from __future__ import annotations

import os
import re

from .. import _record
from . import borg, restic
from .definition import Definition
from .host import Host, ProgramError

_ID = re.compile(r"\A[0-9a-f]{64}\Z")
ANOTHER = "another repository"


def doubt(host: Host, definition: Definition, since: float, saved_in: str | None = None) -> tuple[str, str] | None:
    """None if everything opened since `since` (seconds since 1970) is the repository on record; else reason and message.

    `saved_in` is the id of the repository that borg says it saved files into, None where it saved none.
    """
    try:
        known = _record.parse(host.path(definition.record).read_text(encoding="ascii")).id
    except (OSError, ValueError) as error:
        return "no record", f"{definition.record} cannot be used: {error}; run the site playbook for this host"
    if definition.borg is not None and not definition.dumps_only:
        return compare(definition, known, saved_in or known)
    if definition.borg is None:
        opened = _opened(host, definition, since)
        # Also where the right one is back by now: what was saved is in the other.
        for another in sorted(opened - {known}):
            return compare(definition, known, another)
        if opened:
            return None
    try:
        found = (restic if definition.borg is None else borg).repository_id(host, definition)
    except ProgramError as error:
        return "unknown", f"whether this is the repository on record could not be found out: {error}"
    return compare(definition, known, found)


def compare(definition: Definition, known: str, found: str) -> tuple[str, str] | None:
    """None if the repository `found` is the one on record, `known`; else reason and message."""
    if found == known:
        return None
    return ANOTHER, (
        f"the repository at this location is {found[:8]}, and {known[:8]} is on record: bring that one back, or, if it is"
        f" given up, remove {definition.record} and run the site playbook for this host"
    )


def _opened(host: Host, definition: Definition, since: float) -> set[str]:
    """Ids of the repositories that restic opened with this unit's cache since then; empty where nothing is known.

    What the cache says of the future is from a time when the clock was ahead.
    """
    directory = definition.environment.get("RESTIC_CACHE_DIR")
    if directory is None:
        return set()
    try:
        with os.scandir(host.path(directory)) as entries:
            # A file system may keep whole seconds only.
            return {
                each.name
                for each in entries
                if _ID.match(each.name) and int(since) <= each.stat(follow_symlinks=False).st_mtime <= host.now() + 1
            }
    except OSError:
        return set()
