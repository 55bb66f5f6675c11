# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""status, run, log, snapshots, restore and the command line."""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _tls
from ansible_collections.holdfast.backup.plugins.module_utils._program import (
    cli,
    journal,
    outcomes,
    place,
    pretend,
    restic,
    start,
    systemd,
    text,
)
from ansible_collections.holdfast.backup.plugins.module_utils._program import host as hosts
from ansible_collections.holdfast.backup.plugins.module_utils._program.host import Done
from ansible_collections.holdfast.backup.plugins.module_utils._program.state import State

from tests.unit.plugins.module_utils.program.program_host import (
    FATAL,
    ID,
    INVOCATION,
    NOW,
    RECORD,
    SERVICE,
    SKIPPED,
    SNAPSHOT,
    STATUS,
    SUMMARY,
    UNIT,
    UNREADABLE,
    FakeHost,
    define,
    entries,
)

Capture = pytest.CaptureFixture[str]
# What restic 0.18.0 said with --json where SSH, or the person, stopped it.
REFUSED = """\
rclone: ssh: connect to host 127.0.0.1 port 2: Connection refused
{"message_type":"exit_error","code":1,"message":"Fatal: unable to open repository at rclone:x: error talking HTTP to rclone: exit status 255"}
"""
HOST_KEY = """\
subprocess ssh: No ED25519 host key is known for 127.0.0.1 and you have requested strict checking.
subprocess ssh: Host key verification failed.
{"message_type":"exit_error","code":1,"message":"Fatal: unable to open repository at sftp:x:/srv/restic: \
unable to start the sftp session, error: error receiving version packet from server: server unexpectedly closed connection: unexpected EOF"}
"""
CUT = """\
{"message_type":"exit_error","code":1,"message":"Fatal: unable to open config file: context canceled\\n\
Is there a repository at the following location?\\nrest:http://127.0.0.1:9/"}
"""
SUMMARY_NUMBERS = json.loads(SUMMARY)
EARLIER = "0" * 32


def shown(*, active: str = "inactive", loaded: str = "loaded", unit: str = UNIT) -> str:
    """systemctl show of a service, as systemd 257 prints it."""
    return f"Id=holdfast-{unit}.service\nLoadState={loaded}\nActiveState={active}\nInvocationID={INVOCATION}\n"


def timers(following: int | None = int(NOW) + 7200, unit: str = UNIT) -> str:
    """systemctl list-timers, as systemd 252 and 257 print it."""
    stamp = following and following * 1000000
    timer = {"next": stamp, "left": stamp, "last": 0, "passed": 0}
    return json.dumps([{**timer, "unit": f"holdfast-{unit}.timer", "activates": f"holdfast-{unit}.service"}])


def outcome(host: FakeHost, **changes: Any) -> dict[str, Any]:
    """Record an outcome."""
    content = {
        "outcome": "ok",
        "reason": None,
        "message": "",
        "started": "2026-11-21T12:00:00Z",
        "ended": "2026-11-21T12:00:05Z",
        "duration_seconds": 5.0,
        "exit_status": 0,
        "invocation_id": INVOCATION,
        "snapshot": SNAPSHOT,
        "summary": SUMMARY_NUMBERS,
        "last_ok": "2026-11-21T12:00:05Z",
        "told": None,
        "missing": [],
        "dumps": {},
        "dumps_failed": [],
        **changes,
    }
    outcomes.write(host, UNIT, content, outcomes.last(host, UNIT))
    return content


def call(host: FakeHost, *argv: str) -> int:
    """Run the command line."""
    return cli.main(argv, host)


@pytest.fixture
def ready(host: FakeHost) -> FakeHost:
    """A host with one run unit that systemd knows."""
    define(host)
    host.answer("systemctl", "show", stdout=shown())
    host.answer("systemctl", "list-timers", f"holdfast-{UNIT}.timer", stdout=timers())
    return host


# --- status


def test_status_as_json(ready: FakeHost, capsys: Capture) -> None:
    outcome(ready)
    assert call(ready, "status", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    (unit,) = document.pop("units")
    assert document == {
        "format": 1,
        "hostname": document["hostname"],
        "time": "2026-11-21T13:00:00Z",
        "holdfast": "0",
        "restic": "0.18.0",
    }
    summary = unit.pop("summary")
    assert summary["files_new"] == 2
    assert unit == {
        "unit": UNIT,
        "job": "system",
        "repository": "vault",
        "engine": "restic",
        "access": "local",
        "escrow": "local",
        "outcome": "ok",
        "reason": None,
        "message": "",
        "started": "2026-11-21T12:00:00Z",
        "ended": "2026-11-21T12:00:05Z",
        "duration_seconds": 5.0,
        "exit_status": 0,
        "last_ok": "2026-11-21T12:00:05Z",
        "snapshot": SNAPSHOT,
        "missing": [],
        "dumps": {},
        "dumps_failed": [],
        "told": None,
        "next": "2026-11-21T15:00:00Z",
        "loaded": True,
        "running": False,
        "percent_done": None,
        "age_seconds": 3595,
        "repository_state": "present",
    }


def test_an_outcome_does_not_outlive_its_repository(ready: FakeHost, capsys: Capture) -> None:
    """The unit was given another server, say, where there is nothing yet."""

    def shown_now() -> tuple[str, str | None, str | None, int | None]:
        assert call(ready, "status", "--json") == 0
        (unit,) = json.loads(capsys.readouterr().out)["units"]
        return unit["outcome"], unit["snapshot"], unit["last_ok"], unit["age_seconds"]

    there = ("ok", SNAPSHOT, "2026-11-21T12:00:05Z", 3595)
    outcome(ready, repository_id=ID)
    assert shown_now() == there
    record = ready.path("/var/lib/holdfast/repositories/vault.env")
    record.write_text(RECORD.replace(ID, "5" * 64))
    assert shown_now() == ("never_ran", None, None, None)
    assert outcomes.of(ready, UNIT, INVOCATION) is not None
    ready.journal(SUMMARY, invocation=INVOCATION)
    assert call(ready, "log", "system") == 0
    assert capsys.readouterr().out.endswith("outcome: ok, into a repository that was here before\n")
    # It cannot be known; and what an earlier version recorded.
    record.unlink()
    assert shown_now() == there
    record.write_text(RECORD.replace(ID, "5" * 64))
    outcome(ready)
    assert shown_now() == there


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"outcome": "incomplete", "reason": "source missing"}, "present"),
        ({"outcome": "failed", "reason": "no repository"}, "absent"),
        ({"outcome": "failed", "reason": "no record"}, None),
        ({"outcome": "failed", "reason": "locked"}, "locked"),
        ({"outcome": "failed", "reason": "wrong password"}, "wrong_key"),
        ({"outcome": "failed", "reason": "wrong credentials"}, "unreachable"),
        ({"outcome": "failed", "reason": "unreachable"}, "unreachable"),
        ({"outcome": "failed", "reason": "killed"}, None),
    ],
)
def test_what_is_known_of_the_repository(
    ready: FakeHost, capsys: Capture, changes: dict[str, Any], state: str | None
) -> None:
    outcome(ready, **changes)
    call(ready, "status", "system", "--json")
    assert json.loads(capsys.readouterr().out)["units"][0]["repository_state"] == state


@pytest.mark.parametrize(
    ("active", "asked", "share"), [("inactive", False, None), ("failed", True, None), ("activating", True, 18.0)]
)
def test_only_what_runs_or_failed_is_asked_for_more(
    ready: FakeHost, capsys: Capture, active: str, asked: bool, share: float | None
) -> None:
    said = {"unit": SERVICE, "load": "loaded", "active": active, "sub": "dead", "description": "Backup"}
    ready.answer("systemctl", "list-units", SERVICE, stdout=json.dumps([said]))
    ready.answer("systemctl", "show", stdout=shown(active=active))
    ready.journal(STATUS)
    assert call(ready, "status", "--json") == 0
    (unit,) = json.loads(capsys.readouterr().out)["units"]
    assert (unit["loaded"], unit["running"], unit["percent_done"]) == (True, share is not None, share)
    assert any(words[:2] == ["systemctl", "show"] for words in ready.calls) == asked


