# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What others would lose where a directory that is there already becomes a place of repositories."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator

from ._files import Tree, UnsafePathError, check_path, user_id

# Enough to know what a directory is for; one of a million files is not read to its end.
MOST = 1000
# A rest-server's users have directories of their own, and these may have another one for each repository.
_DEPTH = 3
# What a file system has, and what a rest-server that was set up by hand keeps beside its repositories.
_BESIDE = frozenset(
    {"lost+found", ".snapshots", "aquota.group", "aquota.user", ".htpasswd", "public_key", "private_key"}
)
# What the engines have in a repository, and what a write that was cut off may have left.
_PARTS = re.compile(
    r"\A(?:(?:config|data|keys|locks|snapshots|index|tmp|README|nonce|transactions)\Z|(?:config|index|hints|integrity|lock)\.)"
)
# Of a client whose repository is yet to be made.
_OURS = re.compile(r"\A[a-z][a-z0-9-]*--[a-z][a-z0-9-]*\Z")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def look(path: str, account: str, private: bool) -> dict[str, str] | None:
    """Return whose the directory is, and the first entry that is no repository; None where nobody loses anything.

    That is where it is missing, is the account's already, or holds nothing but repositories. Root has most directories,
    so one of root's counts as its place only where nobody else may use it, or it is not to be ``private``. What cannot
    be read, and what ``file_tree`` would refuse to touch, is no loss either.
    """
    try:
        check_path(path, "places")
        with Tree() as tree:
            tree.trust([path])
            directory = tree.directory(path)
            found = os.fstat(directory)
            given = found.st_uid == user_id(account)
            if given and not (found.st_uid == 0 and private and found.st_mode & 0o077):
                return None
            if _is_repository(directory):
                foreign = _beside(directory)
            else:
                foreign = _foreign(directory, iter(range(MOST)), _DEPTH)
    except (OSError, ValueError, UnsafePathError):
        return None
    if not foreign:
        return None
    return {"owner": _owner(found.st_uid), "foreign": os.fsencode(foreign).decode("utf-8", "replace")}


def _beside(directory: int) -> str | None:
    """The first entry of a repository that neither engine makes; there are some twenty, and what was left of writes."""
    with os.scandir(directory) as entries:
        return next((each.name for each in entries if each.name not in _BESIDE and not _PARTS.match(each.name)), None)


def _foreign(directory: int, left: Iterator[int], depth: int) -> str | None:
    """The first entry that is no repository and no directory of nothing else; empty where there is none at all."""
    first = ""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in _BESIDE:
                continue
            if next(left, None) is None:
                return None
            if not entry.is_dir(follow_symlinks=False) or not _is_ours(entry.name, directory, left, depth):
                return entry.name
            first = first or entry.name
    return None if first else ""


def _is_ours(name: str, parent: int, left: Iterator[int], depth: int) -> bool:
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError:
        return True
    try:
        if _is_repository(directory) or _OURS.match(name):
            return True
        return depth > 1 and _foreign(directory, left, depth - 1) is None
    finally:
        os.close(directory)


def _is_repository(directory: int) -> bool:
    """Whether it is one of restic's or borg's; a file `config` alone has a bare repository of git, too.

    Restic writes `config` last of all, so where an init was cut off there is none.
    """
    return _is(stat.S_ISDIR, "data", directory) and (
        _is(stat.S_ISREG, "config", directory) or _is(stat.S_ISDIR, "keys", directory)
    )


def _is(kind: Callable[[int], bool], name: str, parent: int) -> bool:
    try:
        return kind(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _owner(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
