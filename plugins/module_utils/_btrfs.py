# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Quotas of repositories as limits of btrfs qgroups: read what is there, plan, do it."""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ._files import Tree
from ._run import PATH, run

FORMAT = 1
# The root directory of every subvolume has this inode number.
SUBVOLUME_INODE = 256
_INO_LOOKUP = 0xD0009412
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"\A([1-9][0-9]{0,14})([KMGT]?)\Z")
_GROUP = re.compile(r"^0/([0-9]+)\s+([0-9]+)\s+[0-9]+\s+([0-9]+|none)\b", re.MULTILINE)
_OFF = re.compile(r"quotas? not enabled|quota system is not enabled", re.IGNORECASE)
_TIMEOUT = 60.0

ABSENT = "absent"
EMPTY = "empty"
SUBVOLUME = "subvolume"
OTHER = "other"


class BtrfsError(Exception):
    """A quota cannot be had; the message names the cure."""


@dataclass(frozen=True)
class Groups:
    """Limits and use in bytes by subvolume id; `enabled` is None where the program btrfs is missing."""

    enabled: bool | None
    limits: Mapping[int, int | None]
    used: Mapping[int, int]


@dataclass(frozen=True)
class Found:
    """What is at a repository's place: absent, empty (directory), subvolume or other; id and owner of a subvolume."""

    kind: str
    id: int | None = None
    owner: tuple[int, int] | None = None


@dataclass(frozen=True)
class Plan:
    """Names of repositories to create, to give to their account, to limit and to free of a limit."""

    enable: bool = False
    create: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()
    lift: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.enable or self.create or self.own or self.limit or self.lift)


def parse_size(text: str) -> int:
    """Bytes of a number with K, M, G or T (powers of 1024). Raises ValueError."""
    found = _SIZE.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not a size: write a number with K, M, G or T, like 200G")
    return int(found[1]) * _UNITS[found[2]]


def parse_groups(text: str) -> Groups:
    """What `btrfs qgroup show -r --raw` prints."""
    rows = _GROUP.findall(text)
    limits = {int(group): None if limit == "none" else int(limit) for group, _used, limit in rows}
    return Groups(True, limits, {int(group): int(used) for group, used, _limit in rows})


def plan(
    wanted: Mapping[str, int],
    limited: Sequence[str],
    found: Mapping[str, Found],
    groups: Groups,
    owner: tuple[int, int],
) -> Plan:
    """What makes `wanted` (bytes by repository) true; `limited` are those that a former run limited.

    Raises BtrfsError for a repository that lies in an ordinary directory.
    """
    blocked = sorted(name for name in wanted if found[name].kind == OTHER)
    if blocked:
        raise BtrfsError(
            f"{', '.join(blocked)}: there are files already, not in a subvolume, so that no quota can be set. {how_to_move()}"
        )
    there = [name for name in sorted(wanted) if found[name].kind == SUBVOLUME]
    create = tuple(name for name in sorted(wanted) if found[name].kind != SUBVOLUME)
    freed = [name for name in sorted(set(limited) - set(wanted)) if found[name].kind == SUBVOLUME]
    own = tuple(name for name in there if found[name].owner != owner)
    if groups.enabled is None:
        return Plan(create=create, own=own, limit=create, unchecked=tuple(there + freed))
    return Plan(
        enable=not groups.enabled and bool(wanted),
        create=create,
        own=own,
        limit=tuple(name for name in sorted(wanted) if name in create or _limit(found[name], groups) != wanted[name]),
        lift=tuple(name for name in freed if _limit(found[name], groups) is not None),
    )


def how_to_move(directory: str = "") -> str:
    """The cure where files of a repository lie in an ordinary directory."""
    return (
        f"Stop holdfast-rest-server.socket and .service, rename the directory{directory and f' {directory}'}, run the playbook"
        " again, copy the files back with 'cp -a --reflink=auto OLD/. NEW/'; or remove `quota` of the repository"
    )