def test_a_failure_that_could_not_be_recorded(ready: FakeHost, capsys: Capture) -> None:
    """The disk was full, say: the last outcome on record is the good one before."""
    outcome(ready, invocation_id="0" * 32)
    ready.answer("systemctl", "show", stdout=shown(active="failed"))
    assert call(ready, "status", "--json") == 0
    (unit,) = json.loads(capsys.readouterr().out)["units"]
    assert (unit["outcome"], unit["reason"]) == ("failed", "unknown")
    assert (unit["last_ok"], unit["age_seconds"]) == ("2026-11-21T12:00:05Z", 3595)
    assert {unit[name] for name in ("ended", "snapshot", "summary", "repository_state")} == {None}
    assert f"journalctl -u 'holdfast-record@{UNIT}*'" in unit["message"]
    ready.journal(FATAL.format(1, "no space left on device"), invocation=INVOCATION)
    assert call(ready, "log", "system") == 0
    said = capsys.readouterr().out
    assert "no space left on device" in said
    assert "outcome" not in said


def test_a_failure_before_the_last_outcome(ready: FakeHost, capsys: Capture) -> None:
    """Systemd refused the run after it, and has no invocation of that."""
    outcome(ready, outcome="failed", reason="locked")
    outcome(ready, outcome="failed", reason="unreachable", invocation_id=None)
    ready.answer("systemctl", "show", stdout=shown(active="failed"))
    assert call(ready, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["units"][0]["reason"] == "unreachable"


def test_status_for_people(ready: FakeHost, capsys: Capture) -> None:
    outcome(ready, outcome="failed", reason="disk full", message="first\nsecond")
    assert call(ready, "status") == 0
    assert capsys.readouterr().out == (
        "UNIT           OUTCOME  REASON     LAST OK               AGE     NEXT    RUNNING\n"
        "system--vault  failed   disk full  2026-11-21T12:00:05Z  60 min  in 2 h  -\n"
        "\n"
        "system--vault: disk full\n"
        "  first\n"
        "  second\n"
    )


def test_status_passes_on_what_a_good_run_has_to_say(ready: FakeHost, capsys: Capture) -> None:
    outcome(ready, message="no file is in this snapshot")
    assert call(ready, "status") == 0
    assert capsys.readouterr().out.endswith("\n\nsystem--vault: ok\n  no file is in this snapshot\n")


def test_never_ran_and_not_there(host: FakeHost, capsys: Capture) -> None:
    define(host)
    host.answer("systemctl", "show", stdout=shown(loaded="not-found"))
    assert call(host, "status") == 0
    said = capsys.readouterr().out
    assert "never_ran  -       never    -    no timer  -" in said
    host.answer("systemctl", "list-timers", stdout=timers(None))
    call(host, "status", "--json")
    assert json.loads(capsys.readouterr().out)["units"][0]["next"] is None
    assert f"systemd has no {SERVICE}; run the site playbook" in said


def test_when_systemd_does_not_answer(ready: FakeHost, capsys: Capture) -> None:
    ready.answer("systemctl", "list-timers", status=1, stdout="", stderr="no bus")
    assert call(ready, "status") == 0
    ready.answer("systemctl", "list-timers", status=1, stdout="{", stderr="no bus")
    assert call(ready, "status") == 1
    assert "systemctl list-timers failed: no bus" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "share"), [(STATUS, 18.0), ("nothing", None)])
def test_a_running_one(host: FakeHost, capsys: Capture, line: str, share: float | None) -> None:
    define(host)
    host.answer("systemctl", "show", stdout=shown(active="activating"))
    host.journal(line)
    call(host, "status", "--json")
    (unit,) = json.loads(capsys.readouterr().out)["units"]
    assert (unit["running"], unit["percent_done"]) == (True, share)
    call(host, "status")
    assert ("18 %" if share else "yes") in capsys.readouterr().out


def test_a_bad_definition_hides_no_other(ready: FakeHost, capsys: Capture) -> None:
    ready.put("/etc/holdfast/units/bad--vault.json", "{")
    assert call(ready, "status") == 1
    said = capsys.readouterr()
    assert UNIT in said.out
    assert "bad--vault.json cannot be used" in said.err


def test_no_units(host: FakeHost, capsys: Capture) -> None:
    assert call(host, "status") == 0
    assert capsys.readouterr().out == "no run units on this host\n"
    assert call(host, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["restic"] is None


def test_systemd_does_not_answer(host: FakeHost, capsys: Capture) -> None:
    define(host)
    host.answer("systemctl", "show", status=1, stderr="no bus\n")
    assert call(host, "status") == 1
    assert capsys.readouterr().err == "holdfast: systemctl show failed: no bus\n"


def test_texts() -> None:
    assert [text.size(value) for value in (None, 0, 1536, 2**40, 2**50)] == [
        "-",
        "0 B",
        "1.5 KiB",
        "1.0 TiB",
        "1024.0 TiB",
    ]
    assert [text.span(value) for value in (None, 5, 90, 7200, 90000, 200000)] == [
        "-",
        "5 s",
        "2 min",
        "2 h",
        "25 h",
        "2 d",
    ]
    assert hosts.seconds_of(hosts.timestamp(NOW)) == NOW
    assert hosts.seconds_of("x") is None
    assert systemd.ask(FakeHost(Path("/nonexistent")), []) == {}


# --- run


def test_run_returns_at_once(ready: FakeHost, capsys: Capture) -> None:
    assert call(ready, "run", "system") == 0
    assert ["systemctl", "start", "--no-block", "--", SERVICE] in ready.calls
    assert capsys.readouterr().out == f"{UNIT} is being started\nsee: holdfast status system\n"
    ready.answer("systemctl", "start", status=1, stderr="refused")
    assert call(ready, "run", "system") == 1
    assert capsys.readouterr().err == "holdfast: systemctl start failed: refused\n"


def test_run_of_several(host: FakeHost, capsys: Capture) -> None:
    """Each once, whichever way it is named, and all at the same time."""
    for job, repository in (("system", "vault"), ("system", "offsite"), ("web", "vault")):
        define(host, job=job, repository=repository)
    units = ("system--offsite", "system--vault", "web--vault")
    services = [f"holdfast-{unit}.service" for unit in units]
    host.answer("systemctl", "show", stdout="\n".join(shown(unit=unit) for unit in units))
    assert call(host, "run", "system", "web--vault", "system--vault") == 0
    assert ["systemctl", "start", "--no-block", "--", *services] in host.calls
    assert capsys.readouterr().out.splitlines()[-1] == "see: holdfast status"
    assert call(host, "run", "--wait", "system--vault", "other") == 2
    assert "there is no job 'other'" in capsys.readouterr().err


def test_run_needs_its_unit(host: FakeHost, capsys: Capture) -> None:
    define(host)
    host.answer("systemctl", "show", stdout=shown(loaded="not-found"))
    assert call(host, "run", "system") == 1
    assert f"systemd has no {SERVICE}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            (
                "failed",
                0,
                "system--vault: ok in 5 s\n  files: 2 new, 0 changed, 1 unchanged, 2.9 MiB in all; added 2.9 MiB\n",
            ),
        ),
        (
            {"outcome": "failed", "reason": "locked", "summary": None, "message": "by x"},
            ("failed", 1, "system--vault: failed, locked in 5 s\n  by x\n"),
        ),
        (
            {"dumps": {"pg": "ab" * 32}, "summary": None},
            ("failed", 0, "system--vault: ok in 5 s\n  dump pg: snapshot abababab\n"),
        ),
        ({"outcome": "incomplete", "reason": "source missing"}, ("failed", 1, "incomplete, source missing")),
        ({"outcome": "incomplete", "reason": "source missing"}, ("ok", 0, "incomplete, source missing")),
    ],
)
def test_run_waits(host: FakeHost, capsys: Capture, changes: dict[str, Any], expected: tuple[str, int, str]) -> None:
    accepted, status, said = expected
    define(host, incomplete_is=accepted)
    host.answer("systemctl", "show", stdout=shown(active="activating"))
    outcome(host, ended="2026-11-20T12:00:00Z", invocation_id=EARLIER)
    # The recorder is done a moment after the unit.
    host.sleep = lambda _seconds: outcome(host, **changes)  # type: ignore[assignment, method-assign]
    assert call(host, "run", "system", "--wait") == status
    assert ["systemctl", "start", "--", SERVICE] in host.calls
    printed = capsys.readouterr().out
    assert printed.startswith(f"{UNIT} is already running\n")
    assert said in printed


