# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read and write files as root where less privileged users may own neighbouring directories.

Every path is walked from the root directory by directory descriptors and without following links, so nobody can swap a
component between a check and its use. Files are written to a temporary name in the same directory, synced and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import hashlib
import json
import os
import posixpath
import pwd
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAXIMUM_LINKS = 40
# A process may have 1024 files open, and a server has a directory for each client.
_MAXIMUM_OPEN = 256


class UnsafePathError(Exception):
    """A path leads through something that a less privileged user controls, or is not what it should be."""


@dataclass(frozen=True)
class Entry:
    """What is at a path now; ``kind`` is file, directory, link or other, ``content`` is set for files only."""

    kind: str
    uid: int
    gid: int
    mode: int
    content: bytes = b""
    target: str = ""


def check_path(path: object, where: str) -> str:
    """Return ``path`` if it is an absolute, normalised path without control characters, else raise ``ValueError``."""
    if not isinstance(path, str):
        raise ValueError(f"{where}: a path must be a string, not {path!r}")
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise ValueError(f"{where}: {path!r} contains a control character (newline, NUL, …): write a path without it")
    if not path.startswith("/"):
        raise ValueError(f"{where}: {path!r} is not absolute: begin it with /")
    if ".." in path.split("/"):
        raise ValueError(f"{where}: {path!r} contains '..': write the path itself")
    if path == "/" or path.startswith("//") or posixpath.normpath(path) != path:
        raise ValueError(f"{where}: {path!r} is not in its short form (no //, /./ or / at the end): write it so")
    if any(len(os.fsencode(part)) > 255 for part in path.split("/")):
        raise ValueError(f"{where}: {path!r} has a component longer than 255 bytes")
    return path


def parse_mode(mode: object, where: str) -> int:
    """Return the number of an octal mode written as a quoted string ('0644'), else raise ``ValueError``."""
    if not isinstance(mode, str) or len(mode) not in (3, 4) or any(digit not in "01234567" for digit in mode):
        raise ValueError(f"{where}: mode {mode!r} is not 3 or 4 octal digits in quotes: write it like '0644'")
    return int(mode, 8)


