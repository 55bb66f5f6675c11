# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a directory tells about a borg repository without its key and without borg."""

from __future__ import annotations

import configparser
import os
import re
import time

from ._keyless import DEPTH, below, directory_size
from ._model import Lock, Repository, Snapshots, format_time
from ._outcome import ABSENT, DAMAGED, PRESENT, UNREACHABLE

ENGINE = "borg"
_ID = re.compile(r"\A[0-9a-f]{64}\Z")
_INDEX = re.compile(r"\A(index|hints|integrity)\.(\d{1,18})\Z")
_HOLDER = re.compile(r"\A(?P<host>.+)@\d+\.\d+-\d+\Z")
# A configuration is a few hundred bytes and one key.
_CONFIG_BYTES = 65536
_LOCK = "lock.exclusive"
_ROSTER = "lock.roster"


def _config(path: str) -> configparser.SectionProxy | None:
    """Return the section of the repository's configuration, None where there is none that can be understood."""
    parser = configparser.ConfigParser(interpolation=None)
    descriptor = os.open(os.path.join(path, "config"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        text = stream.read(_CONFIG_BYTES).decode("utf-8", "replace")
    try:
        parser.read_string(text)
        section = parser["repository"]
        int(section["version"])
    except (configparser.Error, KeyError, ValueError):
        return None
    return section


def _locks(path: str, now: float) -> list[Lock]:
    """Return the exclusive lock with its host, and the list of shared ones, as far as they lie there."""
    found = []
    try:
        changed = os.lstat(os.path.join(path, _LOCK)).st_mtime
        holders = sorted(os.listdir(os.path.join(path, _LOCK)))
        match = _HOLDER.match(holders[0]) if holders else None
        found.append(Lock(int(now - changed), True, match.group("host") if match else None))
    except (FileNotFoundError, NotADirectoryError):
        pass
    try:
        status = os.lstat(os.path.join(path, _ROSTER))
        # Borg leaves an empty list behind.
        if status.st_size > len('{"exclusive": [], "shared": []}'):
            found.append(Lock(int(now - status.st_mtime), None, None))
    except FileNotFoundError:
        pass
    return found


def _transaction(path: str, names: list[str], section: configparser.SectionProxy) -> tuple[str | None, str | None]:
    """Return when the last transaction was finished (UTC), and what is wrong with the log in words.

    Transaction N ends with segment N; index.N is written after it, and borg makes a lost one anew from the segments.
    Segment N may go before the next index is there, while borg has the repository locked.
    """
    numbers = [int(match[2]) for match in map(_INDEX.match, names) if match and match[1] == "index"]
    if not numbers:
        return None, None
    last = max(numbers)
    try:
        folder = last // max(1, int(section.get("segments_per_dir", "1000")))
    except ValueError:
        return None, "the config file is damaged: restore it from a copy"
    segment = os.path.join(path, "data", str(folder), str(last))
    missing = not os.path.lexists(segment) and not os.path.lexists(os.path.join(path, _LOCK))
    try:
        modified = format_time(os.lstat(os.path.join(path, f"index.{last}")).st_mtime)
    except FileNotFoundError:
        # Another transaction ended meanwhile.
        return _transaction(path, os.listdir(path), section)
    if missing:
        return modified, f"segment {last}, which ends the last transaction, is missing: run 'borg check'"
    return modified, None


def _read(path: str, size: bool, now: float) -> Repository:
    names = os.listdir(path)
    if "config" not in names:
        if names:
            return Repository(
                path,
                ENGINE,
                state=DAMAGED,
                reason="the directory is not empty, and has no config file: restore it from a copy; what is left of an init"
                " that was interrupted (no archives) can be removed",
            )
        return Repository(path, ENGINE, state=ABSENT, reason="there is no repository in this directory")
    section = _config(path)
    if section is None:
        return Repository(path, ENGINE, state=DAMAGED, reason="the config file is damaged: restore it from a copy")
    modified, reason = _transaction(path, names, section)
    if "data" not in names:
        reason = "the directory data is missing: restore it from a copy"
    repository_id = section.get("id", "")
    return Repository(
        path,
        ENGINE,
        state=PRESENT if reason is None else DAMAGED,
        reason=reason,
        id=repository_id if _ID.match(repository_id) else None,
        format_version=int(section["version"]),
        snapshots=Snapshots(),
        locks=_locks(path, now),
        keys=1 if section.get("key", "").strip() else 0,
        size=directory_size(path) if size else None,
        modified=modified,
    )


def probe(path: str, *, size: bool = False, now: float | None = None) -> Repository:
    """Return what the directory `path` tells of the one repository in it.

    Id, format and the time of the last transaction are plain. Archives are encrypted: number, names and times are null,
    for a transaction may also be a deletion. `keys` is 1 for a repokey, 0 where the key is a file of the client.
    """
    now = time.time() if now is None else now
    try:
        return _read(path, size, now)
    except FileNotFoundError:
        return Repository(path, ENGINE, state=ABSENT, reason="the directory does not exist")
    except OSError as error:
        return Repository(path, ENGINE, state=UNREACHABLE, reason=f"the directory cannot be read: {error.strerror}")


def _is_repository(path: str) -> bool:
    return os.path.lexists(os.path.join(path, "config")) or os.path.lexists(os.path.join(path, "data"))


def probe_all(path: str, *, size: bool = False, now: float | None = None) -> list[Repository] | None:
    """Return what is known of every repository below the directory `path`, sorted; None if it is not such a directory."""
    if _is_repository(path):
        return None
    now = time.time() if now is None else now
    found = [probe(name, size=size, now=now) for name in below(path, DEPTH, _is_repository)]
    return found or None