def _limit(found: Found, groups: Groups) -> int | None:
    return groups.limits.get(found.id) if found.id is not None else None


class Storage:
    """The directory of the repositories. The tree is the caller's and trusts that directory."""

    def __init__(self, tree: Tree, path: str) -> None:
        self._tree = tree
        self._path = path

    def on_btrfs(self) -> bool:
        """Whether the directory, or the nearest one above it that is there, lies on btrfs."""
        path = self._path
        while self._tree.directory_entry(path) is None:
            path = posixpath.dirname(path)
        return subvolume_id(self._tree.directory(path)) is not None

    def find(self, name: str) -> Found:
        """What is at a repository's place; links are not followed."""
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=self._tree.directory(self._path))
        except FileNotFoundError:
            return Found(ABSENT)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            return Found(OTHER)
        try:
            status = os.fstat(descriptor)
            if is_subvolume(status):
                return Found(SUBVOLUME, subvolume_id(descriptor), (status.st_uid, status.st_gid))
            return Found(OTHER if os.listdir(descriptor) else EMPTY)
        finally:
            os.close(descriptor)

    def groups(self) -> Groups:
        """All limits of the file system."""
        try:
            done = run(["btrfs", "qgroup", "show", "-r", "--raw", self._path], timeout=_TIMEOUT)
        except FileNotFoundError:
            return Groups(None, {}, {})
        if done.code == 0:
            return parse_groups(done.stdout)
        if _OFF.search(done.stderr):
            return Groups(False, {}, {})
        raise BtrfsError(f"btrfs does not tell the quotas of {self._path}: {done.stderr.strip()}")

    def apply(self, todo: Plan, wanted: Mapping[str, int], owner: tuple[int, int]) -> None:
        """Do what was planned; a run that is killed between two steps is completed by the next."""
        if todo.enable:
            self._btrfs("quota", "enable", self._path)
        for name in todo.create:
            directory = self._tree.directory(self._path)
            if self.find(name).kind == EMPTY:
                os.rmdir(name, dir_fd=directory)
            # Fails where something else, a link for instance, was put there meanwhile.
            self._btrfs("subvolume", "create", posixpath.join(self._path, name))
        for name in (*todo.create, *todo.own):
            self._own(name, owner)
        for name in todo.limit:
            self._set(name, str(wanted[name]))
        for name in todo.lift:
            self._set(name, "none")

    def _own(self, name: str, owner: tuple[int, int]) -> None:
        descriptor = os.open(name, _DIRECTORY, dir_fd=self._tree.directory(self._path))
        try:
            os.fchown(descriptor, *owner)
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)

    def _set(self, name: str, limit: str) -> None:
        found = self.find(name)
        if found.kind != SUBVOLUME:
            raise BtrfsError(f"{posixpath.join(self._path, name)} was replaced while this ran: look who did it")
        # By its number: what has the name may change, and another's limit is not ours to set.
        self._btrfs("qgroup", "limit", limit, f"0/{found.id}", self._path)

    def _btrfs(self, *arguments: str) -> None:
        try:
            done = run(["btrfs", *arguments], timeout=_TIMEOUT)
        except FileNotFoundError:
            raise BtrfsError(f"the program btrfs is not in {PATH}: install btrfs-progs") from None
        if done.code:
            raise BtrfsError(f"'btrfs {' '.join(arguments)}' failed: {done.stderr.strip() or 'it took too long'}")


def is_subvolume(status: os.stat_result) -> bool:
    """Whether a directory on btrfs is the root of a subvolume."""
    return status.st_ino == SUBVOLUME_INODE


def subvolume_id(descriptor: int) -> int | None:
    """Id of the subvolume that an open directory lies in; None where the file system is not btrfs."""
    buffer = bytearray(4096)
    struct.pack_into("=QQ", buffer, 0, 0, SUBVOLUME_INODE)
    try:
        fcntl.ioctl(descriptor, _INO_LOOKUP, buffer)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            return None
        raise
    return int(struct.unpack_from("=Q", buffer)[0])