def user_id(name: str) -> int | None:
    """Return the uid of a user name or a number in digits; None if there is no such user."""
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def group_id(name: str) -> int | None:
    """Return the gid of a group name or a number in digits; None if there is no such group."""
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hex."""
    return hashlib.sha256(content).hexdigest()


def _temporary_name(name: str) -> str:
    # One name per file, so that what a killed run left is found (and replaced) by the next run.
    return f".holdfast-{sha256(os.fsencode(name))[:16]}.tmp"


class Tree:
    """Safe access to the file system; use it as a context manager.

    Every directory on the way to a path must belong to root (or to the user we run as) and be writable by nobody else,
    unless it is sticky or was named to ``trust``.
    """

    def __init__(self) -> None:
        self._trusted: set[str] = set()
        # The least recently used first.
        self._open: dict[str, tuple[int, str]] = {}
        self._locked: set[str] = set()
        self._links = 0

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def trust(self, paths: Iterable[str]) -> None:
        """Name directories declared for an owner of their own: owner and mode are not held against them."""
        self._trusted.update(paths)

    def close(self) -> None:
        """Close all directories."""
        while self._open:
            os.close(self._open.popitem()[1][0])

    def directory(self, path: str) -> int:
        """Return a descriptor of the directory. Raises FileNotFoundError, UnsafePathError.

        It stays ours, and is closed when many other directories were opened since.
        """
        return self._directory(path)[0]

    def _directory(self, path: str) -> tuple[int, str]:
        if path in self._open:
            self._open[path] = self._open.pop(path)
            return self._open[path]
        self._make_room()
        if path == "/":
            self._open["/"] = (os.open("/", _DIRECTORY_FLAGS), "/")
            self._check(path)
            return self._open[path]
        parent, name = posixpath.split(path)
        parent_fd, parent_real = self._directory(parent)
        real = posixpath.join(parent_real, name)
        try:
            fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent_fd)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            target = self._root_link(path, name, parent_fd)
            target_fd, real = self._directory(posixpath.normpath(posixpath.join(parent_real, target)))
            fd = os.dup(target_fd)
        self._open[path] = (fd, real)
        self._check(path)
        return self._open[path]

    def _make_room(self) -> None:
        while len(self._open) >= _MAXIMUM_OPEN:
            oldest = next(path for path in self._open if path not in self._locked)
            os.close(self._open.pop(oldest)[0])

    def _root_link(self, path: str, name: str, parent_fd: int) -> str:
        """Return the target of a link that only root can have made."""
        self._links += 1
        info = os.lstat(name, dir_fd=parent_fd)
        if not stat.S_ISLNK(info.st_mode):
            raise UnsafePathError(f"{path} is not a directory: remove it or choose another path")
        parent = os.fstat(parent_fd)
        if (
            self._links > _MAXIMUM_LINKS
            or info.st_uid != 0
            or parent.st_uid != 0
            or _others_write(parent_fd, parent, sticky=False)
        ):
            raise UnsafePathError(
                f"{path} is a symbolic link that somebody other than root can have made: "
                f"replace it by a directory or declare the path it leads to"
            )
        return os.readlink(name, dir_fd=parent_fd)

    def _check(self, path: str) -> None:
        fd, real = self._open[path]
        if path in self._trusted or real in self._trusted:
            return
        info = os.fstat(fd)
        if info.st_uid not in (0, os.geteuid()):
            problem = f"belongs to uid {info.st_uid}"
        elif _others_write(fd, info, sticky=True):
            problem = f"is writable by others than root (mode {stat.S_IMODE(info.st_mode):04o})"
        else:
            return
        os.close(self._open.pop(path)[0])
        raise UnsafePathError(
            f"{path} {problem}, so they could lead our writes elsewhere: chown root and chmod go-w it, "
            f"or declare it as a directory of that owner"
        )

    def entry(self, path: str) -> Entry | None:
        """Return what is at ``path``, None if nothing is; a link at its end is not followed."""
        parent, name = posixpath.split(path)
        try:
            parent_fd = self.directory(parent)
            info = os.lstat(name, dir_fd=parent_fd)
        except FileNotFoundError:
            return None
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISLNK(info.st_mode):
            return Entry("link", info.st_uid, info.st_gid, mode, target=os.readlink(name, dir_fd=parent_fd))
        if stat.S_ISDIR(info.st_mode):
            return Entry("directory", info.st_uid, info.st_gid, mode)
        if not stat.S_ISREG(info.st_mode):
            return Entry("other", info.st_uid, info.st_gid, mode)
        fd = os.open(name, _FILE_FLAGS, dir_fd=parent_fd)
        with os.fdopen(fd, "rb") as stream:
            return Entry("file", info.st_uid, info.st_gid, mode, content=stream.read())

    def directory_entry(self, path: str) -> Entry | None:
        """Like ``entry`` for a directory; a link that only root can have made is followed."""
        try:
            info = os.fstat(self.directory(path))
        except FileNotFoundError:
            return None
        return Entry("directory", info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode))

    def names(self, path: str) -> frozenset[str]:
        """Return the names in a directory; empty if it does not exist."""
        try:
            return frozenset(os.listdir(self.directory(path)))
        except FileNotFoundError:
            return frozenset()

    def attribute(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute of a regular file, None if it has none. Raises FileNotFoundError, OSError."""
        parent, base = posixpath.split(path)
        fd = os.open(base, _FILE_FLAGS, dir_fd=self.directory(parent))
        try:
            return os.getxattr(fd, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
            return None
        finally:
            os.close(fd)

    def write(
        self,
        path: str,
        content: bytes,
        *,
        uid: int,
        gid: int,
        mode: int,
        attributes: Mapping[str, bytes] | None = None,
    ) -> None:
        """Replace ``path`` atomically by a new file. It always is a new inode, so hard links lead nowhere.

        ``attributes`` are extended attributes that it has when it appears.
        """
        parent, name = posixpath.split(path)
        fd = self.directory(parent)
        temporary = _temporary_name(name)
        self.clean(path)
        out = os.open(temporary, _NEW_FILE_FLAGS, 0o600, dir_fd=fd)
        try:
            with os.fdopen(out, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchown(stream.fileno(), uid, gid)
                os.fchmod(stream.fileno(), mode)
                # After the owner: changing it takes capabilities away.
                for attribute, value in (attributes or {}).items():
                    os.setxattr(stream.fileno(), attribute, value)
                os.fsync(stream.fileno())
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            self.clean(path)
            raise
        os.fsync(fd)

    def clean(self, path: str) -> None:
        """Remove the temporary file or directory that a killed write of ``path`` left, if there is one."""
        parent, name = posixpath.split(path)
        with contextlib.suppress(FileNotFoundError):
            fd = self.directory(parent)
            try:
                os.unlink(_temporary_name(name), dir_fd=fd)
            except IsADirectoryError:
                os.rmdir(_temporary_name(name), dir_fd=fd)

    def leftover(self, path: str) -> bool:
        """Tell whether a killed write of ``path`` left something for `clean`."""
        parent, name = posixpath.split(path)
        return _temporary_name(name) in self.names(parent)

    def unlink(self, path: str) -> None:
        """Remove a file or link; nothing happens if it is gone."""
        parent, name = posixpath.split(path)
        try:
            fd = self.directory(parent)
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return
        os.fsync(fd)

    def make_directory(self, path: str, *, uid: int, gid: int, mode: int) -> None:
        """Make one directory; it appears with its owner and mode. One that exists gets them."""
        parent, name = posixpath.split(path)
        if self.entry(path) is None:
            fd = self.directory(parent)
            temporary = _temporary_name(name)
            self.clean(path)
            os.mkdir(temporary, 0o700, dir_fd=fd)
            made = os.open(temporary, _DIRECTORY_FLAGS, dir_fd=fd)
            try:
                os.fchown(made, uid, gid)
                os.fchmod(made, mode)
            finally:
                os.close(made)
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
            os.fsync(fd)
        self.set_directory(path, uid=uid, gid=gid, mode=mode)

    def set_directory(self, path: str, *, uid: int, gid: int, mode: int) -> None:
        """Set owner and mode of an existing directory."""
        fd = self.directory(path)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)

    def make_parents(self, path: str) -> None:
        """Make the missing directories above ``path``, as root with mode 0755."""
        parent = posixpath.dirname(path)
        if self.directory_entry(parent) is None:
            self.make_parents(parent)
            self.make_directory(parent, uid=0, gid=0, mode=0o755)

    def remove_directory(self, path: str) -> bool:
        """Remove a directory if it is empty; tell whether it is gone now."""
        parent, name = posixpath.split(path)
        try:
            os.rmdir(name, dir_fd=self.directory(parent))
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOTDIR):
                raise
            return False
        if path in self._open:
            os.close(self._open.pop(path)[0])
        return True

    def read_json(self, path: str) -> dict[str, Any] | None:
        """Return the JSON object in a file, None if there is none. Raises ValueError naming the file and the cure."""
        entry = self.entry(path)
        if entry is None:
            return None
        try:
            if entry.kind != "file":
                raise ValueError
            value = json.loads(entry.content.decode("utf-8"))
            if not isinstance(value, dict):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{path} is not a JSON file of holdfast: restore it from a backup, or remove it to start anew"
            ) from None
        return value

    def write_json(self, path: str, value: dict[str, Any], *, mode: int) -> None:
        """Write a JSON object atomically as root, making its directories when they are missing."""
        self.make_parents(path)
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
        self.write(path, text.encode("ascii"), uid=0, gid=0, mode=mode)

    def lock(self, path: str, *, timeout: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Hold an exclusive lock on a directory until it is closed. Raises TimeoutError after ``timeout`` seconds."""
        fd = self.directory(path)
        self._locked.add(path)
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"another run holds {path} for more than {timeout:.0f} s: let it end, then run again"
                    ) from None
            sleep(0.1)


def _others_write(directory: int, info: os.stat_result, *, sticky: bool) -> bool:
    """Tell whether others than root may create or rename names in a directory (``sticky``: not those of others)."""
    if sticky and info.st_mode & stat.S_ISVTX:
        return False
    return bool(info.st_mode & stat.S_IWOTH) or group_writes(directory, info.st_mode, info.st_gid)


def group_writes(directory: int, mode: int, gid: int) -> bool:
    """Tell whether others than root may write to a directory as a group, or by name.

    Where an ACL names somebody, what looks like the group's right is the most that any of them has.
    """
    if not mode & stat.S_IWGRP:
        return False
    if gid != 0:
        return True
    try:
        # By name, since the descriptor may be one that cannot be read.
        return "system.posix_acl_access" in os.listxattr(f"/proc/self/fd/{directory}")
    except OSError as error:
        # A file system without attributes has no ACLs.
        return error.errno not in (errno.ENOTSUP, errno.ENODATA)
