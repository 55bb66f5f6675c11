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

from .._files import Tree, UnsafePathError, group_writes
from .host import Host, ProgramError


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
