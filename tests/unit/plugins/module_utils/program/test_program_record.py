# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the journal of a run to its recorded outcome."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._program import (
    assess,
    evidence,
    hooks,
    interrupted,
    journal,
    outcomes,
    running,
)
from ansible_collections.holdfast.backup.plugins.module_utils._program.assess import Ending
from ansible_collections.holdfast.backup.plugins.module_utils._program.definition import Hook
from ansible_collections.holdfast.backup.plugins.module_utils._program.host import Done
from ansible_collections.holdfast.backup.plugins.module_utils._program.prepare import prepare
from ansible_collections.holdfast.backup.plugins.module_utils._program.record import record
from ansible_collections.holdfast.backup.plugins.module_utils._program.state import State
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result

from tests.unit.plugins.module_utils import recorded as texts
from tests.unit.plugins.module_utils.program.program_host import (
    FATAL,
    ID,
    IDENTITY,
    INVOCATION,
    NOW,
    RECORD,
    RETRY,
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
    hook,
)


def monitor(result: str = "success", status: str = "0", code: str = "exited") -> dict[str, str]:
    """What systemd tells the recorder."""
    told = {"MONITOR_SERVICE_RESULT": result, "MONITOR_INVOCATION_ID": INVOCATION, "MONITOR_UNIT": SERVICE}
    return {**told, "MONITOR_EXIT_CODE": code, "MONITOR_EXIT_STATUS": status} if code else told


def recorded(host: FakeHost, environment: dict[str, str], **changes: Any) -> dict[str, Any]:
    """The outcome that is written."""
    assert record(host, define(host, **changes), environment) == 0
    found = outcomes.last(host, UNIT)
    assert found is not None
    return found


def findings(host: FakeHost, **more: Any) -> None:
    """What prepare, verify and finish left."""
    State(UNIT, INVOCATION, NOW - 30, **more).save(host)


def once_more(host: FakeHost, environment: dict[str, str], **changes: Any) -> dict[str, Any]:
    """The outcome of a run of the same id, as if the one before had not been recorded."""
    for name in ("json", "history.jsonl"):
        host.path(f"/var/lib/holdfast/outcomes/{UNIT}.{name}").unlink(missing_ok=True)
    return recorded(host, environment, **changes)


