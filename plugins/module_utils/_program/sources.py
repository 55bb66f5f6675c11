# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run saves besides its literal arguments, and which declared paths are not there."""

from __future__ import annotations

import errno
import fnmatch
import os
import posixpath
import pwd
import re
import stat
from collections.abc import Iterable, Sequence

from . import mounts
from .definition import Definition
from .host import RUNTIME, Host

# More than any list of paths needs; what is bigger was not written for this.
LARGEST = 1024 * 1024
# A name that no pattern means but one that means every name.
_ANY = "\x7fholdfast\x7f"


def gather(host: Host, definition: Definition) -> tuple[list[str], list[str]]:
    """(paths for --files-from-raw, what is declared and not there).

    Optional paths and dropped-in paths are passed only if they exist, because restic 0.19 takes a missing one for an
    error. Declared paths are restic's literal arguments and are only looked at. Where a job has only dumps nothing saves
    files, and what is dropped in counts as not there. So does a link to what is not saved: neither engine follows the
    paths that it is given. And so does a file system that is not mounted: all that an engine sees is an empty directory.
    """
    declared, missing = _there(host, definition.paths)
    extra, problems = _there(host, definition.optional_paths, optional=True)
    names, problem = _drop_ins(host, definition.sources_d)
    missing += problems + problem
    named = list(definition.paths)
    for name in names:
        paths, wrong = _read(host, name)
        if definition.borg is not None:
            # Lines of a pattern file are trimmed.
            missing += [
                f"{path!r} (borg takes no path with spaces around it)" for path in paths if path != path.strip()
            ]
            paths = [path for path in paths if path == path.strip()]
        if wrong:
            missing.append(f"{name} ({wrong})")
        if definition.dumps_only:
            missing += [f"{path} ({name}: the job has only dumps, give it paths or optional_paths)" for path in paths]
            continue
        inside = {path: swallowed(definition.left_out, path) for path in paths}
        missing += [f"{path} ({name}: lies in {own}, which is never saved)" for path, own in inside.items() if own]
        paths = [path for path in paths if not inside[path]]
        # Of those that the job declares the roles know beforehand.
        missing += [
            f"{path} ({name}: is left out by the job's exclude)" for path in paths if _left_out(definition, path)
        ]
        named += paths
        found, problems = _there(host, paths)
        extra += found
        missing += problems
    missing += _linked(host, definition, [*declared, *extra])
    missing += _unmounted(host, definition, named)
    return list(dict.fromkeys(extra)), list(dict.fromkeys(missing))


def plain(path: str) -> bool:
    """Whether borgmatic takes this path literally."""
    return not re.search(r"[*?\[]", path)


def swallowed(left_out: Sequence[str], path: str) -> str | None:
    """Which of these patterns leaves the path out, it or a directory above it; neither engine says so, and both end well."""
    above = [f"/{posixpath.normpath(path).lstrip('/')}"]
    while above[-1] != "/":
        above.append(posixpath.dirname(above[-1]))
    return next((own for own in left_out if any(fnmatch.fnmatchcase(each, own) for each in above)), None)


def excluding(excluded: Sequence[str], path: str, found: int | None = None) -> int | None:
    """Which of the user's patterns, as expressions, leaves the path out: its place, or `found`. Those with a ! take it in again."""
    path = posixpath.normpath(path).lstrip("/")
    if not path and any(each.startswith("!") for each in excluded):
        # In the place of `/` restic takes what is in it, of which that is taken in again.
        return found
    for number, each in enumerate(excluded):
        if re.search(each.lstrip("!"), path):
            found = None if each.startswith("!") else number
    return found


def write(host: Host, definition: Definition, paths: list[str], name: str | None = None) -> None:
    """Write the list that restic (or borg, as patterns) reads, for its account only; to the file `name`, if given."""
    if definition.borg is not None:
        # Roots with a wildcard would be taken for one in borgmatic's own list.
        paths = [path for path in definition.paths if not plain(path)] + paths
        content = b"".join(b"R " + os.fsencode(path) + b"\n" for path in paths)
    else:
        content = b"".join(os.fsencode(path) + b"\0" for path in paths)
    group = pwd.getpwnam(definition.user).pw_gid
    host.write(name or f"{RUNTIME}/{definition.unit}.sources", content, mode=0o640, group=group)


