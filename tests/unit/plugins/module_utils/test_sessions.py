# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that runs as an account ends, for real."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import count

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _sessions

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts processes of other users: needs root")
UID, OTHER = 45_671, 45_672


def start(uid: int, before: str = ":") -> subprocess.Popen[bytes]:
    command = ["/bin/sh", "-c", f"{before}; echo up; exec sleep 60"]
    process = subprocess.Popen(command, user=uid, group=uid, extra_groups=[], stdout=subprocess.PIPE, cwd="/")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_only_those_of_the_account(running: list[subprocess.Popen[bytes]]) -> None:
    mine, other = start(UID), start(OTHER)
    running += [mine, other]
    assert _sessions.processes([UID]) == {UID: [mine.pid]}
    assert _sessions.end_sessions([UID]) == {UID}
    assert mine.wait(5) == -signal.SIGTERM
    assert other.poll() is None
    assert _sessions.end_sessions([UID]) == frozenset()
    assert _sessions.processes([]) == {}


def test_one_that_does_not_want_to(running: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sessions, "GRACE_SECONDS", 0.3)
    stubborn = start(UID, "trap '' TERM")
    running.append(stubborn)
    assert _sessions.end_sessions([UID]) == {UID}
    assert stubborn.wait(5) == -signal.SIGKILL


def test_one_that_cannot_be_ended(running: list[subprocess.Popen[bytes]]) -> None:
    running.append(start(UID))
    clock = count(0, 5)
    with pytest.raises(TimeoutError, match=str(running[0].pid)):
        _sessions.end_sessions([UID], clock=lambda: next(clock), sleep=lambda _s: None, kill=lambda _p, _s: None)


def test_a_process_that_ends_meanwhile(running: list[subprocess.Popen[bytes]]) -> None:
    running.append(start(UID))

    def kill(pid: int, _number: int) -> None:
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        raise ProcessLookupError

    assert _sessions.end_sessions([UID], kill=kill) == {UID}


def test_processes_that_vanish_or_are_dead(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("11", "State:\tZ (zombie)\nUid:\t7\t7\t7\t7\n"), ("12", "State:\tS\nUid:\t0\t7\t0\t0\nodd\n")):
        directory = os.path.join(tmp_path, name)
        os.mkdir(directory)
        with open(f"{directory}/status", "w") as stream:
            stream.write(text)
    os.mkdir(os.path.join(tmp_path, "13"))
    os.mkdir(os.path.join(tmp_path, "self"))
    monkeypatch.setattr(_sessions, "PROC", str(tmp_path))
    assert _sessions.processes([7]) == {7: [12]}
