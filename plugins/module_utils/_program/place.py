# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory that a person names for root to write into or to mount on: nobody else may be able to change it meanwhile.

A snapshot holds what users wrote. Whoever owned the directory could put a link in root's way, and have their file
written anywhere.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence

from .._files import Tree, UnsafePathError, group_writes
from .host import Host, ProgramError
from .mounts import real

# Of root, as the guides have it.
HOME = "/root"


def checked(host: Host, name: str, path: str) -> str:
    """The path without detours, if it is a directory of root's or can become one. Raises ProgramError.

    `name` is what the command line calls it.
    """
    if not path.startswith("/"):
        raise ProgramError(f"{name} {path!r} is not absolute", 2)
    path = f"/{posixpath.normpath(path).lstrip('/')}"
    try:
        if not stat.S_ISDIR(os.lstat(host.path(path)).st_mode):
            raise ProgramError(f"{name} {path} is not a directory", 2)
    except FileNotFoundError:
        pass
    _own(host, name, path, make=False)
    return path


def occupied(host: Host, path: str) -> bool:
    """Whether there is anything in the directory."""
    try:
        return bool(os.listdir(host.path(path)))
    except FileNotFoundError:
        return False


def private(host: Host, path: str) -> bool:
    """Whether nobody else than root gets to what is in a checked directory; one that is missing is made so."""
    place = "/"
    # A link of root's on the way may lead to where others get in.
    for name in filter(None, real(host, path).split("/")):
        place = posixpath.join(place, name)
        try:
            # Of a directory with an ACL, what looks like the group's right is the most that anybody has.
            if not os.lstat(host.path(place)).st_mode & (stat.S_IXGRP | stat.S_IXOTH):
                return True
        except FileNotFoundError:
            return True
    return False


def at_home(host: Host, path: str) -> bool:
    """Whether a checked directory is in root's own home, where nobody is.

    Behind another closed directory somebody may be all the same: in a container whose root it is, say.
    """
    return private(host, path) and real(host, path).startswith(f"{HOME}/")


def changeable(host: Host, target: str, wanted: Sequence[str], kept: Sequence[str]) -> str | None:
    """What lets others than root change where something is about to be written over, in words; None if nothing does.

    Whatever is `wanted` (all, if nothing is named) lies below `target`, but for what is `kept`. Nobody can change what is
    below directories of root's alone, so the first that is not is found; who may change one that cannot be looked at (a
    stale mount, say) nobody knows.
    """
    for path in wanted or ("/",):
        place = target
        try:
            for place in _reached(host, target, path, kept):
                if _others(host, place):
                    return f"others than root may change {place}"
        except OSError as error:
            return f"{place} cannot be looked at ({error.strerror}), so others than root may be able to change it"
    return None


def _reached(host: Host, place: str, path: str, kept: Sequence[str]) -> Iterator[str]:
    """The directories on the way from `place` to what is `path` below it, and all in that; one that is no directory ends it."""
    yield place
    for name in filter(None, path.split("/")):
        place = posixpath.join(place, name)
        yield place
        if not _is_directory(host, place):
            return
    waiting = [place]
    while waiting:
        place = waiting.pop()
        yield place
        waiting += sorted(set(_directories(host, place)).difference(kept), reverse=True)


def _is_directory(host: Host, path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(host.path(path)).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _directories(host: Host, path: str) -> list[str]:
    """The directories in one; where it has vanished there are none."""
    try:
        with os.scandir(host.path(path)) as entries:
            return [posixpath.join(path, each.name) for each in entries if each.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _others(host: Host, path: str) -> bool:
    """Whether others than root may change what is in a directory; one that has vanished is none."""
    try:
        descriptor = os.open(host.path(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        info = os.fstat(descriptor)
        # A sticky one, too: what is not there yet they may make.
        return (
            info.st_uid not in (0, os.geteuid())
            or bool(info.st_mode & stat.S_IWOTH)
            or group_writes(descriptor, info.st_mode, info.st_gid)
        )
    finally:
        os.close(descriptor)


def make(host: Host, name: str, path: str) -> None:
    """Make a checked directory if it is missing. Raises ProgramError if it is not root's alone any more."""
    _own(host, name, path, make=True)


def _own(host: Host, name: str, place: str, *, make: bool) -> None:
    path = os.path.normpath(host.path(place))
    try:
        with Tree() as tree:
            while not make and tree.directory_entry(path) is None:
                path = os.path.dirname(path)
            missing = []
            while tree.directory_entry(path) is None:
                missing.append(path)
                path = os.path.dirname(path)
            for number, each in enumerate(reversed(missing), 1):
                # Nobody else looks into what is being restored; restic sets modes below it.
                mode = 0o700 if number == len(missing) else 0o755
                tree.make_directory(each, uid=os.geteuid(), gid=os.getegid(), mode=mode)
            path = os.path.normpath(host.path(place))
            entry = tree.directory_entry(path)
            # Within a sticky directory others may still make what is not there yet.
            if entry is None:
                return
            others = bool(entry.mode & 0o002) or group_writes(tree.directory(path), entry.mode, entry.gid)
    except UnsafePathError as error:
        raise _unsafe(name, place, str(error).split(",", 1)[0]) from None
    if others:
        raise _unsafe(name, place, f"it is writable by others than root (mode {entry.mode:04o})")


def _unsafe(name: str, place: str, why: str) -> ProgramError:
    return ProgramError(
        f"{name} {place} is not safe: {why}, who could lead root elsewhere; choose a directory that only root may write"
        " to, like /root/restored",
        2,
    )
