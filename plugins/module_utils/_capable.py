# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A private copy of a program that may read every file, for the members of one group.

The copy is ``root:<group>`` 0750 in a directory of its own ``root:<group>`` 0750 and carries the file capability
``cap_dac_read_search=ep``. The capability is not inheritable, so programs that it starts do not have it.
"""

from __future__ import annotations

import posixpath
import struct
from dataclasses import dataclass

from ._files import Entry, Tree, check_path, group_id

ATTRIBUTE = "security.capability"
MODE = 0o750
_CAP_DAC_READ_SEARCH = 2
_VFS_CAP_REVISION_2 = 0x02000000
_VFS_CAP_FLAGS_EFFECTIVE = 0x000001
# struct vfs_cap_data of linux/capability.h: magic, then permitted and inheritable, low words first.
CAPABILITY = struct.pack("<5I", _VFS_CAP_REVISION_2 | _VFS_CAP_FLAGS_EFFECTIVE, 1 << _CAP_DAC_READ_SEARCH, 0, 0, 0)
_ELF = b"\x7fELF"
_MAXIMUM_LINKS = 40
_LOCK_TIMEOUT = 120.0


@dataclass(frozen=True)
class Outcome:
    """What was not as it should be (and was mended, or would be), and what cannot be told yet."""

    differs: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()


def source_entry(tree: Tree, source: str) -> Entry | None:
    """Return the program at ``source``, links followed; None if nothing is there.

    Raises ValueError if it is no ELF program, or if anybody but root may have written it: they would get the
    capability.
    """
    path = source
    for _step in range(_MAXIMUM_LINKS):
        entry = tree.entry(path)
        if entry is None or entry.kind != "link":
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.target))
    if entry is None:
        return None
    if entry.kind != "file" or not entry.content.startswith(_ELF):
        raise ValueError(f"source {source} is not a program (ELF): an interpreter's script cannot have a capability")
    if entry.uid != 0 or entry.mode & 0o022:
        raise ValueError(
            f"source {source} may be written by others than root (uid {entry.uid}, mode {entry.mode:04o}), who would get "
            "the capability: chown root and chmod go-w it"
        )
    return entry


def _differences(tree: Tree, path: str, content: bytes, gid: int) -> tuple[str, ...]:
    """What is not as it should be at ``path``, in words."""
    found = []
    directory = posixpath.dirname(path)
    parent = tree.entry(directory)
    if parent is None:
        return ("directory", "copy")
    if parent != Entry("directory", 0, gid, MODE):
        found.append("directory")
    entry = tree.entry(path)
    if entry is None:
        return (*found, "copy")
    if entry.kind != "file" or entry.content != content:
        found.append("content")
    if entry.kind != "file" or (entry.uid, entry.gid, entry.mode) != (0, gid, MODE):
        found.append("owner or mode")
    if entry.kind != "file" or tree.attribute(path, ATTRIBUTE) != CAPABILITY:
        found.append("capability")
    return tuple(found)


def _directory_of(tree: Tree, path: str) -> str:
    """Return the directory of the copy. Raises ValueError if it is not for the copy alone: its owner and mode are ours."""
    check_path(path, "path")
    directory, name = posixpath.split(path)
    entry = None if directory == "/" else tree.entry(directory)
    if directory == "/" or (entry is not None and entry.kind != "directory"):
        raise ValueError(f"path {path!r} is not in a directory of its own: give one that is for the copy alone")
    tree.trust([directory])
    others = sorted(each for each in tree.names(directory) if each != name and not each.startswith(".holdfast-"))
    if others:
        raise ValueError(
            f"path {path!r}: {directory} also holds {others[0]!r}: give a directory that is for the copy alone"
        )
    return directory


def make(source: str, path: str, group: str, *, check_mode: bool = False) -> Outcome:
    """Make ``path`` the capable copy of ``source``; say what differed.

    In check mode nothing is changed, and a source or group that does not exist yet is named as not checked. Two that
    run at once wait for each other. Raises ValueError, UnsafePathError, OSError, TimeoutError.
    """
    check_path(source, "source")
    if source == path:
        raise ValueError(f"source and path are both {path!r}: give the copy a path of its own")
    gid = group_id(group)
    with Tree() as tree:
        directory = _directory_of(tree, path)
        program = source_entry(tree, source)
        missing = [] if program else [f"source {source}"]
        missing += [] if gid is not None else [f"group {group}"]
        if program is None or gid is None:
            if not check_mode:
                raise ValueError(
                    f"{' and '.join(missing)} does not exist: install the program and make the account first"
                )
            return Outcome(("copy",), tuple(f"{each} does not exist yet" for each in missing))
        if check_mode:
            return Outcome(_differences(tree, path, program.content, gid))
        tree.make_parents(directory)
        return _made(tree, source, path, gid)


def _made(tree: Tree, source: str, path: str, gid: int) -> Outcome:
    directory = posixpath.dirname(path)
    before: tuple[str, ...] = ()
    if tree.entry(directory) != Entry("directory", 0, gid, MODE):
        before = ("directory",)
        tree.make_directory(directory, uid=0, gid=gid, mode=MODE)
    tree.lock(directory, timeout=_LOCK_TIMEOUT)
    # What is installed now, not what was before somebody else made the copy.
    program = source_entry(tree, source)
    if program is None:
        raise ValueError(f"source {source} was removed in the meantime: install it and run again")
    differs = _differences(tree, path, program.content, gid)
    if differs:
        tree.write(path, program.content, uid=0, gid=gid, mode=MODE, attributes={ATTRIBUTE: CAPABILITY})
    return Outcome((*before, *differs))


def remove(path: str, *, check_mode: bool = False) -> Outcome:
    """Remove the copy and its directory; say what was there. Raises ValueError, UnsafePathError, OSError, TimeoutError."""
    with Tree() as tree:
        directory = _directory_of(tree, path)
        if tree.directory_entry(directory) is None:
            return Outcome()
        there = ("copy", "directory") if tree.entry(path) else ("directory",)
        if not check_mode:
            tree.lock(directory, timeout=_LOCK_TIMEOUT)
            tree.clean(path)
            tree.unlink(path)
            tree.remove_directory(directory)
        return Outcome(there)