def test_run_without_an_outcome(ready: FakeHost, capsys: Capture) -> None:
    begins(ready)
    assert call(ready, "run", "system", "--wait") == 1
    assert "no outcome was recorded" in capsys.readouterr().err
    assert ready.slept == start.RECORD_PATIENCE


def begins(host: FakeHost, invocation: str = INVOCATION, *, collected: bool = False, status: int = 0) -> None:
    """systemctl start begins a run with this id after one that was EARLIER; systemd forgets both if `collected`."""

    def says(newest: str) -> None:
        State(UNIT, newest, NOW).save(host)
        said = shown().replace(INVOCATION, "" if collected else newest)
        host.answer("systemctl", "show", stdout=said)

    def starts(_argv: Sequence[str]) -> Done:
        says(invocation)
        return Done(status, "", "Job failed.\n" if status else "")

    says(EARLIER)
    host.answers.insert(0, (("systemctl", "start"), starts))


def records(host: FakeHost, *changes: dict[str, Any]) -> None:
    """A recorder writes each of these a second after the one before."""
    coming = list(changes)

    def sleep(seconds: float) -> None:
        host.slept += seconds
        if coming:
            outcome(host, **coming.pop(0))

    host.sleep = sleep  # type: ignore[method-assign]


BAD = {"outcome": "failed", "reason": "locked", "summary": None}


@pytest.mark.parametrize("collected", [False, True])
def test_run_waits_for_its_own_outcome(ready: FakeHost, capsys: Capture, collected: bool) -> None:
    """That of the run before may be written only now."""
    begins(ready, collected=collected, status=1)
    records(ready, {"invocation_id": EARLIER}, BAD)
    assert call(ready, "run", "system", "--wait") == 1
    assert f"{UNIT}: failed, locked in 5 s\n" in capsys.readouterr().out


def test_run_finds_its_outcome_when_another_run_has_ended_since(ready: FakeHost, capsys: Capture) -> None:
    begins(ready, status=1)
    outcome(ready, **BAD)
    outcome(ready, invocation_id="9" * 32)
    assert call(ready, "run", "system", "--wait") == 1
    assert "failed, locked" in capsys.readouterr().out


def test_run_that_systemd_refuses(ready: FakeHost, capsys: Capture) -> None:
    """There is no new run, and what the one before left is no answer."""
    begins(ready, EARLIER, status=1)
    outcome(ready, **BAD, invocation_id=None, ended="2026-11-20T12:00:00Z")
    records(ready, {"invocation_id": EARLIER}, {**BAD, "reason": "unreachable", "invocation_id": None})
    assert call(ready, "run", "system", "--wait") == 1
    assert f"{UNIT}: failed, unreachable in 5 s\n" in capsys.readouterr().out
    assert ready.slept == 2


def test_run_that_systemd_skips(ready: FakeHost, capsys: Capture) -> None:
    """Someone's drop-in has a condition: no run, no failure, and nothing to wait for."""
    begins(ready, EARLIER)
    records(ready, {"invocation_id": EARLIER})
    assert call(ready, "run", "system", "--wait") == 1
    assert f"{UNIT}: systemd did not run it; see: systemctl status {SERVICE}\n" in capsys.readouterr().err
    assert ready.slept == 0


SERVICE_TEXT = """\
# /etc/systemd/system/holdfast-system--vault.service
[Unit]
OnSuccess=holdfast-record@system--vault.service
OnFailure = holdfast-record@system--vault.service

[Service]
LoadCredential=password:/etc/holdfast/secrets/vault.password
ExecStartPre=+/usr/local/bin/holdfast prepare system--vault
ExecStart=/usr/bin/restic \\
  backup --json --tag=backup \\
  -- /srv/backup "/srv/ backup "
ExecStartPost=+/usr/local/bin/holdfast verify system--vault
ExecStopPost=+/usr/local/bin/holdfast finish system--vault
"""


def test_the_unit_of_a_dry_run() -> None:
    assert pretend.copy_of(SERVICE_TEXT, "restic") == (
        "# /etc/systemd/system/holdfast-system--vault.service\n[Unit]\n\n[Service]\n"
        "LoadCredential=password:/etc/holdfast/secrets/vault.password\n"
        'ExecStart=/usr/bin/restic  backup --dry-run --json --tag=backup  -- /srv/backup "/srv/ backup "\n\n'
        "[Service]\nRemainAfterExit=yes\n"
    )


def test_dry_run(ready: FakeHost, capsys: Capture) -> None:
    name = f"holdfast-dry-run@{UNIT}.service"
    copy = ready.path(f"/run/systemd/system/{name}")
    listed = f"/run/holdfast/{UNIT}.sources"
    ready.answer("systemctl", "cat", stdout=SERVICE_TEXT.replace(" -- ", f" --files-from-raw={listed} -- "))
    ready.answer("systemctl", "--value", stdout=f"{INVOCATION}\n")
    ready.journal(SUMMARY.replace('"snapshot_id"', '"dry_run":true,"snapshot_id"'))
    ready.put("/srv/optional")
    # A true run is about to read it.
    ready.put(listed, "/srv/of the true run\0")
    held = []

    def start(_argv: Sequence[str]) -> hosts.Done:
        with open(ready.path(f"/run/holdfast/dry-run-{UNIT}.lock")) as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert f"--files-from-raw=/run/holdfast/dry-run-{UNIT}.sources -- " in copy.read_text()
        assert ready.path(f"/run/holdfast/dry-run-{UNIT}.sources").read_bytes() == b"/srv/optional\0"
        held.append(True)
        return hosts.Done(0)

    ready.answers.insert(0, (("systemctl", "start"), start))
    assert call(ready, "run", "system", "--dry-run") == 0
    # Another one waits: its end would be this one's.
    assert held
    assert capsys.readouterr().out == (
        "system--vault: dry run, nothing is saved\n"
        "  files: 2 new, 0 changed, 1 unchanged, 2.9 MiB in all; would add 2.9 MiB\n"
    )
    verbs = [words[1] for words in ready.calls if words[0] == "systemctl"]
    assert verbs == [
        "list-units",
        "show",
        "list-timers",
        "cat",
        "stop",
        "daemon-reload",
        "start",
        "show",
        "stop",
        "reset-failed",
        "daemon-reload",
    ]
    assert not copy.exists()
    assert not ready.path(f"/run/holdfast/dry-run-{UNIT}.sources").exists()
    assert ready.path(listed).read_bytes() == b"/srv/of the true run\0"
    assert outcomes.last(ready, UNIT) is None


def test_dry_run_that_fails(ready: FakeHost, capsys: Capture) -> None:
    ready.answer("systemctl", "cat", stdout=SERVICE_TEXT)
    ready.answer("systemctl", "start", status=1)
    ready.answer("systemctl", "--value", stdout=f"{INVOCATION}\n")
    ready.journal(FATAL.format(12, "Fatal: wrong password or no key found"))
    assert call(ready, "run", "system", "--dry-run") == 1
    assert "Fatal: wrong password" in capsys.readouterr().err
    ready.journal()
    ready.path("/var/lib/holdfast/repositories/vault.env").unlink()
    assert call(ready, "run", "system", "--dry-run") == 1
    assert "no record" in capsys.readouterr().err


def test_dry_run_of_dumps(ready: FakeHost, capsys: Capture) -> None:
    define(ready, paths=[], optional_paths=[], dumps=[{"name": "pg", "unit": "pg.service"}])
    assert call(ready, "run", "system", "--dry-run") == 0
    assert "it has only dumps" in capsys.readouterr().out
    assert ["systemctl", "daemon-reload"] not in ready.calls


def test_dry_run_of_something_else(ready: FakeHost, capsys: Capture) -> None:
    ready.answer("systemctl", "cat", stdout="[Service]\nExecStart=/bin/true\n")
    assert call(ready, "run", "system", "--dry-run") == 1
    assert "its ExecStart= is no backup by restic" in capsys.readouterr().err


