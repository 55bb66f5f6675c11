# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file systems are mounted, and which should be."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable

from .host import Host

SYSTEM = "/etc/systemd/system"


def mounted(host: Host, directory: str) -> bool:
    """Whether something is mounted on exactly this directory; an automount is, too."""
    return (directory.rstrip("/") or "/") in (_points(host) or ())


def lacking(host: Host) -> list[str]:
    """The mount points that the boot should have mounted and where nothing is mounted."""
    points = _points(host)
    if points is None:
        return []
    declared = dict.fromkeys([*_fstab(host), *_enabled(host)])
    return [each for each in declared if each not in points and real(host, each) not in points]


def _points(host: Host) -> set[str] | None:
    try:
        lines = host.path("/proc/self/mountinfo").read_bytes().split(b"\n")
    except OSError:
        return None
    return {_unescaped(line.split(b" ")[4]) for line in lines if line}


def _fstab(host: Host) -> Iterable[str]:
    """What /etc/fstab says is mounted at boot; what is kept in memory is empty then anyway."""
    try:
        lines = host.path("/etc/fstab").read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) < 3 or line.lstrip().startswith(b"#") or fields[2] in (b"swap", b"tmpfs"):
            continue
        options = fields[3].split(b",") if len(fields) > 3 else []
        if fields[1].startswith(b"/") and b"noauto" not in options:
            yield posixpath.normpath(_unescaped(fields[1]))


def _enabled(host: Host) -> Iterable[str]:
    """The mount units that the administrator enabled; a unit's name is that of its directory."""
    for link in sorted([*host.path(SYSTEM).glob("*.wants/*.mount"), *host.path(SYSTEM).glob("*.requires/*.mount")]):
        # Neither masked nor removed without being disabled.
        if link.is_symlink() and host.path(os.path.join(SYSTEM, link.parent.name, os.readlink(link))).is_file():
            name = os.fsencode(link.name[: -len(".mount")]).replace(b"-", b"/")
            yield "/" + os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), name))


def _unescaped(field: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))


def real(host: Host, path: str) -> str:
    """A path without links."""
    return posixpath.normpath(f"/{os.path.relpath(os.path.realpath(host.path(path)), os.path.realpath(host.root))}")