def test_ok(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    findings(host)
    host.journal(STATUS, SUMMARY, ("holdfast", "hook said: no space left on device"))
    found = recorded(host, monitor())
    assert capsys.readouterr().out == "system--vault ok\n"
    assert found == {
        "format": 1,
        "unit": UNIT,
        "job": "system",
        "repository": "vault",
        "engine": "restic",
        "repository_id": ID,
        "outcome": "ok",
        "reason": None,
        "message": "",
        "started": "2026-11-21T12:59:30Z",
        "ended": "2026-11-21T13:00:00Z",
        "duration_seconds": 30.0,
        "exit_status": 0,
        "service_result": "success",
        "invocation_id": INVOCATION,
        "last_invocation": INVOCATION,
        "snapshot": SNAPSHOT,
        "summary": {
            "files_new": 2,
            "files_changed": 0,
            "files_unmodified": 1,
            "dirs_new": 4,
            "dirs_changed": 0,
            "dirs_unmodified": 0,
            "data_added": 3002177,
            "data_added_packed": 3001867,
            "total_files_processed": 3,
            "total_bytes_processed": 3000003,
            "total_duration": 0.894492457,
        },
        "missing": [],
        "dumps": {},
        "dumps_failed": [],
        "last_ok": "2026-11-21T13:00:00Z",
        "refusal": None,
        "told": None,
        "versions": {"holdfast": "0", "restic": "0.18.0"},
    }
    directory = host.path("/var/lib/holdfast/outcomes")
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700


def recorded_lines(said: Result) -> list[str]:
    """Lines of standard error as the journal has them."""
    return said.stderr.splitlines()


CANCELLED = FATAL.format(130, "Fatal: unable to save snapshot: context canceled")
SIGNALLED = "signal terminated received, cleaning up"
PANIC = [
    "panic: runtime error: invalid memory address or nil pointer dereference",
    "[signal SIGSEGV: segmentation violation code=0x1 addr=0x18 pc=0x8b69e4]",
    "goroutine 100 [running]:",
    "github.com/restic/restic/internal/repository.(*packerManager).SaveBlob(0x0, {0x19b9e30, 0x297cc9c10280}, 0x1, ...)",
]
EXIT_1 = monitor("exit-code", "1")
NO_MAIN = monitor("exit-code", code="")


@pytest.mark.parametrize(
    ("lines", "environment", "outcome", "reason"),
    [
        ([SUMMARY, UNREADABLE], monitor("exit-code", "3"), "incomplete", "source unreadable"),
        ([SUMMARY, SKIPPED], monitor("exit-code", "3"), "incomplete", "source missing"),
        ([SUMMARY, SKIPPED, UNREADABLE], monitor("exit-code", "3"), "incomplete", "source unreadable"),
        ([UNREADABLE], monitor("exit-code", "3"), "failed", "unknown"),
        ([], monitor(), "failed", "unknown"),
        ([FATAL.format(10, "Fatal: repository does not exist")], monitor("exit-code", "10"), "failed", "no repository"),
        ([], monitor("exit-code", "11"), "failed", "locked"),
        ([], monitor("exit-code", "12"), "failed", "wrong password"),
        ([], monitor("exit-code", "130"), "failed", "interrupted"),
        ([], monitor("exit-code", "77"), "failed", "unknown"),
        ([FATAL.format(1, "Fatal: write /x: no space left on device")], EXIT_1, "failed", "disk full"),
        ([FATAL.format(1, "unexpected HTTP response (507)")], EXIT_1, "failed", "disk full"),
        ([FATAL.format(1, "Fatal: nothing to backup")], EXIT_1, "failed", "source missing"),
        ([FATAL.format(1, "unexpected HTTP response (401): 401 Unauthorized")], EXIT_1, "failed", "wrong credentials"),
        ([FATAL.format(12, "401 Unauthorized")], monitor("exit-code", "12"), "failed", "wrong password"),
        (["401 Unauthorized", FATAL.format(1, "wrong password or no key found")], EXIT_1, "failed", "wrong password"),
        ([RETRY, FATAL.format(1, "Fatal: unable to open config file")], EXIT_1, "failed", "unreachable"),
        ([SIGNALLED], EXIT_1, "failed", "interrupted"),
        (recorded_lines(texts.REFUSED_KEY), EXIT_1, "failed", "key refused"),
        (recorded_lines(texts.OTHER_HOST_KEY), EXIT_1, "failed", "host key"),
        (recorded_lines(texts.STORE_REFUSES), EXIT_1, "failed", "wrong credentials"),
        (recorded_lines(texts.S3_WRONG_SECRET), EXIT_1, "failed", "wrong credentials"),
        (recorded_lines(texts.S3_NOT_PERMITTED), EXIT_1, "failed", "wrong credentials"),
        (recorded_lines(texts.S3_NO_BUCKET), EXIT_1, "failed", "unreachable"),
        (recorded_lines(texts.S3_EXPIRED), EXIT_1, "failed", "wrong credentials"),
        (recorded_lines(texts.STORE_EXPIRED), EXIT_1, "failed", "wrong credentials"),
        (recorded_lines(texts.S3_SLOW_14), EXIT_1, "failed", "unreachable"),
        (recorded_lines(texts.S3_SLOW), EXIT_1, "failed", "unreachable"),
        (recorded_lines(texts.S3_TROUBLE), EXIT_1, "failed", "unreachable"),
        (recorded_lines(texts.S3_SLOW), monitor("timeout", "1"), "failed", "unreachable"),
        (recorded_lines(texts.STORE_TROUBLE), EXIT_1, "failed", "unreachable"),
        (recorded_lines(texts.STORE_NO_LOCK), EXIT_1, "failed", "unreachable"),
        (recorded_lines(texts.S3_NO_LOCK), EXIT_1, "failed", "unreachable"),
        # What passed is not what ended it.
        (
            [*recorded_lines(texts.S3_SLOW), FATAL.format(1, "Fatal: write /x: no space left on device")],
            EXIT_1,
            "failed",
            "disk full",
        ),
        (recorded_lines(texts.STORE_FULL), EXIT_1, "failed", "quota"),
        (recorded_lines(texts.MAINTENANCE), EXIT_1, "failed", "locked"),
        (recorded_lines(texts.NO_SSHD), EXIT_1, "failed", "unreachable"),
        (recorded_lines(texts.NO_NAME), EXIT_1, "failed", "unreachable"),
        (recorded_lines(texts.DIRECTORY_GONE), EXIT_1, "failed", "unreachable"),
        (recorded_lines(texts.EXPIRED_SFTP), EXIT_1, "failed", "unreachable"),
        # restic 0.19.1 on a file that it cannot read, now and then; and the same when it was told to end.
        ([UNREADABLE, CANCELLED], monitor("exit-code", "130"), "failed", "source unreadable"),
        ([UNREADABLE, *PANIC], monitor("exit-code", "2"), "failed", "source unreadable"),
        ([CANCELLED], monitor("exit-code", "130"), "failed", "interrupted"),
        ([UNREADABLE, SIGNALLED, CANCELLED], monitor("exit-code", "130"), "failed", "interrupted"),
        (PANIC, monitor("exit-code", "2"), "failed", "unknown"),
        # A file's name is no evidence.
        ([UNREADABLE.replace("/src/b", "/no space left on device")], EXIT_1, "failed", "unknown"),
        ([], monitor("signal", "KILL", "killed"), "failed", "killed"),
        ([], monitor("signal", "TERM", "killed"), "failed", "interrupted"),
        ([], monitor("core-dump", "SEGV", "dumped"), "failed", "killed"),
        ([SUMMARY], monitor("oom-kill", "KILL", "killed"), "failed", "killed"),
        ([STATUS, RETRY], monitor("timeout", "1"), "failed", "timeout"),
        ([RETRY], monitor("timeout", "1"), "failed", "unreachable"),
        ([], monitor("timeout", code=""), "failed", "timeout"),
        # restic gave up, and then did not end.
        (
            [FATAL.format(1, "Fatal: unable to save snapshot: write /x: no space left on device")],
            monitor("timeout", "1"),
            "failed",
            "disk full",
        ),
        (
            [FATAL.format(130, "signal terminated received, cleaning up")],
            monitor("timeout", "130"),
            "failed",
            "timeout",
        ),
        (
            [("systemd", f"{SERVICE}: Failed to set up credentials")],
            monitor("exit-code", "243"),
            "failed",
            "lost key file",
        ),
        ([("systemd", "Failed to spawn")], monitor("exit-code", "203"), "failed", "unknown"),
        ([], NO_MAIN, "failed", "unknown"),
        # restic was content, systemd is not, and nobody knows why.
        ([SUMMARY], monitor("exit-code"), "failed", "unknown"),
    ],
)
def test_reasons(host: FakeHost, lines: list[str], environment: dict[str, str], outcome: str, reason: str) -> None:
    host.journal(*lines)
    found = recorded(host, environment)
    assert (found["outcome"], found["reason"]) == (outcome, reason)
    assert found["message"]
    assert found["last_ok"] is None
    assert (found["snapshot"] == SNAPSHOT) == (SUMMARY in lines)


@pytest.mark.parametrize(
    ("left", "lines", "environment", "expected"),
    [
        ({"stopped": "no escrow", "message": "why"}, [], NO_MAIN, ("failed", "no escrow")),
        ({"missing": ["/srv/gone"]}, [SUMMARY], monitor("exit-code"), ("incomplete", "source missing")),
        ({"missing": ["/srv/gone"]}, [SUMMARY], monitor(), ("incomplete", "source missing")),
        ({"missing": ["/a"]}, [SUMMARY, UNREADABLE], monitor("exit-code", "3"), ("incomplete", "source unreadable")),
        ({"post_failed": ["post hook 1: x"], "missing": ["/a"]}, [SUMMARY], monitor(), ("failed", "post hook")),
        ({"stopped": "another repository", "message": "x"}, [SUMMARY], monitor(), ("failed", "another repository")),
        ({"post_failed": ["post hook 1: x"]}, [], monitor("exit-code", "12"), ("failed", "wrong password")),
    ],
)
def test_findings(
    host: FakeHost,
    left: dict[str, Any],
    lines: list[str],
    environment: dict[str, str],
    expected: tuple[str, str],
) -> None:
    findings(host, **left)
    host.journal(*lines)
    found = recorded(host, environment)
    assert (found["outcome"], found["reason"]) == expected


DUMP = [{"name": "pg", "unit": "pg.service"}]
DUMPS_ONLY: dict[str, Any] = {"paths": [], "optional_paths": [], "dumps": DUMP}


@pytest.mark.parametrize("result", ["exit-code", "signal", "timeout"])
def test_an_incomplete_run_that_is_accepted_has_to_end_well_all_the_same(
    host: FakeHost, tmp_path: Path, result: str
) -> None:
    """`finish` was killed, say, before it knew whether this was the right repository."""
    findings(host, missing=["/srv/gone"])
    host.journal(UNREADABLE, SUMMARY)
    told = tmp_path / "told"
    tell = hook(f'echo "$HOLDFAST_MESSAGE" >{told}')
    accepted = recorded(host, monitor(status="3"), incomplete_is="ok", on_failure=tell)
    assert (accepted["outcome"], told.exists()) == ("incomplete", False)
    found = once_more(host, monitor(result, "3"), incomplete_is="ok", on_failure=tell)
    assert (found["outcome"], found["reason"], found["told"]) == ("failed", "unknown", True)
    assert told.read_text().startswith(f"systemd says: {result}\n")
    assert "declared but not there: /srv/gone" in told.read_text()
    # Otherwise it ends badly since it is incomplete.
    assert once_more(host, monitor("exit-code", "3"))["outcome"] == "incomplete"


def test_a_dump_without_a_snapshot_is_no_success(host: FakeHost) -> None:
    host.journal(SUMMARY)
    for left in ({"dumps_failed": ["pg"], "missing": ["/a"]}, {"dumps": {"other": SNAPSHOT}}, {}):
        findings(host, **left)
        found = once_more(host, monitor(), dumps=DUMP)
        assert (found["outcome"], found["reason"], found["snapshot"]) == ("failed", "dump", SNAPSHOT)
        assert "pg" in found["message"]
    findings(host, dumps={"pg": SNAPSHOT})
    found = once_more(host, monitor(), dumps=DUMP)
    assert (found["outcome"], found["dumps"]) == ("ok", {"pg": SNAPSHOT})


@pytest.mark.parametrize(
    ("left", "environment", "expected"),
    [
        ({"dumps": {"pg": SNAPSHOT}}, monitor(), ("ok", None)),
        ({"dumps_failed": ["pg"]}, monitor("exit-code", "1"), ("failed", "dump")),
        ({}, monitor(), ("failed", "dump")),
        ({"dumps": {"pg": SNAPSHOT}}, monitor("exit-code", "1"), ("failed", "unknown")),
        ({"dumps": {"pg": SNAPSHOT}, "missing": ["/a"]}, monitor("exit-code", "1"), ("incomplete", "source missing")),
        ({"stopped": "pre hook", "message": "x"}, NO_MAIN, ("failed", "pre hook")),
        ({}, monitor("timeout", code=""), ("failed", "timeout")),
        ({}, monitor("signal", "TERM", "killed"), ("failed", "interrupted")),
        (None, monitor(), ("failed", "unknown")),
    ],
)
def test_only_dumps(
    host: FakeHost, left: dict[str, Any] | None, environment: dict[str, str], expected: tuple[str, str | None]
) -> None:
    if left is not None:
        findings(host, **left)
    host.journal()
    found = recorded(host, environment, **DUMPS_ONLY)
    assert (found["outcome"], found["reason"]) == expected
    assert (found["snapshot"], found["summary"], found["exit_status"]) == (None, None, None)
    # Nobody waits for a summary that will not come.
    assert host.slept == 0


def test_an_empty_snapshot_is_not_passed_over_in_silence(host: FakeHost) -> None:
    findings(host)
    host.journal(json.dumps({**json.loads(SUMMARY), "total_files_processed": 0}))
    found = recorded(host, monitor())
    assert (found["outcome"], found["reason"]) == ("ok", None)
    assert found["message"] == "no file is in this snapshot: what is to be saved is empty"


def test_a_summary_without_a_snapshot_is_no_success(host: FakeHost) -> None:
    """restic backup --skip-if-unchanged ends with 0 and a summary, and saves nothing."""
    findings(host)
    for without in ({"snapshot_id": ""}, {}):
        summary = {name: value for name, value in json.loads(SUMMARY).items() if name != "snapshot_id"}
        host.journal(json.dumps({**summary, **without}))
        found = once_more(host, monitor())
        assert (found["outcome"], found["reason"], found["snapshot"] or None) == ("failed", "unknown", None)
        assert found["message"] == "exit status 0, but no snapshot was made"


def test_what_restic_skips_makes_a_run_incomplete_whatever_its_status(host: FakeHost) -> None:
    """Restic before 0.19 ends with 0 when it does not see a path that root saw before, from its sandbox say."""
    findings(host)
    host.journal(SKIPPED, "/srv/optional does not exist, skipping", SUMMARY)
    found = recorded(host, monitor())
    assert (found["outcome"], found["reason"], found["snapshot"]) == ("incomplete", "source missing", SNAPSHOT)
    assert "/srv/gone" in found["message"]
    host.journal("/srv/optional does not exist, skipping", SUMMARY)
    assert once_more(host, monitor())["outcome"] == "ok"


BEGINNING = f"MESSAGE={journal.BEGINNING}"
GREP = f"--grep={journal.SKIPPED}$"


def test_what_restic_skips_is_seen_behind_any_number_of_lines(host: FakeHost) -> None:
    """It says so first, and in a long run thousands of lines follow: the last ones are read."""
    findings(host)
    host.journal(*['{"message_type": "status"}'] * 3, SUMMARY)
    host.answer(
        "journalctl", GREP, f"_SYSTEMD_INVOCATION_ID={INVOCATION}", "SYSLOG_IDENTIFIER=restic", stdout=entries(SKIPPED)
    )
    found = recorded(host, monitor())
    assert (found["outcome"], found["reason"], found["snapshot"]) == ("incomplete", "source missing", SNAPSHOT)
    assert "/srv/gone" in found["message"]


@pytest.mark.parametrize(("version", "outcome"), [("0.18.1", "incomplete"), ("0.19.0", "ok"), (None, "incomplete")])
def test_where_the_journal_lost_what_restic_skips_nobody_knows(
    host: FakeHost, version: str | None, outcome: str
) -> None:
    """A small journal removes the oldest lines while the run goes on; from 0.19 on the exit code says it, too."""
    findings(host)
    host.journal(SUMMARY)
    host.answer("journalctl", GREP)
    host.answer("journalctl", BEGINNING)
    host.answer("/usr/bin/restic", "version", stdout=f"restic {version} compiled with go" if version else "")
    found = recorded(host, monitor())
    assert (found["outcome"], found["reason"]) == (outcome, None if outcome == "ok" else "unknown")
    assert ("the journal has lost the beginning of this run" in found["message"]) == (outcome != "ok")
    # While it is there, it is not asked which version it is.
    host.answer("journalctl", BEGINNING, f"_SYSTEMD_INVOCATION_ID={INVOCATION}", stdout=entries(("holdfast", "x")))
    assert once_more(host, monitor())["outcome"] == "ok"


def test_without_its_findings_a_run_is_no_success(host: FakeHost) -> None:
    host.journal(SUMMARY)
    State(UNIT, "0" * 32, NOW - 30).save(host)
    found = recorded(host, monitor())
    assert (found["outcome"], found["reason"], found["snapshot"]) == ("failed", "unknown", SNAPSHOT)
    findings(host)
    assert once_more(host, monitor())["outcome"] == "ok"


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("/var/lib/holdfast/repositories/vault.env", "no record"),
        ("/etc/holdfast/secrets/vault.repository", "lost key file"),
        (None, "unknown"),
    ],
)
def test_it_could_not_even_start(host: FakeHost, gone: str | None, reason: str) -> None:
    if gone:
        host.path(gone).unlink()
    host.journal(("systemd", f"{SERVICE}: Failed to load environment files: No such file or directory"))
    found = recorded(host, monitor("resources", code=""))
    assert (found["outcome"], found["reason"]) == ("failed", reason)
    assert found["message"] == "Failed to load environment files: No such file or directory"
    assert found["exit_status"] is None