def _there(host: Host, paths: Sequence[str], *, optional: bool = False) -> tuple[list[str], list[str]]:
    """(the paths that are there, the others unless they are `optional`).

    What cannot be looked at, on a mount that hangs say, may well be there.
    """
    there, missing = [], []
    for path in paths:
        try:
            os.lstat(host.path(path))
            there.append(path)
        except OSError as error:
            if not _absent(error):
                missing.append(_unseen(path, error))
            elif not optional:
                missing.append(path)
    return there, missing


def _gone(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return _absent(error)
    return False


def _absent(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


def _unseen(path: str, error: OSError) -> str:
    return f"{path} (cannot be looked at: {error.strerror})"


def _linked(host: Host, definition: Definition, paths: Sequence[str]) -> list[str]:
    """The links among `paths` to what none of the others holds."""
    links = [path for path in paths if os.path.islink(host.path(path))]
    saved = {os.path.realpath(host.path(path)) for path in paths if path not in links}
    found = []
    for path in links:
        target = os.path.realpath(host.path(path))
        shown = f"/{os.path.relpath(target, os.path.realpath(host.root))}"
        if any(_holds(definition, each, target) for each in saved) and not _left_out(definition, shown):
            continue
        if path in definition.optional_paths and _gone(target):
            continue
        found.append(f"{path} (is a link to {shown}, which is not saved: declare that path)")
    return found


def _holds(definition: Definition, saved: str, path: str) -> bool:
    if path != saved and not path.startswith(f"{saved.rstrip('/')}/"):
        return False
    try:
        return not definition.one_file_system or os.lstat(saved).st_dev == os.lstat(path).st_dev
    except OSError:
        return False


def _unmounted(host: Host, definition: Definition, paths: Sequence[str]) -> list[str]:
    """The mount points at, above or below `paths` where nothing is mounted. An optional path may be missing as a whole; what
    should be mounted below it counts."""
    lacking = mounts.lacking(host)
    if not lacking:
        return []
    saved = [_names(host, each) for each in paths]
    optional = [_names(host, each) for each in definition.optional_paths]
    found = []
    for point in lacking:
        names = {point, mounts.real(host, point)}
        above = any(_within(path, names) for each in saved for path in each)
        below = any(_within(name, each) for name in names for each in (*saved, *optional) if not each & names)
        left_out = definition.one_file_system or point in definition.disks or _left_out_whole(definition, point)
        if above or (below and not left_out):
            found.append(
                f"{point} (its file system is not mounted: mount it, or say that it may be missing: noauto in /etc/fstab,"
                " exclude)"
            )
    return found


def _names(host: Host, path: str) -> set[str]:
    """A path as it is declared, and where it is; a link that is declared is saved as one."""
    path = f"/{posixpath.normpath(path).lstrip('/')}"
    return {path, posixpath.join(mounts.real(host, posixpath.dirname(path)), posixpath.basename(path))}


def _within(path: str, directories: Iterable[str]) -> bool:
    return any(f"{path}/".startswith(f"{each.rstrip('/')}/") for each in directories)


def _left_out(definition: Definition, path: str) -> bool:
    """Whether the job leaves the path out: by our own patterns, or by the user's."""
    own = None if swallowed(definition.left_out, path) is None else -1
    return excluding(definition.excluded, path, own) is not None


def _left_out_whole(definition: Definition, directory: str) -> bool:
    """Whether the job leaves out a directory, or all that is in it: any name, and none of it is taken in again."""
    inside = _left_out(definition, posixpath.join(directory, _ANY))
    return _left_out(definition, directory) or (
        inside and not any(each.startswith("!") for each in definition.excluded)
    )


def _drop_ins(host: Host, directory: str) -> tuple[list[str], list[str]]:
    """(the files with paths, what is wrong with the directory)."""
    try:
        names = sorted(os.listdir(host.path(directory)))
    except OSError as error:
        return [], [] if _absent(error) else [_unseen(directory, error)]
    return [f"{directory}/{name}" for name in names if name.endswith(".paths")], []


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
