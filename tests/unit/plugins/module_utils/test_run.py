# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _run
from ansible_collections.holdfast.backup.plugins.module_utils._run import PATH, run

SHELL = "/bin/sh"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another account")


def alive(pid: int) -> bool:
    """Tell whether a process still runs after the moment that a signal takes (a zombie does not run)."""
    for _dummy in range(40):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except (FileNotFoundError, ProcessLookupError):
            return False
        time.sleep(0.05)
    return True


def test_environment_is_made_from_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the caller")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    result = run(["/usr/bin/env"], environment={"A": "1"}, timeout=10)
    assert result.code == 0
    variables = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert variables.pop("HOME").startswith("/")
    assert variables == {"A": "1", "LC_ALL": "C", "PATH": PATH}


def test_no_home_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    assert _run.base_environment() == {"LC_ALL": "C", "PATH": PATH}


def test_code_texts_input_and_directory() -> None:
    result = run([SHELL, "-c", "cat; pwd; echo no >&2; umask; exit 7"], timeout=10)
    assert (result.code, result.stdout, result.stderr) == (7, "/\n0077\n", "no\n")
    assert not result.timed_out
    assert not result.stopped


def test_long_output_of_both_pipes() -> None:
    result = run([SHELL, "-c", "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"], timeout=20)
    assert (len(result.stdout), len(result.stderr)) == (300000, 300000)


def test_of_much_on_standard_error_the_beginning_and_the_end_are_kept() -> None:
    """A server decides how much that is. Who parses it line by line loses those in between, and gets one that is none."""
    script = "echo first >&2; yes between | head -n 200000 >&2; echo last >&2"
    result = run([SHELL, "-c", script], timeout=20)
    assert len(result.stderr) < 2 * _run.STDERR_BYTES + 100
    lines = result.stderr.splitlines()
    assert (lines[0], lines[-1]) == ("first", "last")
    assert lines.count(_run.LEFT_OUT) == 1


@pytest.mark.parametrize("more", [0, 1])
def test_no_byte_is_left_out_before_it_has_to_be(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(_run, "STDERR_BYTES", 1000)
    result = run([SHELL, "-c", f"head -c {2000 + more} /dev/zero >&2"], timeout=20)
    assert (_run.LEFT_OUT in result.stderr) is bool(more)
    assert result.stderr.count("\0") == 2000


def test_more_output_than_anybody_asked_for_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut, it would be a shorter list of snapshots."""
    monkeypatch.setattr(_run, "STDOUT_BYTES", 100_000)
    result = run([SHELL, "-c", "echo $$ >&2; exec cat /dev/zero"], timeout=20)
    assert (result.code, result.stdout, result.timed_out) == (-signal.SIGKILL, "", False)
    assert result.stderr == "/bin/sh printed more than 100000 bytes"
    # Also where it ends well.
    result = run([SHELL, "-c", "head -c 100001 /dev/zero"], timeout=20)
    assert (result.code, result.stdout) == (-signal.SIGKILL, "")
    assert run([SHELL, "-c", "head -c 100000 /dev/zero"], timeout=20).code == 0


def test_timeout_ends_the_whole_group() -> None:
    result = run([SHELL, "-c", "sleep 60 & echo $!; wait"], timeout=0.5)
    assert result.timed_out
    assert result.code < 0
    assert not alive(int(result.stdout))


def test_timeout_kills_what_ignores_the_friendly_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "GRACE_SECONDS", 0.2)
    result = run([SHELL, "-c", "trap '' TERM; while :; do sleep 0.1; done"], timeout=0.5)
    assert result.timed_out
    assert result.code == -9


def test_whoever_is_interrupted_ends_the_program_first(tmp_path: Path) -> None:
    """It has a session of its own, so Ctrl-C does not reach it."""
    program = f"""
import sys
from ansible_collections.holdfast.backup.plugins.module_utils import _run
_run.run(["sh", "-c", "echo $$ >{tmp_path}/pid; exec sleep 60"], timeout=60)
"""
    paths = os.pathsep.join(path for path in sys.path if path)
    asking = subprocess.Popen([sys.executable, "-c", program], env={"PYTHONPATH": paths}, stderr=subprocess.DEVNULL)
    pid = tmp_path / "pid"
    try:
        for _dummy in range(200):
            if pid.exists() and pid.read_text().endswith("\n"):
                break
            time.sleep(0.1)
        asking.send_signal(signal.SIGINT)
        asking.wait(20)
        assert not alive(int(pid.read_text()))
    finally:
        asking.kill()
        asking.wait()


def test_timeout_of_a_program_that_closed_its_pipes() -> None:
    code = "import os, time; os.close(1); os.close(2); time.sleep(60)"
    result = run([sys.executable, "-c", code], timeout=0.5)
    assert result.timed_out


def test_a_child_that_keeps_the_pipe_open_does_not_hold_us_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "DRAIN_SECONDS", 0.2)
    result = run([SHELL, "-c", "sleep 60 & echo $!"], timeout=30)
    assert (result.code, result.timed_out) == (0, False)
    assert not alive(int(result.stdout))


def test_stops_at_the_nth_match() -> None:
    script = "echo retry 1 >&2; sleep 0.3; echo retry 2 >&2; sleep 60"
    result = run([SHELL, "-c", script], timeout=30, stop_on=re.compile("retry"), stop_after=2)
    assert result.stopped
    assert not result.timed_out
    assert result.stderr.split() == ["retry", "1", "retry", "2"]


def test_what_it_stops_on_may_come_in_pieces_and_after_much_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "STDERR_BYTES", 1000)
    script = "printf 're' >&2; sleep 0.3; printf 'try ä re' >&2; sleep 0.3; echo try >&2; head -c 90000 /dev/zero >&2;"
    script += " sleep 60"
    result = run([SHELL, "-c", script], timeout=1, stop_on=re.compile("retry"), stop_after=3)
    assert (result.stopped, result.timed_out) == (False, True)
    script = script.replace("sleep 60", "printf 'retry' >&2; sleep 0.2; printf '\\n' >&2; sleep 60")
    result = run([SHELL, "-c", script], timeout=30, stop_on=re.compile("retry"), stop_after=3)
    assert (result.stopped, result.timed_out) == (True, False)


def test_secrets_are_files_in_memory_that_can_be_read_twice() -> None:
    result = run([SHELL, "-c", 'cat "$S"; cat "$S"; env'], files={"S": b"secret"}, timeout=10)
    assert result.stdout.startswith("secretsecret")
    assert result.stdout.count("secret") == 2


@root_only
def test_runs_as_another_account_that_reads_its_secret() -> None:
    result = run([SHELL, "-c", 'id -un; echo "$HOME"; cat "$S"'], files={"S": b"secret"}, user="nobody", timeout=10)
    assert result.stdout == "nobody\n/nonexistent\nsecret"


@root_only
def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _dummy in range(3):
        run(["/bin/true"], files={"A": b"", "B": b""}, timeout=10)
    assert len(os.listdir("/proc/self/fd")) == before


def test_unknown_account() -> None:
    with pytest.raises(ValueError, match="no account 'nobody-here'"):
        run(["/bin/true"], user="nobody-here", timeout=1)


def test_program_that_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        run(["/nonexistent/program"], timeout=1)