@pytest.mark.parametrize(("incomplete_is", "status"), [("failed", 1), ("ok", 0)])
def test_dry_run_names_what_is_missing(host: FakeHost, capsys: Capture, incomplete_is: str, status: int) -> None:
    define(host, paths=["/srv/gone"], incomplete_is=incomplete_is)
    host.answer("systemctl", "show", stdout=shown())
    host.answer("systemctl", "cat", stdout=SERVICE_TEXT)
    assert call(host, "run", "system", "--dry-run") == status
    assert "declared but not there: /srv/gone" in capsys.readouterr().err


# --- log and snapshots


def test_log(ready: FakeHost, capsys: Capture) -> None:
    outcome(ready, outcome="incomplete", reason="source unreadable")
    odd = '{"message_type":"other","x":1}'
    ready.journal(
        ("holdfast", "hook"), STATUS, UNREADABLE, SUMMARY, odd, FATAL.format(3, "Warning: one\\nIs there"), SKIPPED
    )
    assert call(ready, "log", "system") == 0
    lines = [line.split(" ", 2)[-1] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "system--vault",
        "holdfast: hook",
        "restic: 18 % done, 1 files, 526.2 KiB",
        "restic: error: open /src/b: permission denied",
        "restic: files: 2 new, 0 changed, 1 unchanged, 2.9 MiB in all; added 2.9 MiB",
        "restic: snapshot 331fa3bb",
        'restic: {"message_type": "other", "x": 1}',
        "restic: Warning: one",
        "restic: Is there",
        "restic: /srv/gone does not exist, skipping",
        "source unreadable",
    ]


def test_log_of_a_run_whose_outcome_could_not_be_recorded(ready: FakeHost, capsys: Capture) -> None:
    said = {"unit": SERVICE, "load": "loaded", "active": "failed", "sub": "failed", "description": "Backup"}
    ready.answer("systemctl", "list-units", SERVICE, stdout=json.dumps([said]))
    ready.journal(FATAL.format(1, "no space left on device"), invocation=INVOCATION)
    assert call(ready, "log", "system") == 0
    assert "no space left on device" in capsys.readouterr().out


def test_log_of_a_run_that_systemd_refused(ready: FakeHost, capsys: Capture) -> None:
    """Systemd gave it no invocation, and still knows that of the good run before."""
    why = {"outcome": "failed", "reason": "unreachable", "message": "systemd did not start it: dependency failed"}
    outcome(ready, invocation_id=None, ended=hosts.timestamp(NOW), summary=None, **why)
    ready.journal(SUMMARY, invocation=INVOCATION)
    assert call(ready, "log", "system") == 0
    said = capsys.readouterr().out
    assert "331fa3bb" not in said
    assert said.splitlines()[1:] == [
        f"{datetime.datetime.fromtimestamp(NOW)} systemd did not start it: dependency failed",
        "outcome: failed, unreachable",
    ]
    # One that ended later, and could not record its outcome, is what the last run said.
    outcome(ready, invocation_id=None, ended=hosts.timestamp(NOW - 3600), summary=None, **why)
    assert call(ready, "log", "system") == 0
    said = capsys.readouterr().out
    assert "331fa3bb" in said
    assert "outcome" not in said


def test_log_of_nothing(host: FakeHost, capsys: Capture) -> None:
    define(host)
    define(host, repository="offsite")
    host.answer("systemctl", "show", stdout=shown())
    assert call(host, "log", "system") == 0
    assert (
        capsys.readouterr().out
        == "== system--offsite\nno run in the journal\n\n== system--vault\nno run in the journal\n"
    )


def test_log_of_a_running_one_with_dumps(host: FakeHost, capsys: Capture) -> None:
    define(host, dumps=[{"name": "pg", "unit": "pg.service"}])
    host.answer("systemctl", "show", stdout=shown(active="activating"))
    outcome(host, invocation_id="0" * 32)
    host.journal("begin", "end")
    inside = entries("x", ("pg_dump", "between"), ("pg_dump", "too late"))
    host.answer("_SYSTEMD_UNIT=pg.service", stdout=inside)
    assert call(host, "log", "system") == 0
    said = capsys.readouterr().out
    assert "pg_dump: between" in said
    assert "too late" not in said
    assert "outcome" not in said


SNAPSHOTS = json.dumps(
    [
        {
            "time": "2026-11-21T13:00:25.295734087Z",
            "tree": "114f",
            "paths": ["/pg/all.sql"],
            "hostname": "web1",
            "username": "postgres",
            "tags": ["job:system", "dump:pg"],
            "id": "b" * 64,
            "short_id": "b" * 8,
        },
        {
            "time": "2026-11-21T13:00:24.295734087Z",
            "paths": ["/srv/data", "/etc"],
            "hostname": "web1",
            "username": "holdfast",
            "tags": ["job:system"],
            "summary": {"total_bytes_processed": 3000003},
            "id": "a" * 64,
        },
    ]
)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_snapshots(ready: FakeHost, capsys: Capture) -> None:
    ready.answer("snapshots", stdout=SNAPSHOTS)
    assert call(ready, "snapshots", "system", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["unit"] == UNIT
    assert [(each["id"][0], each["dump"], each["total_bytes"]) for each in document["snapshots"]] == [
        ("a", None, 3000003),
        ("b", "pg", None),
    ]
    assert ready.calls[-1] == ["/usr/bin/restic", "snapshots", "--json", "--no-lock", "--no-cache", "--tag=job:system"]
    assert ready.environments[-1] == {
        "AWS_SECRET_ACCESS_KEY": "backend-secret",
        "RESTIC_KEY_HINT": "2" * 64,
        "HOME": "/root",
        "RESTIC_PASSWORD_FILE": "/etc/holdfast/secrets/vault.password",
        "RESTIC_REPOSITORY_FILE": "/etc/holdfast/secrets/vault.repository",
    }
    assert call(ready, "snapshots", "system") == 0
    assert capsys.readouterr().out == (
        "ID        TIME                 HOST  WHAT   SIZE     PATHS\n"
        "aaaaaaaa  2026-11-21 13:00:24  web1  files  2.9 MiB  /srv/data /etc\n"
        "bbbbbbbb  2026-11-21 13:00:25  web1  pg     -        /pg/all.sql\n"
    )


@pytest.mark.parametrize(
    ("access", "directory", "room", "cached"),
    [
        ("url", "/var/cache", restic.ROOM, True),
        ("url", restic.CACHE, restic.ROOM, True),
        ("url", "/var/cache", restic.ROOM - 1, False),
        # Where nothing is, nothing can be kept.
        ("url", "/var", restic.ROOM, False),
        ("local", restic.CACHE, restic.ROOM, False),
    ],
)
def test_a_cache_of_roots_own(
    ready: FakeHost, monkeypatch: pytest.MonkeyPatch, access: str, directory: str, room: int, cached: bool
) -> None:
    """Not the account's, and only where a disk has room for it."""

    def usage(path: Path) -> Any:
        os.stat(path)
        return SimpleNamespace(free=room)

    monkeypatch.setattr(restic.shutil, "disk_usage", usage)
    ready.path(directory).mkdir(parents=True, exist_ok=True)
    ready.answer("snapshots", stdout=SNAPSHOTS)
    define(ready, access=access)
    assert call(ready, "restore", "system", "--target", "/out") == 0
    for argv in (argv for argv in ready.calls if argv[0] == "/usr/bin/restic"):
        options = [each for each in argv if "cache" in each]
        assert options == ([f"--cache-dir={restic.CACHE}", "--cleanup-cache"] if cached else ["--no-cache"])


def test_the_latest_is_the_latest_in_every_zone(ready: FakeHost, capsys: Capture) -> None:
    """Restic writes the local time with its offset, and that of a host changes, twice a year at least."""
    older, newer = "2026-10-25T02:30:00.5+02:00", "2026-10-25T02:10:00.5+01:00"
    both = [{"id": each[0] * 64, "time": each[1], "tags": ["job:system"]} for each in (("b", newer), ("a", older))]
    ready.answer("snapshots", stdout=json.dumps(both))
    assert call(ready, "snapshots", "system") == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]]
    local = [datetime.datetime.fromisoformat(f"2026-10-25T{clock}+00:00").astimezone() for clock in ("00:30", "01:10")]
    assert rows == [[each * 8, *f"{moment:%Y-%m-%d %H:%M:%S}".split()] for each, moment in zip("ab", local)]
    assert call(ready, "restore", "system", "--target", "/out") == 0
    assert ready.calls[-1][-1] == "b" * 64


