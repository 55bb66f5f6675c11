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
_DEVICES = (b"/dev/", b"UUID=", b"LABEL=", b"PARTUUID=", b"PARTLABEL=")


def mounted(host: Host, directory: str) -> bool:
    """Whether something is mounted on exactly this directory; an automount is, too."""
    return (directory.rstrip("/") or "/") in (_points(host) or ())


def lacking(host: Host) -> list[str]:
    """The mount points that the boot should have mounted and where nothing is mounted."""
    points = _points(host)
    if points is None:
        return []
    done = {*points, *_masked(host)}
    declared = dict.fromkeys([*_fstab(host, devices=not points.get("/sys")), *_enabled(host)])
    return [each for each in declared if each not in done and real(host, each) not in points]


def _points(host: Host) -> dict[str, bool] | None:
    """Where something is mounted, and whether what is on top there is read-only."""
    try:
        lines = host.path("/proc/self/mountinfo").read_bytes().split(b"\n")
    except OSError:
        return None
    found = {}
    for fields in (line.split(b" ") for line in lines if line):
        options = fields[5].split(b",") + fields[-1].split(b",")
        found[_unescaped(fields[4])] = b"ro" in options
    return found


def _fstab(host: Host, *, devices: bool) -> Iterable[str]:
    """What /etc/fstab says is mounted at boot; what is kept in memory is empty then anyway.

    Where /sys is read-only, in a container that is, systemd passes over `devices`.
    """
    try:
        lines = host.path("/etc/fstab").read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) < 3 or line.lstrip().startswith(b"#") or fields[2] in (b"swap", b"tmpfs"):
            continue
        if not devices and fields[0].startswith(_DEVICES):
            continue
        options = fields[3].split(b",") if len(fields) > 3 else []
        if fields[1].startswith(b"/") and b"noauto" not in options:
            yield f"/{posixpath.normpath(_unescaped(fields[1])).lstrip('/')}"


def _enabled(host: Host) -> Iterable[str]:
    """The mount units that the administrator enabled at boot; what a device or service wants waits for that."""
    system = host.path(SYSTEM)
    for link in sorted([*system.glob("*.target.wants/*.mount"), *system.glob("*.target.requires/*.mount")]):
        # Not removed without being disabled.
        if link.is_symlink() and host.path(os.path.join(SYSTEM, link.parent.name, os.readlink(link))).is_file():
            yield _directory(link.name)


def _masked(host: Host) -> Iterable[str]:
    """What systemd does not mount, whoever declares it."""
    for unit in host.path(SYSTEM).glob("*.mount"):
        if unit.is_symlink() and os.readlink(unit) == os.devnull:
            yield _directory(unit.name)


def _directory(unit: str) -> str:
    """The directory of a mount unit, which its name is made from."""
    name = os.fsencode(unit[: -len(".mount")]).replace(b"-", b"/").strip(b"/")
    return "/" + os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), name))


def _unescaped(field: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))


def real(host: Host, path: str) -> str:
    """A path without links."""
    return posixpath.normpath(f"/{os.path.relpath(os.path.realpath(host.path(path)), os.path.realpath(host.root))}")
