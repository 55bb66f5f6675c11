# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""End everything that runs as an account, SSH sessions among it, and prove that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection

PROC = "/proc"
# What a process gets between SIGTERM and SIGKILL, and how long the end is waited for.
GRACE_SECONDS = 2.0
LIMIT_SECONDS = 20.0
_POLL_SECONDS = 0.1


def processes(uids: Collection[int]) -> dict[int, list[int]]:
    """Return the processes that run as one of the UIDs (real, effective, saved or for files), by UID."""
    found: dict[int, list[int]] = {}
    if not uids:
        return found
    for entry in os.listdir(PROC):
        if not entry.isdigit():
            continue
        # The owner of the directory says nothing: it is root for processes that changed their UID, as sshd's do.
        try:
            with open(f"{PROC}/{entry}/status", encoding="utf-8", errors="replace") as stream:
                status = dict(line.split(":", 1) for line in stream if ":" in line)
        except OSError:
            continue  # it ended
        if status.get("State", "").split()[:1] == ["Z"]:
            continue
        for uid in set(map(int, status.get("Uid", "").split())) & set(uids):
            found.setdefault(uid, []).append(int(entry))
    return found


def end_sessions(
    uids: Collection[int],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    kill: Callable[[int, int], None] = os.kill,
) -> frozenset[int]:
    """End all processes of the UIDs and return those that had any. Raises TimeoutError when some survive."""
    seen: set[int] = set()
    start = clock()
    told: set[int] = set()
    while True:
        left = processes(uids)
        if not left:
            return frozenset(seen)
        seen |= set(left)
        waited = clock() - start
        if waited > LIMIT_SECONDS:
            pids = sorted(pid for found in left.values() for pid in found)
            raise TimeoutError(f"processes {pids} of accounts that lost access do not end: end them, then run again")
        for pid in {pid for found in left.values() for pid in found}:
            number = signal.SIGKILL if waited > GRACE_SECONDS else signal.SIGTERM
            if number == signal.SIGKILL or pid not in told:
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, number)
            told.add(pid)
        sleep(_POLL_SECONDS)