def test_a_snapshot_from_the_future_is_not_the_latest(ready: FakeHost, capsys: Capture) -> None:
    """Made while the clock was ahead: it would be taken for the latest until that time has come."""
    times = {"a": "12:00:00", "b": "13:05:00", "c": "15:00:00"}
    found = [{"id": each * 64, "time": f"2026-11-21T{time}Z", "tags": ["job:system"]} for each, time in times.items()]
    ready.answer("snapshots", stdout=json.dumps(found))
    assert call(ready, "restore", "system", "--target", "/out") == 0
    # Clocks differ by minutes.
    assert ready.calls[-1][-1] == "b" * 64
    assert capsys.readouterr().err == (
        "snapshot cccccccc is from the future (2026-11-21T15:00:00Z) and does not count as the latest; it can be had with"
        " --snapshot cccccccc\n"
    )
    assert call(ready, "restore", "system", "--target", "/out", "--force", "--snapshot", "cccccccc") == 0
    assert ready.calls[-1][-1] == "cccccccc"
    assert capsys.readouterr().err == ""
    assert call(ready, "snapshots", "system") == 0
    rows = capsys.readouterr().out.splitlines()
    assert [("(in the future)" in row) for row in rows] == [False, False, False, True]
    ready.clock -= 86400
    assert call(ready, "restore", "system", "--target", "/out", "--force") == 1
    assert capsys.readouterr().err.endswith("has no snapshot of its files; see: holdfast snapshots system--vault\n")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": 12}, "does not take this host's password"),
        ({"status": 1, "stderr": "x\nFatal: y\n"}, "cannot be read: y\n"),
        ({"status": 1}, "restic ended with exit status 1"),
        ({"status": 1, "stderr": REFUSED}, "vault cannot be read: no SSH server listens there\n"),
        ({"status": 1, "stderr": HOST_KEY}, "the SSH server has another host key than the pinned one\n"),
        ({"status": 1, "stderr": CUT}, "vault cannot be read: unable to open config file: context canceled\n"),
        (
            {"status": 124, "stderr": "restic did not end within 600 s"},
            "cannot be read: restic did not end within 600 s\n",
        ),
        ({"stdout": "{"}, "list of snapshots cannot be read"),
        ({"stdout": "[]"}, "has no snapshots yet"),
    ],
)
def test_snapshots_that_cannot_be_shown(ready: FakeHost, capsys: Capture, answer: dict[str, Any], message: str) -> None:
    ready.answer("snapshots", **answer)
    assert call(ready, "snapshots", "system") == 1
    assert message in capsys.readouterr().err


def test_credentials_that_are_gone(ready: FakeHost, capsys: Capture) -> None:
    ready.path("/etc/holdfast/secrets/vault.environment").unlink()
    assert call(ready, "snapshots", "system") == 1
    assert "vault.environment cannot be used" in capsys.readouterr().err
    define(ready, environment_file=None)
    ready.answer("snapshots", stdout=SNAPSHOTS)
    assert call(ready, "snapshots", "system") == 0
    # Without the record a restore is still possible.
    ready.path("/var/lib/holdfast/repositories/vault.env").unlink()
    assert call(ready, "snapshots", "system") == 0
    assert "RESTIC_KEY_HINT" not in ready.environments[-1]


# --- what users can have printed


NASTY = "/home/m/\x1b]0;x\x07\nsystem--vault  ok\udcff"


def test_names_of_files_move_no_cursor_and_make_no_line(capsys: Capture) -> None:
    line = journal.error_text({"error": {"message": "denied"}, "item": NASTY})
    assert line == r"/home/m/\x1b]0;x\x07\nsystem--vault  ok\udcff: denied"
    text.say(text.table(("PATH", "SIZE"), [(NASTY, "1")]))
    text.complain(f"two\nlines\tand {NASTY[:9]}")
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split() == [*line[:-8].split(), "1"]
    assert said.err == "two\nlines\tand /home/m/\\x1b\n"
    said.out.encode("utf-8")


# --- restore


def test_restore_latest(ready: FakeHost, capsys: Capture) -> None:
    ready.answer("snapshots", stdout=SNAPSHOTS)
    ready.answer("ls", stdout="/srv/[a]*?\\b\n")
    assert call(ready, "restore", "system", "--target", "/out", "--path", "/srv//[a]*?\\b/") == 0
    assert ready.calls[-2][1:] == ["ls", "--quiet", "--no-lock", "--no-cache", "--", "a" * 64, "/srv/[a]*?\\b"]
    assert ready.calls[-1] == [
        "/usr/bin/restic",
        "restore",
        "--no-lock",
        "--no-cache",
        "--target=/out",
        r"--include=/srv/\[a\]\*\?\\b",
        "--sparse",
        "--verify",
        "--",
        "a" * 64,
    ]
    assert "backend-secret" not in str(ready.calls)
    assert ready.environments[-1]["RESTIC_PASSWORD_FILE"] == "/etc/holdfast/secrets/vault.password"
    assert ready.path("/out").stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().out == "snapshot aaaaaaaa is restored below /out\n"


def define_borg(host: FakeHost) -> None:
    """The job is one of borg, with an archive."""
    keys = ("binary", "encryption", "key_file", "ssh_command")
    define(
        host,
        engine="borg",
        binary="/usr/bin/borgmatic",
        borg=dict(zip(keys, ("/usr/bin/borg", "repokey-blake2", "/k", None))),
    )
    listed = {"name": "a", "id": "a" * 64, "time": "2026-11-21T12:00:00.000000", "comment": "holdfast,job:system"}
    host.answer("list", stdout=json.dumps({"archives": [listed]}))


@pytest.mark.parametrize(
    ("wanted", "patterns"),
    [
        ([], ["--exclude=/etc/holdfast", "--exclude=/var/lib/holdfast"]),
        (["--path", "/etc"], ["--include=/etc", "--include=!/etc/holdfast", "--include=!/var/lib/holdfast"]),
    ],
)
def test_in_place_what_is_live_stays(ready: FakeHost, capsys: Capture, wanted: list[str], patterns: list[str]) -> None:
    ready.answer("snapshots", stdout=SNAPSHOTS)
    ready.answer("ls", stdout="/etc\n")
    assert call(ready, "restore", "system", "--target", "//", "--force", *wanted) == 0
    assert ready.calls[-1][4:-2] == ["--target=/", *patterns, "--sparse", "--verify"]
    stay = (
        "/etc/holdfast and /var/lib/holdfast stay as they are on this host; another --target gets those of the snapshot"
    )
    assert stay in capsys.readouterr().out


@pytest.mark.parametrize("engine", ["restic", "borg"])
def test_in_place_what_is_live_stays_where_a_link_of_roots_leads(ready: FakeHost, capsys: Capture, engine: str) -> None:
    """A job that saves /data has what lies below /var/lib as /data/a*/lib."""
    if engine == "borg":
        define_borg(ready)
    ready.answer("snapshots", stdout=SNAPSHOTS)
    ready.answer("ls", stdout="there\n")
    ready.path("/data/a*").mkdir(parents=True)
    ready.path("/var/lib").rename(ready.path("/data/a*/lib"))
    ready.path("/var/lib").symlink_to(ready.path("/data/a*/lib"))
    argv = ["restore", "system", "--target", "/", "--force"]
    assert call(ready, *argv, "--path", "/data") == 0
    kept = "/etc/holdfast and /var/lib/holdfast and /data/a*/lib/holdfast stay as they are on this host"
    assert kept in capsys.readouterr().out
    word = "--exclude=pp:data/a*/lib/holdfast" if engine == "borg" else "--include=!/data/a\\*/lib/holdfast"
    assert word in ready.calls[-1]
    assert call(ready, *argv) == 0
    assert (word if engine == "borg" else "--exclude=/data/a\\*/lib/holdfast") in ready.calls[-1]
    ready.calls.clear()
    assert call(ready, *argv, "--path", "/data/a*/lib/holdfast/repositories") == 2
    assert "is what this host's backups go by today" in capsys.readouterr().err
    assert not ready.calls