def test_an_unmounted_repository(host: FakeHost) -> None:
    assert recorded(host, monitor("resources", code=""), mount="/mnt/usb")["reason"] == "unreachable"
    host.put("/proc/self/mountinfo", "36 35 98:0 / /mnt/usb rw - ext3 /dev/root rw\n")
    assert evidence.lost(host, define(host, mount="/mnt/usb")) is None


def test_the_summary_may_come_late(host: FakeHost) -> None:
    host.journal()
    assert recorded(host, monitor())["outcome"] == "failed"
    assert host.slept == pytest.approx((journal.LOOKS - 1) * journal.PAUSE)
    assert host.calls.count(["journalctl", "--sync"]) == journal.LOOKS


def test_what_an_earlier_version_recorded_is_for_root_alone_from_now_on(host: FakeHost) -> None:
    """A message names files that lie in private directories."""
    findings(host)
    other = host.put("/var/lib/holdfast/outcomes/old--vault.json", {"message": "/home/alice/diary: permission denied"})
    for suffix in ("json", "history.jsonl"):
        host.put(f"/var/lib/holdfast/outcomes/{UNIT}.{suffix}", "{}\n")
    other.parent.chmod(0o755)
    recorded(host, monitor())
    assert other.parent.stat().st_mode & 0o777 == 0o700
    mine = [path for path in other.parent.iterdir() if path != other]
    assert {path.stat().st_mode & 0o777 for path in mine} == {0o600}


