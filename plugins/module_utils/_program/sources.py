# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run saves besides its literal arguments, and which declared paths are not there."""

from __future__ import annotations

import os
import pwd
import re
import stat

from .definition import Definition
from .host import RUNTIME, Host

# More than any list of paths needs; what is bigger was not written for this.
LARGEST = 1024 * 1024


def gather(host: Host, definition: Definition) -> tuple[list[str], list[str]]:
    """(paths for --files-from-raw, what is declared and not there).

    Optional paths and dropped-in paths are passed only if they exist, because restic 0.19 takes a missing one for an
    error. Declared paths are restic's literal arguments and are only looked at. Where a job has only dumps nothing saves
    files, and what is dropped in counts as not there.
    """
    missing = [path for path in definition.paths if not _exists(host, path)]
    extra = [path for path in definition.optional_paths if _exists(host, path)]
    for name in _drop_ins(host, definition.sources_d):
        paths, problem = _read(host, name)
        if definition.borg is not None:
            # Lines of a pattern file are trimmed.
            missing += [
                f"{path!r} (borg takes no path with spaces around it)" for path in paths if path != path.strip()
            ]
            paths = [path for path in paths if path == path.strip()]
        if problem:
            missing.append(f"{name} ({problem})")
        if definition.dumps_only:
            missing += [f"{path} ({name}: the job has only dumps, give it paths or optional_paths)" for path in paths]
            continue
        for path in paths:
            (extra if _exists(host, path) else missing).append(path)
    return list(dict.fromkeys(extra)), list(dict.fromkeys(missing))


def plain(path: str) -> bool:
    """Whether borgmatic takes this path literally."""
    return not re.search(r"[*?\[]", path)


def write(host: Host, definition: Definition, paths: list[str]) -> None:
    """Write the list that restic (or borg, as patterns) reads, for its account only."""
    if definition.borg is not None:
        # Roots with a wildcard would be taken for one in borgmatic's own list.
        paths = [path for path in definition.paths if not plain(path)] + paths
        content = b"".join(b"R " + os.fsencode(path) + b"\n" for path in paths)
    else:
        content = b"".join(os.fsencode(path) + b"\0" for path in paths)
    group = pwd.getpwnam(definition.user).pw_gid
    host.write(f"{RUNTIME}/{definition.unit}.sources", content, mode=0o640, group=group)


def _exists(host: Host, path: str) -> bool:
    try:
        os.lstat(host.path(path))
    except OSError:
        return False
    return True


def _drop_ins(host: Host, directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(host.path(directory)))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if name.endswith(".paths")]


def _read(host: Host, name: str) -> tuple[list[str], str | None]:
    """(absolute paths, what is wrong with the file)."""
    try:
        descriptor = os.open(host.path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return [], f"cannot be read: {error.strerror}"
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return [], "is not a plain file"
    with os.fdopen(descriptor, "rb") as stream:
        if status.st_uid != host.owner or status.st_mode & 0o022:
            return [], "must belong to root and be writable by nobody else"
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        return [], f"is larger than {LARGEST} bytes"
    paths, problem = [], None
    for number, line in enumerate(os.fsdecode(content).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("/") and "\0" not in line:
            paths.append(line)
        else:
            problem = f"line {number} is not an absolute path"
    return paths, problem