def test_in_place_what_is_live_stays_with_a_dump_too(ready: FakeHost, capsys: Capture) -> None:
    """An id may be that of files, whatever dump is named beside it."""
    ready.answer("cat", "snapshot", stdout=json.dumps({"tags": ["job:system"]}))
    assert call(ready, "restore", "system", "--target", "/", "--force", "--dump", "pg", "--snapshot", "a" * 8) == 0
    assert ready.calls[-1][5:7] == ["--exclude=/etc/holdfast", "--exclude=/var/lib/holdfast"]
    assert "stay as they are" not in capsys.readouterr().out


@pytest.mark.parametrize("path", ["/etc/holdfast", "/etc//holdfast/secrets/", "/var/lib/holdfast/repositories"])
def test_in_place_what_is_live_cannot_be_named(ready: FakeHost, capsys: Capture, path: str) -> None:
    ready.answer("snapshots", stdout=SNAPSHOTS)
    assert call(ready, "restore", "system", "--target", "/", "--force", "--path", "/srv", "--path", path) == 2
    assert "choose another --target than /" in capsys.readouterr().err
    assert not any("restore" in words for words in ready.calls)
    ready.answer("ls", stdout="/etc/holdfast2\n")
    assert call(ready, "restore", "system", "--target", "/", "--force", "--path", "/etc/holdfast2") == 0


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--force"]])
def test_a_path_that_the_snapshot_does_not_hold(ready: FakeHost, capsys: Capture, more: list[str]) -> None:
    """Restic restores nothing then, and ends well."""
    ready.answer("snapshots", stdout=SNAPSHOTS)
    ready.answer("ls", "/srv/data", stdout="/srv/data\n")
    wanted = ["--path", "/srv/data", "--path", "/srv/dtaa"]
    assert call(ready, "restore", "system", "--target", "/out", *wanted, *more) == 1
    assert capsys.readouterr().err == "holdfast: snapshot aaaaaaaa of system--vault holds no /srv/dtaa\n"
    assert not any("restore" in words for words in ready.calls)
    assert not ready.path("/out").exists()
    ready.answer("ls", status=11)
    assert call(ready, "restore", "system", "--target", "/out", *wanted, *more) == 11
    assert "cannot be looked into: the repository is locked" in capsys.readouterr().err


def test_everything_may_be_named(ready: FakeHost) -> None:
    ready.answer("snapshots", stdout=SNAPSHOTS)
    assert call(ready, "restore", "system", "--target", "/out", "--path", "/", "--path", "/srv") == 0
    assert not [word for word in ready.calls[-1] if word.startswith("--include")]


def test_restore_of_a_dump_and_dry_run(ready: FakeHost, capsys: Capture) -> None:
    ready.answer("snapshots", stdout=SNAPSHOTS)
    assert call(ready, "restore", "system", "--target", "/out", "--dump", "pg", "--dry-run") == 0
    assert ready.calls[-1][4:] == ["--target=/out", "--dry-run", "--", "b" * 64]
    assert not ready.path("/out").exists()
    assert "would be restored" in capsys.readouterr().out
    assert call(ready, "restore", "system", "--target", "/out", "--dump", "none") == 1
    assert "has no snapshot of its dump none" in capsys.readouterr().err
    ready.answer("snapshots", stdout="[]")
    assert call(ready, "restore", "system", "--target", "/out") == 1
    assert "has no snapshot of its files" in capsys.readouterr().err
    define(ready, paths=[], optional_paths=[], dumps=[{"name": name, "unit": "x.service"} for name in ("pg", "my")])
    assert call(ready, "restore", "system", "--target", "/out") == 1
    assert "only dumps: --dump pg or my" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("modes", "private"),
    [
        ((0o755, 0o755), False),
        ((0o755, 0o750), False),
        ((0o755, 0o701), False),
        ((0o755, 0o700), True),
        ((0o700, 0o755), True),
        # Who may not go through a directory reaches nothing in it.
        ((0o755, 0o744), True),
    ],
)
@pytest.mark.parametrize("arguments", [["--dump", "pg"], ["--snapshot", "b" * 8], ["--snapshot", "a" * 8]])
def test_a_dump_is_restored_where_nobody_else_reads_it(
    ready: FakeHost, capsys: Capture, arguments: list[str], modes: tuple[int, int], private: bool
) -> None:
    """Restic gives it mode 0644 again, which it has in the snapshot."""
    ready.answer("snapshots", stdout=SNAPSHOTS)
    tags = {"a": ["job:system", "night"], "b": ["job:system", "dump:pg"]}
    for name, each in tags.items():
        ready.answer("cat", "snapshot", name * 8, stdout=json.dumps({"time": "2026-11-21T12:00:00Z", "tags": each}))
    ready.path("/mnt/r").mkdir(parents=True)
    for path, mode in zip(("/mnt", "/mnt/r"), modes):
        ready.path(path).chmod(mode)
    argv = ["restore", "system", "--target", "/mnt/r", *arguments]
    dumped = arguments[-1] != "a" * 8
    for more in ([], ["--dry-run"], ["--force"]):
        assert call(ready, *argv, *more) == (2 if dumped and not private else 0)
        said = capsys.readouterr().err
        assert ("choose a directory that does not exist yet" in said) == (dumped and not private)
        # Of /, or /srv, that would shut out everybody.
        assert "chmod" not in said
    assert any("restore" in words for words in ready.calls) != (dumped and not private)


def test_what_is_in_a_snapshot_has_to_be_known_before_others_may_read_it(ready: FakeHost, capsys: Capture) -> None:
    ready.path("/mnt").mkdir()
    for answer in ({"status": 11}, {"stdout": "{"}, {"stdout": "[]"}):
        ready.answer("cat", "snapshot", **answer)
        assert call(ready, "restore", "system", "--target", "/mnt", "--snapshot", "b" * 8) != 0
        assert "snapshot bbbbbbbb of system--vault cannot be looked into" in capsys.readouterr().err
    assert not any("restore" in words for words in ready.calls)
    assert call(ready, "restore", "system", "--target", "/mnt/new", "--snapshot", "b" * 8) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "out"], "--target 'out' is not absolute"),
        (["--target", "/out", "--path", "x"], "--path 'x' is not absolute"),
        (["--target", "/srv"], "--target /srv is not empty"),
        (["--target", "/srv/data/one"], "is not a directory"),
        (["--target", "/link", "--force"], "is not a directory"),
        (["--target", "/out", "--snapshot", "--help"], "expected one argument"),
        (["--target", "/out", "--snapshot", "x"], "neither latest nor an id"),
    ],
)
def test_restore_refuses(ready: FakeHost, capsys: Capture, arguments: list[str], message: str) -> None:
    ready.path("/link").symlink_to(ready.path("/srv"))
    try:
        status = call(ready, "restore", "system", *arguments)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err
    assert not any("restore" in words for words in ready.calls)


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--force"]])
def test_restore_refuses_a_target_of_somebody_else(ready: FakeHost, capsys: Capture, arguments: list[str]) -> None:
    """Its owner could put a link in the way of root's restic, and have a file of theirs written anywhere."""
    place = ready.path("/tmp/restored")
    place.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(place, 65534, 65534)
        assert call(ready, "restore", "system", "--target", "/tmp/restored", *arguments) == 2
        assert "belongs to uid 65534" in capsys.readouterr().err
        assert call(ready, "restore", "system", "--target", "/tmp/restored/below", *arguments) == 2
        os.chown(place, 0, 0)
    for mode in (0o1777, 0o775, 0o757):
        place.chmod(mode)
        os.chown(place, -1, 65534 if os.geteuid() == 0 else os.getegid())
        assert call(ready, "restore", "system", "--target", "/tmp/restored/", *arguments) == 2
        assert "choose a directory that only root may write to" in capsys.readouterr().err
    assert not any("restore" in words for words in ready.calls)
    # A directory of its own in a sticky one is safe.
    place.chmod(0o1777)
    assert call(ready, "restore", "system", "--target", "/tmp/restored/a/b/", "--snapshot", "0123abcd", *arguments) == 0
    assert [
        (each.exists(), each.exists() and each.stat().st_mode & 0o777) for each in (place / "a", place / "a/b")
    ] == ([(False, False)] * 2 if arguments == ["--dry-run"] else [(True, 0o755), (True, 0o700)])


