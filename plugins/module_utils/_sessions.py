# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""End everything that runs as an account, SSH sessions among it, and prove that nothing is left."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping

PROC = "/proc"
# What a process gets between SIGTERM and SIGKILL, and how long the end is waited for.
GRACE_SECONDS = 2.0
LIMIT_SECONDS = 20.0
_POLL_SECONDS = 0.1
# How sshd names its process that decides about a login, from before it looks for the key until the session is over.
_LOGIN = re.compile(r"\Asshd(?:-session)?: (?P<account>[a-z0-9-]+) \[priv\]\Z")


def _status() -> Iterator[tuple[int, dict[str, str]]]:
    for entry in os.listdir(PROC):
        if not entry.isdigit():
            continue
        # The owner of the directory says nothing: it is root for processes that changed their UID, as sshd's do.
        try:
            with open(f"{PROC}/{entry}/status", encoding="utf-8", errors="replace") as stream:
                status = dict(line.split(":", 1) for line in stream if ":" in line)
        except OSError:
            continue  # it ended
        if status.get("State", "").split()[:1] != ["Z"]:
            yield int(entry), status


def processes(uids: Collection[int]) -> dict[int, list[int]]:
    """Return the processes that run as one of the UIDs (real, effective, saved or for files), by UID."""
    found: dict[int, list[int]] = {}
    if not uids:
        return found
    for pid, status in _status():
        for uid in set(map(int, status.get("Uid", "").split())) & set(uids):
            found.setdefault(uid, []).append(pid)
    return found


def logins(accounts: Mapping[int, str]) -> dict[int, list[int]]:
    """Return sshd's processes of the accounts that still run as root, by UID of the account."""
    found: dict[int, list[int]] = {}
    uids = {name: uid for uid, name in accounts.items()}
    for pid, status in _status():
        if set(status.get("Uid", "").split()) != {"0"} or not status.get("Name", "").strip().startswith("sshd"):
            continue
        try:
            with open(f"{PROC}/{pid}/cmdline", encoding="utf-8", errors="replace") as stream:
                title = _LOGIN.match(stream.read().rstrip("\0 "))
        except OSError:
            continue
        if title is not None and title["account"] in uids:
            found.setdefault(uids[title["account"]], []).append(pid)
    return found


def end_sessions(
    accounts: Mapping[int, str],
    *,
    ended: Callable[[int], None] = lambda _uid: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    kill: Callable[[int, int], None] = os.kill,
) -> tuple[frozenset[int], dict[int, list[int]]]:
    """End all processes of the accounts (names by UID), into which nobody may be able to log in meanwhile.

    `ended` is called for each account of which nothing is left, at once: another one may take its time. Returns the UIDs that
    had any, and the processes that do not end.
    """
    if not accounts:
        return frozenset(), {}
    # Who was let in by the keys of before may not be the account yet. Whoever comes later is not let in, so that is enough.
    before = {uid: set(pids) for uid, pids in logins(accounts).items()}
    waiting = dict(accounts)
    seen: set[int] = set()
    told: set[int] = set()
    start = clock()
    while True:
        if any(before.values()):
            there = logins(waiting)
            before = {uid: pids & set(there.get(uid, ())) for uid, pids in before.items()}
        # After those of root, which become them.
        found = processes(waiting)
        seen |= set(found)
        left = {uid: sorted({*found.get(uid, ()), *before.get(uid, ())}) for uid in waiting}
        for uid, pids in left.items():
            if not pids:
                del waiting[uid]
                ended(uid)
        left = {uid: pids for uid, pids in left.items() if pids}
        waited = clock() - start
        if not left or waited > LIMIT_SECONDS:
            return frozenset(seen), left
        for pid in {pid for pids in left.values() for pid in pids}:
            number = signal.SIGKILL if waited > GRACE_SECONDS else signal.SIGTERM
            if number == signal.SIGKILL or pid not in told:
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, number)
            told.add(pid)
        sleep(_POLL_SECONDS)
