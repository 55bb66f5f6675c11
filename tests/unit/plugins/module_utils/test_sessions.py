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
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _sessions

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts processes of other users: needs root")
# Nobody else's on this machine, where the same test may run twice.
UID = 20_000 + os.getpid() % 20_000
OTHER = UID + 20_000
# Nor has a host of a lab on this machine an account of that name.
MINE = {UID: "bk-unit-test"}
NOBODY: tuple[frozenset[int], dict[int, list[int]]] = (frozenset(), {})


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
    assert _sessions.end_sessions(MINE) == (frozenset({UID}), {})
    assert mine.wait(5) == -signal.SIGTERM
    assert other.poll() is None
    assert _sessions.end_sessions(MINE) == NOBODY
    assert _sessions.end_sessions({}) == NOBODY
    assert _sessions.processes([]) == {}


def test_one_that_does_not_want_to(running: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sessions, "GRACE_SECONDS", 0.3)
    stubborn = start(UID, "trap '' TERM")
    running.append(stubborn)
    assert _sessions.end_sessions(MINE) == (frozenset({UID}), {})
    assert stubborn.wait(5) == -signal.SIGKILL


def test_one_that_cannot_be_ended_holds_up_no_other(running: list[subprocess.Popen[bytes]]) -> None:
    mine, other = start(UID), start(OTHER)
    running += [mine, other]
    clock = count(0, 5)
    ended: list[int] = []

    def kill(pid: int, number: int) -> None:
        if pid == other.pid:
            os.kill(pid, number)
            other.wait()

    seen, left = _sessions.end_sessions(
        {**MINE, OTHER: "bk-unit-other"},
        ended=ended.append,
        clock=lambda: next(clock),
        sleep=lambda _s: None,
        kill=kill,
    )
    assert (set(seen), left, ended) == ({UID, OTHER}, {UID: [mine.pid]}, [OTHER])


def test_a_process_that_ends_meanwhile(running: list[subprocess.Popen[bytes]]) -> None:
    running.append(start(UID))

    def kill(pid: int, _number: int) -> None:
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        raise ProcessLookupError

    assert _sessions.end_sessions(MINE, kill=kill) == (frozenset({UID}), {})


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


def test_a_login_that_still_is_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was let in by a key that is gone, and will be the account in a moment."""
    for name, uid, comm, title in (
        (11, 0, "sshd-session", "sshd-session: bk-unit-test [priv]\0\0"),
        (12, 0, "sshd", "sshd: bk-unit-test0 [priv]"),
        (13, 0, "cat", "sshd: bk-unit-test [priv]"),
        (14, 7, "sshd", "sshd: bk-unit-test [priv]"),
        (15, 0, "sshd", "sshd: bk-unit-test@notty"),
    ):
        (tmp_path / str(name)).mkdir()
        text = f"Name:\t{comm}\nState:\tS\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        (tmp_path / str(name) / "status").write_text(text)
        (tmp_path / str(name) / "cmdline").write_text(title)
    (tmp_path / "16").mkdir()
    (tmp_path / "16/status").write_text("Name:\tsshd\nState:\tS\nUid:\t0\t0\t0\t0\n")
    monkeypatch.setattr(_sessions, "PROC", str(tmp_path))
    assert _sessions.logins(MINE) == {UID: [11]}
    told: list[int] = []

    def kill(pid: int, _number: int) -> None:
        told.append(pid)
        # Another one comes, who is not let in.
        (tmp_path / str(pid)).rename(tmp_path / "17")

    assert _sessions.end_sessions(MINE, kill=kill) == NOBODY
    assert told == [11]