def _shared(path: Path, kind: str) -> None:
    """Make it a directory that others than root may change."""
    path.mkdir(parents=True, exist_ok=True)
    if kind == "owner":
        os.chown(path, 65534, 0)
    elif kind == "group":
        os.chown(path, 0, 65534)
        path.chmod(0o775)
    elif kind == "acl":
        # u::rwx u:65534:rwx g::r-x m::rwx o::r-x
        entries = [(1, 7, -1), (2, 7, 65534), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each[:2], each[2] % 2**32) for each in entries)
        os.setxattr(path, "system.posix_acl_access", acl)
    else:
        path.chmod(0o1777)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
@pytest.mark.parametrize("engine", ["restic", "borg"])
@pytest.mark.parametrize("kind", ["owner", "group", "acl", "sticky"])
@pytest.mark.parametrize(
    ("target", "wanted", "shared"),
    [
        ("/", [], "/home/alice"),
        ("/", ["/home"], "/home/alice"),
        ("/", ["/home/alice/d/"], "/home/alice"),
        ("/", ["/srv/data", "/home/alice/new"], "/home/alice"),
        ("/srv", [], "/srv/out/alice"),
        ("/srv", ["/out"], "/srv/out/alice"),
        # Root's alone: its own link does not count, nor what stays as it is.
        ("/", ["/srv/data"], None),
        ("/", ["/srv/data/one"], None),
        ("/", ["/etc", "/missing"], None),
    ],
)
def test_nobody_leads_a_restore_in_place_elsewhere(
    ready: FakeHost, capsys: Capture, target: str, wanted: list[str], shared: str | None, kind: str, engine: str
) -> None:
    """Whoever may change a directory can put a link in its place between two steps of the restore."""
    if engine == "borg":
        define_borg(ready)
    ready.answer("snapshots", stdout=SNAPSHOTS)
    ready.answer("ls", stdout="there\n")
    for path in ("/home/alice", "/srv/out/alice", "/etc/holdfast/secrets"):
        _shared(ready.path(path), kind)
    ready.path("/srv/data/link").symlink_to(ready.path("/home/alice"))
    argv = ["restore", "system", "--target", target, "--force", *(f"--path={each}" for each in wanted)]
    verbs = ("restore", "extract")
    if shared is not None:
        for more in ([], ["--dry-run"]):
            assert call(ready, *argv, *more) == 2
            said = capsys.readouterr().err
            assert f"others than root may change {shared}" in said
            assert "--target /root/restored" in said
            assert "--trust-users" in said
        assert not any(verb in words for words in ready.calls for verb in verbs)
    assert call(ready, *argv, "--trust-users") == 0
    assert f"others than root may change directories below {target}, and could lead" in capsys.readouterr().err
    assert any(verb in words for words in ready.calls for verb in verbs)
    if shared is None:
        assert call(ready, *argv) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_restore_that_was_cut_off_goes_on_where_nobody_else_gets_in(
    ready: FakeHost, capsys: Capture, mode: int
) -> None:
    """What it has restored belongs to its users by then."""
    ready.answer("snapshots", stdout=SNAPSHOTS)
    _shared(ready.path("/root/restored/home/alice"), "owner")
    ready.path("/root/restored").chmod(mode)
    ready.path("/root").chmod(0o755)
    assert call(ready, "restore", "system", "--target", "/root/restored", "--force") == (0 if mode == 0o700 else 2)
    assert ("others than root" in capsys.readouterr().err) == (mode != 0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
@pytest.mark.parametrize("target", ["/root/link/restored", "/var/lib/machines/web/srv"])
def test_a_closed_directory_on_the_way_is_not_enough(ready: FakeHost, capsys: Capture, target: str) -> None:
    """A link of root's leads to where others get in, and those in a container are there already."""
    ready.answer("snapshots", stdout=SNAPSHOTS)
    ready.path("/root").mkdir(mode=0o700)
    ready.path("/root/link").symlink_to(ready.path("/srv"))
    ready.path("/var/lib/machines").mkdir(parents=True, mode=0o700)
    for directory in ("/srv/restored", "/var/lib/machines/web/srv"):
        _shared(ready.path(f"{directory}/home/alice"), "owner")
    assert call(ready, "restore", "system", "--target", target, "--force") == 2
    assert "others than root" in capsys.readouterr().err
    # Where a dump may be restored, whose file everybody may read.
    assert place.private(ready, target) == ("link" not in target)


@pytest.mark.parametrize("call_", ["open", "scandir", "lstat"])
@pytest.mark.parametrize("wanted", [[], ["--path", "/srv/nas/x"]])
def test_what_cannot_be_looked_at_stops_no_restore_in_place(
    ready: FakeHost, capsys: Capture, monkeypatch: pytest.MonkeyPatch, wanted: list[str], call_: str
) -> None:
    """A stale mount, or a damaged directory: who may change it nobody knows. One that vanishes is none."""
    ready.answer("snapshots", stdout=SNAPSHOTS)
    ready.answer("ls", stdout="there\n")
    stale = ready.path("/srv/nas/x")
    stale.mkdir(parents=True)
    real, looked = getattr(os, call_), []
    error = errno.ESTALE

    def failing(path: Any, *more: Any, **named: Any) -> Any:
        if os.fspath(path) == os.fspath(stale):
            looked.append(path)
            raise OSError(error, os.strerror(error), path)
        return real(path, *more, **named)

    monkeypatch.setattr(os, call_, failing)
    argv = ["restore", "system", "--target", "/", "--force", *wanted]
    status = call(ready, *argv)
    if looked:
        assert status == 2
        said = capsys.readouterr().err
        assert "/srv/nas/x cannot be looked at (Stale file handle), so others than root may" in said
        assert "--trust-users" in said
    error = errno.ENOENT
    assert call(ready, *argv) == 0
    error, looked[:] = errno.EIO, []
    assert call(ready, *argv, "--trust-users") == 0
    # An automount would be mounted by that.
    assert not looked


def test_restore_with_force_and_its_failure(ready: FakeHost, capsys: Capture) -> None:
    ready.answer("cat", "snapshot", stdout="{}")
    assert call(ready, "restore", "system", "--target", "/srv", "--force", "--snapshot", "0123abcd") == 0
    ready.answer("restore", status=11)
    assert call(ready, "restore", "system", "--target", "/empty", "--snapshot", "0123abcd") == 11
    assert "the restore is not complete: the repository is locked" in capsys.readouterr().err


# --- the command line


def test_only_root(host: FakeHost, capsys: Capture) -> None:
    host.owner = os.geteuid() + 1
    assert call(host, "status") == 2
    assert "only root can do this" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["nothing"], ["status", "--jso"], ["restore", "x"]])
def test_wrong_use(host: FakeHost, argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(host, *argv)
    assert stopped.value.code == 2


def test_for_systemd(host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    define(host)
    monkeypatch.setenv("INVOCATION_ID", INVOCATION)
    before = os.umask(0o077)
    try:
        assert call(host, "prepare", UNIT) == 0
        assert os.umask(0o077) == 0o022
    finally:
        os.umask(before)
    assert call(host, "verify", UNIT) == 0
    assert call(host, "finish", UNIT) == 0
    assert call(host, "interrupted") == 0
    monkeypatch.setenv("MONITOR_INVOCATION_ID", INVOCATION)
    assert call(host, "record", f"{UNIT}--failed") == 0
    assert call(host, "prepare", "no--unit") == 2
    assert "there is no run unit no--unit" in capsys.readouterr().err


def test_a_repository_called_failed(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    define(host, repository="failed")
    monkeypatch.setenv("INVOCATION_ID", INVOCATION)
    for instance in ("system--failed", "system--failed--failed"):
        assert call(host, "verify", instance) == 1
        assert call(host, "prepare", instance) == 0
        assert call(host, "verify", instance) == 0
        host.path("/run/holdfast/system--failed.json").unlink()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), (130, "holdfast: interrupted; a run that was started goes on\n")),
        (PermissionError(13, "Permission denied", "/x"), (1, "holdfast: [Errno 13] Permission denied: '/x'\n")),
    ],
)
def test_interruptions(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: BaseException, expected: tuple[int, str]
) -> None:
    status, said = expected

    def fail(*_arguments: Any, **_keywords: Any) -> int:
        raise error

    monkeypatch.setattr(cli, "_for_people", fail)
    assert call(host, "status") == status
    assert capsys.readouterr().err == said


