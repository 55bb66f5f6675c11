# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a directory tells about a repository without its password and without its tool."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator

from ._model import Lock, Repository, Snapshot, Snapshots, age, format_time
from ._outcome import ABSENT, DAMAGED, PRESENT, UNREACHABLE

_OBJECT = re.compile(r"\A[0-9a-f]{64}\Z")
# Directories that restic makes; one of them beside or instead of `config` marks a repository.
_PARTS = ("keys", "snapshots", "index", "data", "locks")
# A server keeps repositories as <user> or <user>/<repository>; nothing deeper is looked for.
DEPTH = 2
_NO_FILES: list[tuple[str, float]] = []


def _objects(path: str) -> list[tuple[str, float]]:
    """Return name and modification time of the objects in one directory of a repository; empty if it is missing.

    Anything that is not named like an object (temporary files, junk) or is not a regular file does not count.
    """
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if _OBJECT.match(entry.name) is not None and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # a lock or a snapshot that was removed meanwhile
                        found.append((entry.name, entry.stat(follow_symlinks=False).st_mtime))
    except (FileNotFoundError, NotADirectoryError):
        return _NO_FILES
    return found


def directory_size(path: str) -> int:
    """Return the bytes of all regular files below `path`, links not followed, nor what is removed meanwhile."""
    total = 0
    pending = [path]
    while pending:
        with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def _config_size(path: str) -> int | None:
    """Return the size of the repository's configuration file, None if there is none."""
    try:
        return os.lstat(os.path.join(path, "config")).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read(path: str, size: bool, now: float) -> Repository:
    # An unreadable path must not look like an absent one; nothing below may say that the directory does not exist.
    os.stat(path)
    config = _config_size(path)
    keys = _objects(os.path.join(path, "keys"))
    snapshots = _objects(os.path.join(path, "snapshots"))
    if config is None:
        if keys or snapshots or _objects(os.path.join(path, "index")):
            return Repository(
                path,
                state=DAMAGED,
                reason="there are keys or data but no config file: restore it from a copy; what is left of an init that "
                "was interrupted (no snapshots, no data) can be removed",
                snapshots=Snapshots(len(snapshots)),
                keys=len(keys),
            )
        return Repository(path, state=ABSENT, reason="there is no repository in this directory")
    reason = None
    if config == 0:
        reason = "the config file is empty: restore it from a copy"
    elif not keys:
        reason = "there is no key file: restore one from a copy or from the escrow"
    last = None
    if snapshots:
        name, modified = max(snapshots, key=lambda item: (item[1], item[0]))
        last = Snapshot(id=name, time=format_time(modified))
    return Repository(
        path,
        state=PRESENT if reason is None else DAMAGED,
        reason=reason,
        snapshots=Snapshots(len(snapshots), last),
        age_seconds=None if last is None else age(last.time, now),
        locks=[Lock(int(now - modified)) for _name, modified in sorted(_objects(os.path.join(path, "locks")))],
        keys=len(keys),
        size=directory_size(path) if size else None,
    )


def probe(path: str, *, size: bool = False, now: float | None = None) -> Repository:
    """Return what the directory `path` tells of the one repository in it.

    The newest snapshot is the file written last. Id, format, and what a snapshot holds are encrypted, so they stay null,
    as do kind and host of a lock. A directory that cannot be read is `unreachable`.
    """
    now = time.time() if now is None else now
    try:
        return _read(path, size, now)
    except FileNotFoundError:
        return Repository(path, state=ABSENT, reason="the directory does not exist")
    except OSError as error:
        return Repository(path, state=UNREACHABLE, reason=f"the directory cannot be read: {error.strerror}")


def _is_repository(path: str) -> bool:
    return any(os.path.lexists(os.path.join(path, name)) for name in ("config", *_PARTS))


def below(path: str, depth: int, is_repository: Callable[[str], bool]) -> Iterator[str]:
    """Yield the repositories below `path`, at most `depth` directories down; links are not followed.

    A directory that cannot be looked into may be one, and is yielded, too; of `path` itself the caller tells.
    """
    try:
        names = _directories(path)
    except OSError:
        return
    yield from _among(names, depth, is_repository)


def _among(names: list[str], depth: int, is_repository: Callable[[str], bool]) -> Iterator[str]:
    for name in names:
        if is_repository(name):
            yield name
            continue
        try:
            inside = _directories(name)
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError:
            yield name
            continue
        if depth > 1:
            yield from _among(inside, depth - 1, is_repository)


def _directories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    # Root's alone on many file systems, and nobody's repository.
    return sorted(each for each in found if os.path.basename(each) != "lost+found")


def probe_all(path: str, *, size: bool = False, now: float | None = None) -> list[Repository] | None:
    """Return what is known of every repository below the directory `path`, sorted; None if it is not such a directory.

    That is: `path` is a repository itself, is missing, or holds none.
    """
    if _is_repository(path):
        return None
    now = time.time() if now is None else now
    found = [probe(name, size=size, now=now) for name in below(path, DEPTH, _is_repository)]
    return found or None
