# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the journal of a run to its recorded outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._program import (
    assess,
    evidence,
    interrupted,
    journal,
    outcomes,
    running,
)
from ansible_collections.holdfast.backup.plugins.module_utils._program.assess import Ending
from ansible_collections.holdfast.backup.plugins.module_utils._program.prepare import prepare
from ansible_collections.holdfast.backup.plugins.module_utils._program.record import record
from ansible_collections.holdfast.backup.plugins.module_utils._program.state import State
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result

from tests.unit.plugins.module_utils import recorded as texts
from tests.unit.plugins.module_utils.program.program_host import (
    FATAL,
    IDENTITY,
    INVOCATION,
    NOW,
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
        "outcome": "ok",
        "reason": None,
        "message": "",
        "started": "2026-11-21T12:59:30Z",
        "ended": "2026-11-21T13:00:00Z",
        "duration_seconds": 30.0,
        "exit_status": 0,
        "service_result": "success",
        "invocation_id": INVOCATION,
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
        "told": None,
        "versions": {"holdfast": "0", "restic": "0.18.0"},
    }
    assert host.path(f"/var/lib/holdfast/outcomes/{UNIT}.json").stat().st_mode & 0o777 == 0o644


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
        ([FATAL.format(1, "401 Unauthorized")], EXIT_1, "failed", "wrong password"),
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


def test_a_dump_without_a_snapshot_is_no_success(host: FakeHost) -> None:
    host.journal(SUMMARY)
    for left in ({"dumps_failed": ["pg"], "missing": ["/a"]}, {"dumps": {"other": SNAPSHOT}}, {}):
        findings(host, **left)
        found = recorded(host, monitor(), dumps=DUMP)
        assert (found["outcome"], found["reason"], found["snapshot"]) == ("failed", "dump", SNAPSHOT)
        assert "pg" in found["message"]
    findings(host, dumps={"pg": SNAPSHOT})
    found = recorded(host, monitor(), dumps=DUMP)
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
        found = recorded(host, monitor())
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
    assert recorded(host, monitor())["outcome"] == "ok"


def test_without_its_findings_a_run_is_no_success(host: FakeHost) -> None:
    host.journal(SUMMARY)
    State(UNIT, "0" * 32, NOW - 30).save(host)
    found = recorded(host, monitor())
    assert (found["outcome"], found["reason"], found["snapshot"]) == ("failed", "unknown", SNAPSHOT)
    findings(host)
    assert recorded(host, monitor())["outcome"] == "ok"


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


def test_history_is_bounded(host: FakeHost) -> None:
    host.journal(SUMMARY)
    for number in range(outcomes.HISTORY + 5):
        recorded(host, {**monitor(), "MONITOR_INVOCATION_ID": f"{number:032d}"})
    lines = host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl").read_text().splitlines()
    assert len(lines) == outcomes.HISTORY
    assert json.loads(lines[-1])["invocation_id"] == f"{outcomes.HISTORY + 4:032d}"


def test_last_ok_is_carried_on(host: FakeHost) -> None:
    findings(host)
    host.journal(SUMMARY)
    recorded(host, monitor())
    host.clock += 3600
    found = recorded(host, {**monitor("exit-code", "12"), "MONITOR_INVOCATION_ID": "0" * 32})
    assert (found["outcome"], found["last_ok"]) == ("failed", "2026-11-21T13:00:00Z")


SHOWN = f"Result=exit-code\nInvocationID={INVOCATION}\nExecMainCode=1\nExecMainStatus=12\n"


def test_without_word_from_systemd_it_asks(host: FakeHost) -> None:
    host.answer("systemctl", "show", stdout=SHOWN)
    host.journal()
    found = recorded(host, {})
    assert (found["reason"], found["invocation_id"]) == ("wrong password", INVOCATION)
    again = recorded(host, {})
    assert again == found
    assert len(host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl").read_text().splitlines()) == 1


def test_a_run_that_systemd_refused(host: FakeHost) -> None:
    findings(host)
    host.journal(SUMMARY)
    late = json.loads(entries(("systemd", "Dependency failed for the backup.")))
    # One from before the run is no news.
    host.answer(
        "JOB_RESULT=dependency", stdout=json.dumps({**late, "__REALTIME_TIMESTAMP": str(int((NOW - 99) * 1e6))})
    )
    assert recorded(host, monitor())["outcome"] == "ok"
    host.answer("JOB_RESULT=dependency", stdout=json.dumps({**late, "__REALTIME_TIMESTAMP": str(int((NOW + 5) * 1e6))}))
    found = recorded(host, monitor())
    assert (found["outcome"], found["reason"]) == ("failed", "unknown")
    assert (found["service_result"], found["invocation_id"]) == ("dependency", None)
    assert found["message"] == "Dependency failed for the backup."
    host.clock = NOW + 10
    assert recorded(host, monitor())["service_result"] == "dependency"
    # It is on record now; a recorder started by hand finds nothing new.
    host.answer("systemctl", "show", stdout="InvocationID=\n")
    assert record(host, define(host), {}) == 0
    assert len(host.path(f"/var/lib/holdfast/outcomes/{UNIT}.history.jsonl").read_text().splitlines()) == 3


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