def test_history_is_bounded(host: FakeHost) -> None:
    host.journal(SUMMARY)
    for number in range(outcomes.HISTORY + 5):
        recorded(host, {**monitor(), "MONITOR_INVOCATION_ID": f"{number:032d}"})
    lines = host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl").read_text().splitlines()
    assert len(lines) == outcomes.HISTORY
    assert json.loads(lines[-1])["invocation_id"] == f"{outcomes.HISTORY + 4:032d}"


def test_damaged_lines_of_the_history_are_left_out(host: FakeHost) -> None:
    findings(host)
    host.journal(SUMMARY)
    path = host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl")
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"invocation_id": "1"}\n[]\n{"inv\xff\n')
    recorded(host, monitor())
    assert [json.loads(line)["invocation_id"] for line in path.read_text().splitlines()] == ["1", INVOCATION]


def test_last_ok_is_carried_on(host: FakeHost) -> None:
    findings(host)
    host.journal(SUMMARY)
    recorded(host, monitor())
    host.clock += 3600
    found = recorded(host, {**monitor("exit-code", "12"), "MONITOR_INVOCATION_ID": "0" * 32})
    assert (found["outcome"], found["last_ok"]) == ("failed", "2026-11-21T13:00:00Z")


SHOWN = f"Result=exit-code\nInvocationID={INVOCATION}\nExecMainCode=1\nExecMainStatus=12\n"


def test_what_was_saved_into_another_repository_is_not_carried_on(host: FakeHost) -> None:
    findings(host)
    host.journal(SUMMARY)
    assert recorded(host, monitor())["last_ok"] == "2026-11-21T13:00:00Z"
    record = host.path("/var/lib/holdfast/repositories/vault.env")
    record.unlink()
    lost = recorded(host, {**monitor("exit-code", "1"), "MONITOR_INVOCATION_ID": LATER})
    assert (lost["outcome"], lost["last_ok"], lost["repository_id"]) == ("failed", "2026-11-21T13:00:00Z", ID)
    record.write_text(RECORD.replace(ID, "5" * 64))
    found = recorded(host, {**monitor("exit-code", "1"), "MONITOR_INVOCATION_ID": "7" * 32})
    assert (found["outcome"], found["last_ok"], found["repository_id"]) == ("failed", None, "5" * 64)


def test_without_word_from_systemd_it_asks(host: FakeHost) -> None:
    host.answer("systemctl", "show", stdout=SHOWN)
    host.journal()
    found = recorded(host, {})
    assert (found["reason"], found["invocation_id"]) == ("wrong password", INVOCATION)
    # Started by hand it does not make a run on record a later one.
    host.clock += 60
    again = recorded(host, {})
    assert again == found
    assert len(host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl").read_text().splitlines()) == 1


def refused(host: FakeHost, seconds: float, cursor: str = "") -> None:
    """What systemd logs when it refuses a run."""
    line = json.loads(entries(("systemd", "Dependency failed for the backup.")))
    time = str(int((NOW + seconds) * 1e6))
    host.answer("JOB_RESULT=dependency", stdout=json.dumps({**line, "__REALTIME_TIMESTAMP": time, "__CURSOR": cursor}))


def test_a_run_that_systemd_refused(host: FakeHost) -> None:
    findings(host)
    host.journal(SUMMARY)
    # One from before the run is no news.
    refused(host, -99)
    assert recorded(host, monitor())["outcome"] == "ok"
    refused(host, 5)
    # Again and again, with what systemd knows of the run before.
    for seconds in (5, 10):
        host.clock = NOW + seconds
        found = recorded(host, monitor())
        assert (found["outcome"], found["reason"]) == ("failed", "unknown")
        assert (found["service_result"], found["invocation_id"]) == ("dependency", None)
        assert (found["message"], found["last_ok"]) == ("Dependency failed for the backup.", "2026-11-21T13:00:00Z")
    # It is on record now; a recorder started by hand finds nothing new.
    for shown in ("", INVOCATION):
        host.answer("systemctl", "show", stdout=f"InvocationID={shown}\n")
        assert record(host, define(host), {}) == 0
    assert len(host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl").read_text().splitlines()) == 3
    host.clock = NOW + 30
    refused(host, 25)
    assert recorded(host, {})["ended"] == "2026-11-21T13:00:30Z"


def test_a_run_that_was_refused_before_there_was_any(host: FakeHost) -> None:
    refused(host, 0)
    told = {name: value for name, value in monitor(code="").items() if name != "MONITOR_INVOCATION_ID"}
    assert recorded(host, told)["service_result"] == "dependency"


def test_a_refusal_after_a_run_that_an_earlier_version_recorded(host: FakeHost) -> None:
    findings(host)
    host.journal(SUMMARY)
    last = recorded(host, monitor())
    del last["last_invocation"]
    outcomes.write(host, UNIT, last, outcomes.last(host, UNIT))
    refused(host, 5)
    for _time in range(2):
        found = recorded(host, monitor())
        assert (found["service_result"], found["last_invocation"]) == ("dependency", INVOCATION)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_refusal_after_one_that_an_earlier_version_recorded(host: FakeHost, damaged: bool) -> None:
    """The run that systemd goes on telling of is in the history only: it is not today's."""
    findings(host)
    host.journal(SUMMARY)
    recorded(host, monitor())
    refused(host, 5)
    before = recorded(host, monitor())
    path = host.path(f"/var/lib/holdfast/outcomes/{UNIT}.json")
    path.write_text("" if damaged else json.dumps({**before, "last_invocation": None}))
    found = recorded(host, monitor())
    assert (found["outcome"], found["service_result"]) == ("failed", "dependency")


def test_a_recorder_unit_that_is_started_by_hand_finds_nothing_new(host: FakeHost) -> None:
    """Systemd gives it what it gives one that it starts itself."""
    findings(host)
    host.journal(SUMMARY)
    host.answer("JOB_RESULT=dependency")
    good = recorded(host, monitor())
    assert record(host, define(host), monitor()) == 0
    assert outcomes.last(host, UNIT) == good
    refused(host, 5, cursor="s=1")
    bad = recorded(host, monitor())
    assert bad["service_result"] == "dependency"
    host.clock += 60
    assert record(host, define(host), monitor()) == 0
    assert outcomes.last(host, UNIT) == bad
    refused(host, 9, cursor="s=2")
    host.calls.clear()
    assert recorded(host, monitor())["refusal"] == "s=2"
    # The journal may lag behind what started the recorder.
    asked = [call for call in host.calls if call[0] == "journalctl"]
    assert asked[0] == ["journalctl", "--sync"]


def test_a_refusal_is_told_by_the_run_that_systemd_knows_and_not_by_the_clock(host: FakeHost) -> None:
    findings(host)
    host.journal(SUMMARY)
    # A day ahead; then it is set right, and the next run is refused.
    host.clock = NOW + 86400
    assert recorded(host, monitor())["outcome"] == "ok"
    host.clock = NOW
    refused(host, 0)
    found = recorded(host, monitor())
    assert (found["outcome"], found["service_result"]) == ("failed", "dependency")
    # The refusal was logged with the clock ahead, and what comes after it is good.
    refused(host, 86400)
    State(UNIT, "1" * 32, NOW).save(host)
    assert recorded(host, {**monitor(), "MONITOR_INVOCATION_ID": "1" * 32})["outcome"] == "ok"
    # The journal has lost all of it.
    host.answer("JOB_RESULT=dependency")
    host.answer("journalctl", "--output=json")
    found = recorded(host, {**monitor(), "MONITOR_INVOCATION_ID": "1" * 32})
    assert (found["service_result"], found["message"]) == ("dependency", "systemd did not start it")


def test_nothing_to_record(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.answer("systemctl", "show", stdout="Result=success\nInvocationID=\nExecMainCode=0\nExecMainStatus=0\nx")
    assert record(host, define(host), {}) == 0
    assert outcomes.last(host, UNIT) is None
    assert "nothing is recorded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "environment", "told"),
    [
        ({}, monitor("exit-code", "12"), True),
        ({"on_failure": hook("exit 1")}, monitor("exit-code", "12"), False),
        ({}, monitor(), None),
        ({"incomplete_is": "ok"}, monitor("success", "3"), None),
        ({}, monitor("exit-code", "3"), True),
        ({"on_failure": None}, monitor("exit-code", "12"), None),
    ],
)
def test_telling(
    host: FakeHost, tmp_path: Path, changes: dict[str, Any], environment: dict[str, str], told: bool | None
) -> None:
    findings(host)
    host.journal(SUMMARY)
    command = hook(f"env | grep ^HOLDFAST_ | sort >{tmp_path}/told")
    found = recorded(host, environment, **{"on_failure": command, **changes})
    assert found["told"] is told
    if told:
        lines = (tmp_path / "told").read_text()
        assert f"HOLDFAST_OUTCOME={found['outcome']}\n" in lines
        assert f"HOLDFAST_UNIT={UNIT}\n" in lines
        assert "HOLDFAST_LAST_OK=\n" in lines


# --- the disk is full, or read-only


@pytest.mark.parametrize("broken", [errno.ENOSPC, errno.EROFS])
def test_what_cannot_be_written_is_told(
    host: FakeHost, tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: int
) -> None:
    findings(host)
    host.journal()
    host.broken = broken
    definition = define(host, on_failure=hook(f"echo $HOLDFAST_REASON >>{tmp_path}/told"))
    assert record(host, definition, monitor("exit-code", "12")) == 1
    assert (tmp_path / "told").read_text() == "wrong password\n"
    assert f"the outcome of {UNIT} cannot be written: " in capsys.readouterr().err
    assert outcomes.last(host, UNIT) is None


def test_there_is_space_again_when_somebody_was_told(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a good run from before would be the last one that anybody knows of."""
    findings(host)
    host.journal(SUMMARY)
    recorded(host, {**monitor(), "MONITOR_INVOCATION_ID": "0" * 32})
    host.broken = errno.ENOSPC

    def tell(_hook: Hook, _variables: Mapping[str, str]) -> None:
        host.broken = None

    monkeypatch.setattr(hooks, "run", tell)
    assert record(host, define(host, on_failure=hook("true")), monitor("exit-code", "12")) == 1
    found = outcomes.last(host, UNIT)
    assert found is not None
    assert (found["outcome"], found["told"], found["invocation_id"]) == ("failed", True, INVOCATION)


def test_a_run_goes_on_where_nobody_can_note_it(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.broken = errno.ENOSPC
    assert prepare(host, define(host), {"INVOCATION_ID": INVOCATION}) == 0
    assert "No space left on device" in capsys.readouterr().err


def test_a_run_that_ended_with_the_host_and_cannot_be_recorded(host: FakeHost, tmp_path: Path) -> None:
    went_down(host)
    host.broken = errno.ENOSPC
    definition = define(host, on_failure=hook(f"echo $HOLDFAST_REASON >>{tmp_path}/told"))
    assert interrupted.settle_all(host) == 1
    assert (tmp_path / "told").read_text() == "interrupted\n"
    # The next run takes place, and once there is space it is on record.
    assert prepare(host, definition, {"INVOCATION_ID": "1" * 32}) == 0
    host.broken = None
    assert interrupted.settle_all(host) == 0
    found = outcomes.last(host, UNIT)
    assert found is not None
    assert (found["reason"], running.units(host)) == ("interrupted", [])


# --- runs that end while another is being recorded


LATER = "5" * 32


def history(host: FakeHost) -> list[tuple[Any, ...]]:
    """Runs on record, oldest first: invocation, outcome, told."""
    lines = host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl").read_text().splitlines()
    return [tuple(json.loads(line)[name] for name in ("invocation_id", "outcome", "told")) for line in lines]


def test_a_good_run_while_somebody_is_told_of_a_bad_one(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorders of a good and of a bad run are two instances."""
    host.journal(SUMMARY)
    definition = define(host, on_failure=hook("true"))

    def tell(_hook: Hook, _variables: Mapping[str, str]) -> None:
        State(UNIT, LATER, NOW).save(host)
        host.clock += 50
        assert record(host, definition, {**monitor(), "MONITOR_INVOCATION_ID": LATER}) == 0

    monkeypatch.setattr(hooks, "run", tell)
    findings(host)
    assert record(host, definition, monitor("exit-code", "12")) == 0
    found = outcomes.last(host, UNIT)
    assert found is not None
    assert (found["outcome"], found["invocation_id"], found["last_ok"]) == ("ok", LATER, "2026-11-21T13:00:50Z")
    assert history(host) == [(INVOCATION, "failed", True), (LATER, "ok", None)]


@pytest.mark.parametrize(
    ("result", "active", "recorded_too"),
    [("exit-code", "failed", True), ("exit-code", "deactivating", False), ("success", "inactive", False)],
)
def test_a_bad_run_while_somebody_is_told_of_another(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, result: str, active: str, recorded_too: bool
) -> None:
    """systemd starts nothing that is being started: the second run has no recorder of its own. One that still runs, or
    ended well, will have, or has."""
    host.journal()
    told = []

    def tell(_hook: Hook, variables: Mapping[str, str]) -> None:
        told.append(variables["HOLDFAST_REASON"])
        host.clock += 50
        shown = f"ActiveState={active}\nResult={result}\nInvocationID={LATER}\nExecMainCode=1\nExecMainStatus=11\n"
        host.answer("systemctl", "show", stdout=shown)

    monkeypatch.setattr(hooks, "run", tell)
    findings(host)
    assert record(host, define(host, on_failure=hook("true")), monitor("exit-code", "12")) == 0
    expected = [(INVOCATION, "failed", True), (LATER, "failed", True)]
    assert history(host) == (expected if recorded_too else expected[:1])
    assert told == (["wrong password", "locked"] if recorded_too else ["wrong password"])
    if recorded_too:
        # It is on record now, whoever looks again.
        assert record(host, define(host), {}) == 0
        assert len(history(host)) == len(told)


def test_the_next_run_begins_before_the_recorder_has_read_what_was_found(host: FakeHost) -> None:
    host.journal(SUMMARY)
    definition = define(host)
    assert prepare(host, definition, {"INVOCATION_ID": INVOCATION}) == 0
    assert prepare(host, definition, {"INVOCATION_ID": LATER}) == 0
    assert recorded(host, monitor())["outcome"] == "ok"
    assert recorded(host, {**monitor(), "MONITOR_INVOCATION_ID": LATER})["outcome"] == "ok"


def test_two_recorders_take_turns(host: FakeHost) -> None:
    """The one that began first reads the journal for longer."""
    definition = define(host)
    later = threading.Thread(
        target=record, args=(host, definition, {**monitor("exit-code", "12"), "MONITOR_INVOCATION_ID": LATER})
    )

    def slow(argv: Sequence[str]) -> Done:
        if f"_SYSTEMD_INVOCATION_ID={INVOCATION}" in argv and not later.ident:
            later.start()
            later.join(0.5)
        return Done(0, entries(SUMMARY))

    host.answer("journalctl", BEGINNING, stdout=entries(("holdfast", "x")))
    host.answers.insert(0, (("journalctl", "--output=json", "SYSLOG_IDENTIFIER=restic"), slow))
    findings(host)
    assert record(host, definition, monitor()) == 0
    later.join(10)
    found = outcomes.last(host, UNIT)
    assert found is not None
    assert (found["invocation_id"], found["last_ok"]) == (LATER, "2026-11-21T13:00:00Z")
    assert history(host) == [(INVOCATION, "ok", None), (LATER, "failed", None)]


def test_messages_hold_no_secrets(host: FakeHost) -> None:
    passwords = {
        "user": "web1--vault",
        "current": {"password": "rest-first", "hash": "h"},
        "next": {"password": "rest-second", "hash": "h"},
    }
    host.put("/etc/holdfast/secrets/vault.identity", {**IDENTITY, "rest": passwords})
    words = "the-password backend-secret rest-first rest-second rest:https://u:pw@vault1/x"
    host.journal(FATAL.format(1, words))
    message = recorded(host, EXIT_1)["message"]
    assert message == "*** *** *** *** rest:https://***@vault1/x"


def test_messages_are_bounded(host: FakeHost) -> None:
    host.journal(SUMMARY, *(UNREADABLE.replace("/src/b", f"/src/{number}/" + "x" * 400) for number in range(50)))
    message = recorded(host, monitor("exit-code", "3"))["message"]
    assert len(message) == assess.LONGEST_MESSAGE
    assert all(len(line) <= assess.LONGEST_LINE for line in message.splitlines())


def test_a_restic_that_cannot_say_its_version(host: FakeHost) -> None:
    host.answer("/usr/bin/restic", "version", status=127)
    assert recorded(host, monitor())["versions"]["restic"] is None


# --- the host went down

BOOT = "/proc/sys/kernel/random/boot_id"


def went_down(host: FakeHost) -> None:
    """A run begins, the host loses its power in the middle of it and boots again a minute later."""
    host.put(BOOT, "boot-1\n")
    assert prepare(host, define(host), {"INVOCATION_ID": INVOCATION}) == 0
    host.put(BOOT, "boot-2\n")
    host.path(f"/run/holdfast/{UNIT}.json").unlink()
    host.clock += 60


@pytest.mark.parametrize("who", ["boot", "prepare"])
def test_a_run_that_ended_with_the_host(host: FakeHost, tmp_path: Path, who: str) -> None:
    State(UNIT, "0" * 32, NOW - 30).save(host)
    host.journal(SUMMARY)
    recorded(host, {**monitor(), "MONITOR_INVOCATION_ID": "0" * 32})
    went_down(host)
    told = hook(f"echo $HOLDFAST_OUTCOME $HOLDFAST_REASON $HOLDFAST_STARTED >>{tmp_path}/told")
    definition = define(host, on_failure=told)
    for _time in range(2):
        if who == "boot":
            assert interrupted.settle_all(host) == 0
        else:
            assert prepare(host, definition, {"INVOCATION_ID": "1" * 32}) == 0
    found = outcomes.last(host, UNIT)
    assert found is not None
    assert (found["outcome"], found["reason"], found["told"]) == ("failed", "interrupted", True)
    assert (found["started"], found["ended"]) == ("2026-11-21T13:00:00Z", "2026-11-21T13:01:00Z")
    assert (found["duration_seconds"], found["invocation_id"]) == (None, INVOCATION)
    assert found["last_ok"] == "2026-11-21T13:00:00Z"
    assert (tmp_path / "told").read_text() == "failed interrupted 2026-11-21T13:00:00Z\n"
    history = host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl").read_text().splitlines()
    assert [json.loads(line)["outcome"] for line in history] == ["ok", "failed"]
    assert json.loads(history[-1]) == found
    # It is settled; the run that prepare was called for has begun.
    assert running.units(host) == ([] if who == "boot" else [UNIT])


def test_what_is_recorded_did_not_end_with_the_host(host: FakeHost) -> None:
    host.put(BOOT, "boot-1\n")
    definition = define(host)
    assert prepare(host, definition, {"INVOCATION_ID": INVOCATION}) == 0
    # It still runs; and nobody knows which boot this is.
    assert interrupted.settle_all(host) == 0
    host.put(BOOT, "")
    assert interrupted.settle_all(host) == 0
    assert outcomes.last(host, UNIT) is None
    host.journal(SUMMARY)
    assert recorded(host, monitor())["outcome"] == "ok"
    assert running.units(host) == []
    host.put(BOOT, "boot-2\n")
    assert interrupted.settle_all(host) == 0
    # A late recorder does not forget the next run.
    assert prepare(host, definition, {"INVOCATION_ID": "1" * 32}) == 0
    recorded(host, monitor())
    assert running.units(host) == [UNIT]


@pytest.mark.parametrize(
    ("began", "now", "expected"),
    [
        ("31415", "92653", ["failed"]),
        ("31415", "31415", []),
        # Nobody knows then.
        ("31415", "", []),
        ("", "92653", []),
    ],
)
def test_a_boot_that_keeps_the_kernel(host: FakeHost, began: str, now: str, expected: list[str]) -> None:
    """systemctl soft-reboot, and a container: only systemd knows that it began anew."""
    host.put(BOOT, "boot-1\n")
    host.answer("systemctl", "show", "--property=UserspaceTimestampMonotonic", stdout=f"{began}\n" if began else "")
    assert prepare(host, define(host), {"INVOCATION_ID": INVOCATION}) == 0
    host.answer("systemctl", "show", "--property=UserspaceTimestampMonotonic", stdout=f"{now}\n" if now else "")
    assert interrupted.settle_all(host) == 0
    found = outcomes.last(host, UNIT)
    assert ([found["outcome"]] if found else []) == expected


def recorders(one: str = "inactive", other: str = "inactive") -> str:
    """systemctl show of both recorders of the unit, as systemd 252 and 257 print it."""
    return f"ActiveState={one}\nJob=\n\nActiveState={other}\nJob=\n"


def test_a_run_whose_recorder_was_killed(host: FakeHost, tmp_path: Path) -> None:
    """The next run records it; nobody else would."""
    host.put(BOOT, "boot-1\n")
    definition = define(host, on_failure=hook(f"echo $HOLDFAST_OUTCOME $HOLDFAST_REASON >>{tmp_path}/told"))
    shown = ("systemctl", "show", "--property=ActiveState,Job")
    host.answer(*shown, stdout=recorders())
    assert prepare(host, definition, {"INVOCATION_ID": INVOCATION}) == 0
    host.journal(SUMMARY, invocation=INVOCATION)
    host.clock += 60
    assert prepare(host, definition, {"INVOCATION_ID": "1" * 32}) == 0
    found = outcomes.last(host, UNIT)
    assert found is not None
    assert (found["outcome"], found["reason"], found["invocation_id"]) == ("failed", "unknown", INVOCATION)
    assert (found["started"], found["duration_seconds"], found["told"]) == ("2026-11-21T13:00:00Z", None, True)
    # What it saved is there all the same.
    assert (found["snapshot"], found["missing"]) == (SNAPSHOT, [])
    assert f"journalctl _SYSTEMD_INVOCATION_ID={INVOCATION}" in found["message"]
    # It may as well have failed by itself.
    assert f"its recorder (holdfast-record@{UNIT}) did not write down how" in found["message"]
    assert (tmp_path / "told").read_text() == "failed unknown\n"
    asked = next(call for call in host.calls if call[:3] == list(shown))
    assert asked[3:] == ["--", f"holdfast-record@{UNIT}.service", f"holdfast-record@{UNIT}--failed.service"]
    # The run that prepare was called for is noted now, and is not taken for one that ended; nor by hand.
    assert prepare(host, definition, {"INVOCATION_ID": "1" * 32}) == 0
    assert interrupted.settle_all(host) == 0
    assert history(host) == [(INVOCATION, "failed", True)]


@pytest.mark.parametrize(
    "answer",
    [
        {"stdout": recorders("activating")},
        {"stdout": recorders(other="active")},
        # It has a job, and will begin.
        {"stdout": "ActiveState=inactive\nJob=4711\n\nActiveState=inactive\nJob=\n"},
        {"stdout": recorders("failed"), "status": 1},
        {"stdout": ""},
    ],
)
def test_a_run_whose_recorder_is_at_work_is_left_to_it(host: FakeHost, answer: dict[str, Any]) -> None:
    host.put(BOOT, "boot-1\n")
    definition = define(host)
    host.answer("systemctl", "show", "--property=ActiveState,Job", **answer)
    assert prepare(host, definition, {"INVOCATION_ID": INVOCATION}) == 0
    assert prepare(host, definition, {"INVOCATION_ID": "1" * 32}) == 0
    assert outcomes.last(host, UNIT) is None


def test_a_run_that_is_recorded_is_not_recorded_again(host: FakeHost, tmp_path: Path) -> None:
    """Its recorder was killed while it told somebody: that is made up for."""
    host.put(BOOT, "boot-1\n")
    host.answer("systemctl", "show", "--property=ActiveState,Job", stdout=recorders("failed", "failed"))
    definition = define(host)
    assert prepare(host, definition, {"INVOCATION_ID": INVOCATION}) == 0
    note = host.path(f"/var/lib/holdfast/running/{UNIT}.json")
    content = note.read_text()
    host.journal()
    assert recorded(host, monitor("exit-code", "12"))["told"] is None
    note.write_text(content)
    definition = define(host, on_failure=hook(f"echo $HOLDFAST_REASON >>{tmp_path}/told"))
    for invocation in ("1" * 32, "1" * 32):
        assert prepare(host, definition, {"INVOCATION_ID": invocation}) == 0
    assert history(host) == [(INVOCATION, "failed", True)]
    assert (tmp_path / "told").read_text() == "wrong password\n"


def test_it_went_down_before_anybody_was_told(host: FakeHost, tmp_path: Path) -> None:
    went_down(host)
    host.journal()
    marker = host.path(f"/var/lib/holdfast/running/{UNIT}.json")
    content = marker.read_text()
    assert recorded(host, monitor("exit-code", "12"))["told"] is None
    marker.write_text(content)
    define(host, on_failure=hook(f"echo $HOLDFAST_REASON >>{tmp_path}/told"))
    assert interrupted.settle_all(host) == 0
    found = outcomes.last(host, UNIT)
    assert found is not None
    assert (found["reason"], found["told"]) == ("wrong password", True)
    assert (tmp_path / "told").read_text() == "wrong password\n"


def test_a_later_refusal_stays_the_last_when_an_earlier_run_is_told_of(host: FakeHost, tmp_path: Path) -> None:
    went_down(host)
    host.journal()
    marker = host.path(f"/var/lib/holdfast/running/{UNIT}.json")
    content = marker.read_text()
    recorded(host, monitor("exit-code", "12"))
    refused(host, 5, cursor="s=1")
    last = recorded(host, monitor("exit-code", "12"))
    assert last["service_result"] == "dependency"
    marker.write_text(content)
    define(host, on_failure=hook(f"echo $HOLDFAST_REASON >>{tmp_path}/told"))
    assert interrupted.settle_all(host) == 0
    assert (tmp_path / "told").read_text() == "wrong password\n"
    assert outcomes.last(host, UNIT) == last


def test_runs_whose_definition_is_bad_or_gone(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    went_down(host)
    host.put("/var/lib/holdfast/running/old--vault.json", "{}")
    host.put(f"/etc/holdfast/units/{UNIT}.json", "{")
    assert interrupted.settle_all(host) == 1
    assert "cannot be used" in capsys.readouterr().err
    # When it can be read again, it is told of.
    assert running.units(host) == [UNIT]


# --- the journal


def test_only_evidence_that_cannot_be_forged_is_asked_for(host: FakeHost) -> None:
    journal.read(host, INVOCATION)
    (call,) = host.calls
    assert call[-4:] == [f"_SYSTEMD_INVOCATION_ID={INVOCATION}", "+", f"INVOCATION_ID={INVOCATION}", "_PID=1"]
    assert journal.read(host, "") == []


def test_a_hook_that_says_much_does_not_hide_the_summary(host: FakeHost) -> None:
    findings(host)
    chatty = entries(*[("holdfast", "done")] * journal.LINES)
    host.answer("journalctl", "--output=json", stdout=chatty)
    host.answer("journalctl", "--output=json", "SYSLOG_IDENTIFIER=restic", stdout=entries(SUMMARY))
    host.answer("JOB_RESULT=dependency")
    assert recorded(host, monitor())["outcome"] == "ok"
    asked = next(call for call in host.calls if "SYSLOG_IDENTIFIER=restic" in call)
    assert asked[-5:-3] == [f"_SYSTEMD_INVOCATION_ID={INVOCATION}", "SYSLOG_IDENTIFIER=restic"]


def test_odd_lines(host: FakeHost) -> None:
    line = json.loads(entries("x"))
    bytes_line = {**line, "MESSAGE": [0xFF, 0x41]}
    empty = {**line, "MESSAGE": None}
    # As restic 0.18 says it when it is ended.
    cursor = {**line, "MESSAGE": [*b"\x1b[2Ksignal \x1b[1;31mterminated\x1b[0m"]}
    odd = [json.dumps(each) for each in (bytes_line, empty, cursor)]
    host.answer("journalctl", "--output=json", stdout="\n".join(["{", "[]", "{}", *odd, ""]))
    assert [entry.text for entry in journal.read(host, INVOCATION)] == ["\ufffdA", "", "signal terminated"]


def test_digest() -> None:
    def digest(*texts: str) -> journal.Digest:
        lines = [journal.Entry(1.0, "restic", text) for text in texts]
        return journal.digest([*lines, journal.Entry(2.0, "other", SUMMARY)], "restic", SERVICE)

    scan = UNREADABLE.replace("archival", "scan")
    found = digest(scan, UNREADABLE, "  ", "a line", "{broken", '{"x": 1}', STATUS)
    assert found.errors == ["open /src/b: permission denied"]
    assert found.lines == ["a line", "{broken", '{"x": 1}']
    assert (found.percent_done, found.first, found.last, found.summary) == (18.0, 1.0, 2.0, None)
    assert digest('{"message_type":"status"}').percent_done is None
    assert digest('{"message_type":"error","error":"bad","item":"/x"}').errors == ["/x: bad"]
    assert digest('{"message_type":"verbose_status"}') == journal.Digest(first=1.0, last=2.0)
    assert journal.digest([], "restic", SERVICE) == journal.Digest()


def test_ending() -> None:
    assert Ending.of({"EXIT_CODE": "exited", "EXIT_STATUS": "3"}).exit_status == 3
    assert Ending.of({"EXIT_CODE": "killed", "EXIT_STATUS": "9"}).exit_status is None
    assert Ending.of({"EXIT_CODE": "exited", "EXIT_STATUS": "x"}).exit_status is None


def test_a_history_that_cannot_be_read_is_not_overwritten(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector, say; the outcome itself is written all the same."""
    findings(host)
    host.journal(SUMMARY)
    path = host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"outcome": "ok"}\n')
    read = Path.read_bytes

    def broken(self: Path) -> bytes:
        if self == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", broken)
    assert record(host, define(host), monitor()) == 1
    monkeypatch.undo()
    assert (outcomes.last(host, UNIT) or {})["outcome"] == "ok"
    assert path.read_text() == '{"outcome": "ok"}\n'
