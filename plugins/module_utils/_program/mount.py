# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast mount JOB MOUNTPOINT`: the snapshots as directories, for root alone, until Ctrl-C or umount."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

from .._run import PATH
from . import borg, place, restic
from . import definition as definitions
from .definition import Definition
from .host import Host, ProgramError
from .mounts import mounted
from .text import say

PAUSE = 0.2
# Seconds for a tool to end once nothing is mounted any more, or once it is told to.
PATIENCE = 10
_NAME = "MOUNTPOINT"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def mount(host: Host, job: str, mountpoint: str) -> int:
    """Mount the snapshots of `job`, and wait until somebody unmounts them or ends this. Returns 0, or raises ProgramError.

    Whatever happens to the tool, nothing is mounted afterwards.
    """
    definition = definitions.resolve_one(host, job)
    mountpoint = _checked(host, mountpoint)
    _check_fuse(host, definition)
    argv, env = (_restic if definition.borg is None else borg.mount)(host, definition, str(host.path(mountpoint)))
    with _asked_to_end() as asked:
        try:
            process = host.started(argv, env=env)
        except OSError as error:
            raise ProgramError(f"{argv[0]} cannot be started: {error.strerror}") from error
        seen = False
        try:
            while process.poll() is None and not asked:
                if not seen and mounted(host, mountpoint):
                    seen = True
                    say(f"{definition.unit} is mounted on {mountpoint}, for root alone; end it with Ctrl-C or umount")
                host.sleep(PAUSE)
        finally:
            _end(host, mountpoint, process)
    if process.returncode and not asked:
        failure = (restic if definition.borg is None else borg).failure(process.returncode)
        raise ProgramError(f"{definition.unit} {'is not mounted any more' if seen else 'cannot be mounted'}: {failure}")
    return 0


def _checked(host: Host, mountpoint: str) -> str:
    if mounted(host, mountpoint):
        raise ProgramError(
            f"something is mounted on {_NAME} {mountpoint} already; choose another, or: umount {mountpoint}", 2
        )
    mountpoint = place.checked(host, _NAME, mountpoint)
    directory = os.fspath(host.path(mountpoint))
    if not os.path.exists(directory):
        raise ProgramError(f"{_NAME} {mountpoint} is not there; make it: mkdir {mountpoint}", 2)
    if os.path.realpath(directory) != directory:
        # What is mounted is known by its true name.
        raise ProgramError(f"{_NAME} {mountpoint} leads over a link; give {os.path.realpath(directory)}", 2)
    if place.occupied(host, mountpoint):
        raise ProgramError(f"{_NAME} {mountpoint} is not empty; choose another", 2)
    return mountpoint


def _check_fuse(host: Host, definition: Definition) -> None:
    """Restic mounts by a program of the package fuse3, borg by a library."""
    try:
        # A container may have the file and not the right to open it.
        os.close(os.open(host.path("/dev/fuse"), os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise ProgramError(
            f"/dev/fuse cannot be opened: {error.strerror}; load the kernel's module (modprobe fuse), or let this container"
            " have the device; holdfast restore needs neither"
        ) from None
    if definition.borg is None:
        if not any(host.path(f"{directory}/fusermount").exists() for directory in PATH.split(":")):
            raise ProgramError("there is no fusermount, by which restic mounts; install it: apt install fuse3")
    elif not borg.can_mount(host, definition):
        raise ProgramError("this borg has no binding to FUSE; install one: apt install python3-pyfuse3")


def _restic(host: Host, definition: Definition, mountpoint: str) -> tuple[list[str], dict[str, str]]:
    argv = [*definition.restic, "mount", "--no-lock", *restic.cache(host, definition), f"--tag={definition.job_tag}"]
    return [*argv, "--", mountpoint], restic.environment(host, definition)


@contextlib.contextmanager
def _asked_to_end() -> Iterator[list[int]]:
    """The signals that ask this program to end, which meanwhile do nothing else than being noted."""
    asked: list[int] = []
    before = {each: signal.signal(each, lambda number, _frame: asked.append(number)) for each in _ENDING}
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _end(host: Host, mountpoint: str, process: subprocess.Popen[bytes]) -> None:
    """Unmount, whoever still looks into it, which ends the tool; one that does not end is made to."""
    if mounted(host, mountpoint):
        _unmount(host, mountpoint)
    else:
        process.terminate()
    for insist in (process.terminate, process.kill):
        try:
            process.wait(PATIENCE)
            break
        except subprocess.TimeoutExpired:
            insist()
    process.wait()
    # It may have mounted just then; and one that crashed leaves a mount that nobody answers for.
    if mounted(host, mountpoint):
        said = _unmount(host, mountpoint)
        if mounted(host, mountpoint):
            raise ProgramError(f"{mountpoint} cannot be unmounted: {said}")


def _unmount(host: Host, mountpoint: str) -> str:
    """Take the mount away at once, even if it is in use. Returns what umount had to say."""
    return host.command(["umount", "--lazy", "--", str(host.path(mountpoint))], timeout=60).stderr.strip()
