# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds a lock of restic's.

Restic itself would ask by a SIGHUP to the process id in a lock of this host: after a reboot that may be any program, which
ends of it. So it is asked here, and then every lock is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ._model import parse_time

# What restic calls a stale lock, in seconds.
STALE = 30 * 60
# More locks than so many have no innocent reason, and to look at each takes a second.
MOST = 50
# Characters that the kernel keeps of a program's name.
_COMM = 15


def program(pid: object, proc: str = "/proc") -> str:
    """The name of the program that a process runs, as far as the kernel keeps it; empty where there is no such process."""
    try:
        with open(f"{proc}/{int(str(pid))}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().rstrip("\n")
    except (OSError, ValueError):
        return ""


def holder(lock: Mapping[str, Any], *, host: str, binary: str, now: float, running: Callable[[object], str]) -> str:
    """Who holds a lock, in words that its maker chose; empty for nobody.

    `host` is the name of this one, `binary` its restic, `now` in seconds since 1970; `running` says what program a process
    runs.
    """
    where, pid, made = (lock.get(key) for key in ("hostname", "pid", "time"))
    who = f"{lock.get('username')} on {where} (process {pid}, since {made})"
    if where == host:
        # Another program may have that process id by now.
        return who if running(pid) in ("restic", os.path.basename(binary)[:_COMM]) else ""
    try:
        # Restic makes its lock anew every five minutes.
        return who if now - parse_time(str(made)) < STALE else ""
    except ValueError:
        return ""