def test_certificate(host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked: list[str] = []

    def renew(directory: str) -> bool:
        asked.append(directory)
        if directory == "/bad":
            raise _tls.TlsError("no CA")
        return directory != "/fresh"

    monkeypatch.setattr(_tls, "renew", renew)
    assert call(host, "certificate", "renew") == 0
    assert (asked, host.calls) == (["/etc/holdfast/tls"], [])
    assert call(host, "certificate", "renew", "--restart", "rest.service") == 0
    assert host.calls == [["systemctl", "try-restart", "--", "rest.service"]]
    assert call(host, "certificate", "renew", "--directory", "/fresh", "--restart", "rest.service") == 0
    assert len(host.calls) == 1
    host.answer("try-restart", status=1, stderr="x")
    assert call(host, "certificate", "renew", "--restart", "rest.service") == 1
    assert call(host, "certificate", "renew", "--directory", "/bad") == 1
    said = capsys.readouterr()
    assert "rest.service could not be restarted: x" in said.err
    assert "the certificate in /bad cannot be renewed: no CA" in said.err
    assert "needs no renewal" in said.out


LOAD = ("certificate", "load", "--certificate", "/le/full.pem", "--key", "/le/key.pem", "--restart", "rest.service")
RESTART = ["systemctl", "try-restart", "--", "rest.service"]


@pytest.fixture
def pair(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A certificate and a key that are usable, a server that was started with others, and what is asked about them."""
    asked: list[tuple[Any, ...]] = []

    def usable(*arguments: Any) -> _tls.Certificate:
        asked.append(arguments)
        return _tls.Certificate(int(NOW), frozenset(), None, "")

    monkeypatch.setattr(_tls, "check_usable", usable)
    host.put("/le/full.pem", "new")
    host.put("/le/key.pem", "new key")
    started_with(host, "old", "old key")
    is_in(host, "active")
    return asked


def is_in(host: FakeHost, state: str, run: str = INVOCATION) -> None:
    host.answer("systemctl", "show", stdout=f"ActiveState={state}\nInvocationID={run}\n")


def started_with(host: FakeHost, certificate: str, key: str) -> None:
    host.put("/run/credentials/rest.service/certificate", certificate)
    host.put("/run/credentials/rest.service/key", key)


def takes_up(host: FakeHost) -> None:
    """A restart of the service, after which systemd has copied the files."""

    def restart(_argv: Sequence[str]) -> hosts.Done:
        started_with(host, "new", "new key")
        return hosts.Done(0)

    host.answers.insert(0, (("try-restart",), restart))


def test_a_certificate_that_was_replaced_is_taken_up(host: FakeHost, pair: list[Any], capsys: Capture) -> None:
    takes_up(host)
    assert call(host, *LOAD, "--name", "a.example", "--name", "B.example") == 0
    assert pair == [(("/le/full.pem", "new"), ("/le/key.pem", "new key"), frozenset({"a.example", "b.example"}), NOW)]
    assert host.calls.count(RESTART) == 1
    assert "rest.service serves the new /le/full.pem; it ends on " in capsys.readouterr().out
    # Served now: nothing happens.
    assert call(host, *LOAD) == 0
    assert host.calls.count(RESTART) == 1
    assert "rest.service serves /le/full.pem as it is" in capsys.readouterr().out


def test_a_key_alone_that_was_replaced_is_taken_up(host: FakeHost, pair: list[Any]) -> None:
    started_with(host, "new", "old key")
    takes_up(host)
    assert call(host, *LOAD) == 0
    assert len(pair) == host.calls.count(RESTART) == 1


@pytest.mark.parametrize("state", ["active", "inactive", "failed"])
def test_an_unusable_certificate_leaves_the_server_alone(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: Capture, state: str
) -> None:
    def unusable(*_arguments: Any) -> None:
        raise _tls.TlsError("/le/full.pem ended")

    monkeypatch.setattr(_tls, "check_usable", unusable)
    is_in(host, state)
    assert call(host, *LOAD) == 1
    assert (
        capsys.readouterr().err == "holdfast: rest.service is left as it is: /le/full.pem: No such file or directory\n"
    )
    host.put("/le/full.pem", "new")
    host.put("/le/key.pem", "new key")
    assert call(host, *LOAD) == 1
    assert capsys.readouterr().err == "holdfast: rest.service is left as it is: /le/full.pem ended\n"
    assert RESTART not in host.calls


def test_a_server_that_does_not_run_is_not_started(host: FakeHost, pair: list[Any], capsys: Capture) -> None:
    is_in(host, "inactive", "")
    assert call(host, *LOAD) == 0
    assert pair
    assert "does not run, and reads /le/full.pem when it starts" in capsys.readouterr().out
    assert RESTART not in host.calls


@pytest.mark.parametrize("state", ["activating", "failed", ""])
def test_a_server_that_ends_again_and_again_is_told_of(
    host: FakeHost, pair: list[Any], capsys: Capture, state: str
) -> None:
    """Over what openssl takes and the server does not, say, since the day before."""
    started_with(host, "new", "new key")
    is_in(host, state)
    assert call(host, *LOAD) == 1
    assert pair
    assert "and serves nobody: see journalctl -u rest.service" in capsys.readouterr().err
    assert RESTART not in host.calls


def test_a_server_that_was_started_anew_meanwhile_does_not_serve(
    host: FakeHost, pair: list[Any], capsys: Capture
) -> None:
    takes_up(host)
    runs = iter(["0", "1", "2"])
    host.answers.insert(
        0, (("systemctl", "show"), lambda _argv: hosts.Done(0, f"ActiveState=active\nInvocationID={next(runs)}\n"))
    )
    assert call(host, *LOAD) == 1
    assert pair
    assert "was restarted and does not serve" in capsys.readouterr().err


def test_a_certificate_that_is_not_taken_up(host: FakeHost, pair: list[Any], capsys: Capture) -> None:
    # It goes on with what a drop-in says, or ends over what openssl takes.
    assert call(host, *LOAD) == 1
    assert capsys.readouterr().err == (
        "holdfast: rest.service was restarted and does not serve /le/full.pem: see journalctl -u rest.service\n"
    )
    host.answer("try-restart", status=1, stderr="x")
    assert call(host, *LOAD) == 1
    assert "rest.service could not be restarted: x" in capsys.readouterr().err
    host.calls.clear()
    host.path("/run/credentials/rest.service/key").unlink()
    assert call(host, *LOAD) == 1
    assert "what rest.service serves cannot be seen: " in capsys.readouterr().err
    assert RESTART not in host.calls
    assert len(pair) == 3


# --- the host itself


def test_commands_of_a_real_host(tmp_path: Path) -> None:
    host = hosts.Host(tmp_path)
    done = host.command(["/bin/sh", "-c", "echo $A; echo e >&2; exit 3"], timeout=10, env={"A": "b"})
    assert done == hosts.Done(3, "b\n", "e\n")
    assert host.command(["/bin/sleep", "9"], timeout=0.1) == hosts.Done(
        124, stderr="/bin/sleep did not end within 0.1 s"
    )
    assert host.command(["/nothing"], timeout=1).status == 127
    assert host.attached(["/bin/sh", "-c", "exit 4"], timeout=10) == 4
    assert host.attached(["/bin/sleep", "9"], timeout=0.1) == 124
    assert host.attached(["/nothing"], timeout=1) == 127
    assert abs(host.now() - NOW) > 0
    host.sleep(0)


def test_files_of_a_real_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = hosts.Host(tmp_path)
    host.write_json("/a/b.json", {"x": 1})
    assert host.read_json("/a/b.json") == {"x": 1}
    host.write("/a/b.json", b"[]", mode=0o600)
    assert host.read_json("/a/b.json") is None

    def fail(*_arguments: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        host.write("/a/b.json", b"new", mode=0o600)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_closed_pipe(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from ansible_collections.holdfast.backup.plugins.module_utils._program import cli, host;"
        "h = host.Host(__import__('pathlib').Path(sys.argv[2]), __import__('os').geteuid());"
        "cli._for_people = lambda *a: [print('x' * 1000, flush=True) for _ in range(10000)] and 0;"
        "sys.exit(cli.main(['status'], h))"
    )
    collections = str(Path(cli.__file__).parents[6])
    process = subprocess.Popen(
        [sys.executable, "-c", script, collections, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 1
