# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about ansible-playbook's own process."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.backup.plugins.plugin_utils import _state, _templates, _unit_files

# Open as long as ansible-playbook runs, and not in the processes of its tasks: of a run that was killed, one may wait for a host for hours.
_held: dict[str, int | None] = {}


def _let_go() -> None:
    for directory, descriptor in _held.items():
        if descriptor is not None:
            os.close(descriptor)
        _held[directory] = None


os.register_at_fork(after_in_child=_let_go)


def keep_loaded(value: t.Any, units: bool = False) -> t.Any:
    """Return `value`; on the way, take all that is in memory now out of the reach of Python's garbage collector.

    Ansible forks a process for each task of each host. Each inherits a collector that is about to look at everything that
    was loaded, and what it looks at is copied by the kernel, page by page: the more a fleet has, the longer every task takes.
    With `units`, the templates of run units are compiled before, which each of these processes would do again.
    """
    if units:
        _templates.compile_all(_unit_files.TEMPLATES)
    gc.freeze()
    return value


def hold_state(value: t.Any, path: str, sources: t.Iterable[str], check_mode: bool = False) -> t.Any:
    """Return `value`; on the way, keep the state directory from other runs until this process ends.

    A run serves clients by what was known when it began: what another one revokes or rotates meanwhile it would bring back.
    Check mode holds nothing. Raises AnsibleFilterError where another run holds it.
    """
    try:
        # Not the state directory itself, which is locked for each change of it. Before the first run there is neither.
        directory = os.path.join(os.path.realpath(_state.resolve_state_dir(path, list(sources))), "hosts")
        if check_mode or directory in _held:
            return value
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (ValueError, OSError, TypeError, AttributeError):
        # What is wrong with it the task itself says.
        return value
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise AnsibleFilterError(
            f"nothing was changed: another run of site, rotate or decommission works with {os.path.dirname(directory)}{holder}."
            " Each would undo what the other changes: wait until it ends, or end it, and run again"
        ) from None
    except OSError:
        # A file system without locks.
        with contextlib.suppress(OSError):
            os.close(descriptor)
    else:
        _held[directory] = descriptor
    return value


def _holder(descriptor: int) -> str:
    """Which process has locked the file of a descriptor, in words; empty where the kernel does not tell."""
    info = os.fstat(descriptor)
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            fields = line.split()
            # Files of several file systems have that number.
            if fields[1] == "FLOCK" and int(fields[5].split(":")[2]) == info.st_ino and _has_open(fields[4], info):
                return f" (process {fields[4]} of this machine)"
    return ""


def _has_open(process: str, info: os.stat_result) -> bool:
    directory = f"/proc/{process}/fd"
    for name in os.listdir(directory):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(f"{directory}/{name}"), info):
                return True
    return False


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {"hold_state": hold_state, "keep_loaded": keep_loaded}
