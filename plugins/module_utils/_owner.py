# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom a local repository belongs to. The account that it belongs to until now may have planted anything in it."""

from __future__ import annotations

import os
import pwd
import stat

from ._files import Tree, UnsafePathError

# Every engine has this file. It is given last, so what was interrupted is seen and done again.
PROOF = "config"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def belongs_to_another(path: str, owner: pwd.struct_passwd) -> bool:
    """Whether a repository is at `path` and belongs to another account than `owner`; only its config is looked at."""
    try:
        found = os.lstat(os.path.join(path, PROOF))
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid != owner.pw_uid


def is_begun(path: str, owner: pwd.struct_passwd) -> bool:
    """Whether the directory of a repository that belongs to another account is `owner`'s already, as `give` begins."""
    return os.lstat(path).st_uid == owner.pw_uid


def give(path: str, owner: pwd.struct_passwd) -> None:
    """Give a repository to `owner`: every directory and file of it, without following a link.

    Each directory goes before what is in it, so that its former account can add nothing any more. Raises UnsafePathError for
    what is neither a directory nor a file with one name only: a hard link would give away a file that lies elsewhere.
    """
    with Tree() as tree:
        tree.trust([path])
        _give_below(tree.directory(path), path, owner, top=True)


def _give_below(directory: int, path: str, owner: pwd.struct_passwd, *, top: bool = False) -> None:
    os.fchown(directory, owner.pw_uid, owner.pw_gid)
    names = sorted(os.listdir(directory), key=lambda name: (top and name == PROOF, name))
    for name in names:
        place = os.path.join(path, name)
        kind = os.lstat(name, dir_fd=directory).st_mode
        if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
            raise UnsafePathError(f"{place} is neither a file nor a directory, and no repository has such: remove it")
        descriptor = os.open(name, _DIRECTORY if stat.S_ISDIR(kind) else _FILE, dir_fd=directory)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                _give_below(descriptor, place, owner)
            elif stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                os.fchown(descriptor, owner.pw_uid, owner.pw_gid)
            else:
                raise UnsafePathError(
                    f"{place} has another name elsewhere (a hard link), and would be given to {owner.pw_name} there too:"
                    " replace it by a copy of its own"
                )
        finally:
            os.close(descriptor)
