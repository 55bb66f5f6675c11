# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job of borg: what borg and borgmatic say (recorded from 1.4.0 and 1.9.14), and what people ask."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _borg
from ansible_collections.holdfast.backup.plugins.module_utils._program import (
    borg,
    cli,
    evidence,
    journal,
    prepare,
    pretend,
    sources,
)
from ansible_collections.holdfast.backup.plugins.module_utils._program import state as states
from ansible_collections.holdfast.backup.plugins.module_utils._program.assess import Ending
from ansible_collections.holdfast.backup.plugins.module_utils._program.definition import Definition
from ansible_collections.holdfast.backup.plugins.module_utils._program.host import Done, ProgramError
from ansible_collections.holdfast.backup.plugins.module_utils._program.state import State

from tests.unit.plugins.module_utils import recorded_borg as said
from tests.unit.plugins.module_utils.program.program_host import (
    IDENTITY,
    INVOCATION,
    ME,
    NOW,
    RECORD,
    UNIT,
    FakeHost,
    define,
    entries,
)

Capture = pytest.CaptureFixture[str]
ARCHIVE = "242394432047bd6db22059b905cd5dd5b09d70f3aa867cee62da7d3ab6aa5a38"
DUMP = "d1014019" + "0" * 56
SUMMARY = json.dumps(
    [
        {
            "archive": {
                "command_line": ["/usr/bin/borg", "create"],
                "duration": 0.277589,
                "id": ARCHIVE,
                "name": "web1--system--2026-11-21T16:39:18.884009",
                "stats": {"compressed_size": 1, "deduplicated_size": 1512950, "nfiles": 188, "original_size": 31719333},
            },
            "repository": {"id": said.ID, "location": "/srv/a", "label": "a"},
        }
    ]
)
NOISE = ["vault: Error running actions for repository", "summary:", "An error occurred"]


def line(name: str, text: str, level: str = "WARNING") -> str:
    content = {"type": "log_message", "time": 1.0, "message": text, "levelname": level, "name": "borg.archiver"}
    return json.dumps({**content, "msgid": name})


GONE = line("BackupFileNotFoundError", "/nothere: stat: [Errno 2] No such file or directory: '/nothere'")
# Of 1.2.4, which names no warning; and of what 1.4 does not name either.
NAMELESS = (
    '{"type": "log_message", "time": 1796034827.2462018, "message": "/nothere: [Errno 2] No such file or directory:'
    ' \'nothere\'", "levelname": "WARNING", "name": "borg.archiver"}'
)
CHANGED = (
    '{"type": "log_message", "time": 1796034850.845721, "message": "src/big: file changed while we backed it up",'
    ' "levelname": "WARNING", "name": "borg.archiver"}'
)
ATTRIBUTE = (
    '{"type": "log_message", "time": 1796034852.7753263, "message": "when getting extended attribute user.t: [Errno 1]'
    ' Operation not permitted", "levelname": "WARNING", "name": "borg.xattr"}'
)
# What is no word about what was saved.
SLOW = line("", "Using a pure-python msgpack! This will result in lower performance.").replace(', "msgid": ""', "")
CACHE = ATTRIBUTE.replace("borg.xattr", "borg.cache")
DENIED = line("BackupPermissionError", "/srv/x: open: [Errno 13] Permission denied: 'x'")


def defined(host: FakeHost, **changes: Any) -> Definition:
    options = {
        "binary": "/usr/bin/borg",
        "encryption": "repokey-blake2",
        "key_file": "/etc/holdfast/secrets/vault.borg_key",
        "ssh_command": None,
        **changes.pop("borg", {}),
    }
    host.put("/etc/holdfast/secrets/vault.repository", "/srv/a\n")
    return define(host, engine="borg", binary="/usr/bin/borgmatic", environment={}, borg=options, **changes)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setattr(_borg, "host_id", lambda: "holdfast-0123456789abcdef")
    found = FakeHost(tmp_path)
    found.put("/var/lib/holdfast/repositories/vault.env", RECORD)
    return found


def weighed(host: FakeHost, *lines: str, status: int = 0) -> evidence.Evidence:
    definition = defined(host)
    host.journal(*[("borgmatic", each) for each in lines])
    State(UNIT, INVOCATION, NOW).save(host)
    result = "success" if status == 0 else "exit-code"
    return evidence.gather(host, definition, INVOCATION, Ending(result, "exited", str(status)))


# --- what became of a run --------------------------------------------------------------------------------------------


def test_ok(host: FakeHost) -> None:
    found = weighed(host, SLOW, CACHE, SUMMARY)
    assert (found.assessment.outcome, found.assessment.reason) == ("ok", None)
    assert found.digest.summary == {
        "snapshot_id": ARCHIVE,
        "archive": "web1--system--2026-11-21T16:39:18.884009",
        "repository_id": said.ID,
        "total_files_processed": 188,
        "total_bytes_processed": 31719333,
        "data_added": 1512950,
        "total_duration": 0.277589,
    }


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([GONE, GONE], "source missing"),
        ([GONE, DENIED, GONE], "source unreadable"),
        ([line("FileChangedWarning", "/var/log/x: file changed while we backed it up")], "source unreadable"),
        ([NAMELESS], "source unreadable"),
        ([CHANGED], "source unreadable"),
        ([ATTRIBUTE, ATTRIBUTE], "source unreadable"),
    ],
)
def test_warnings_are_incomplete_although_borgmatic_ends_with_0(host: FakeHost, lines: list[str], reason: str) -> None:
    found = weighed(host, *lines, SUMMARY)
    assert (found.assessment.outcome, found.assessment.reason) == ("incomplete", reason)
    assert found.assessment.message.count("/nothere") <= 2


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (said.WRONG, "wrong password"),
        (said.NO_CONFIG, "no repository"),
        (said.LOCKED, "locked"),
        (said.CLOSED, "unreachable"),
        (
            said.error(2, "StorageQuotaExceeded", "The storage quota (50.00 MB) has been exceeded (50.54 MB)."),
            "disk full",
        ),
        (said.error(90, "IntegrityError", "Data integrity error: x"), "unknown"),
    ],
)
def test_failures_have_the_reason_that_borg_names(host: FakeHost, result: Any, reason: str) -> None:
    found = weighed(host, *result.stderr.splitlines(), *NOISE, status=1)
    assert (found.assessment.outcome, found.assessment.reason) == ("failed", reason)
    assert "Error running actions" not in found.assessment.message


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("bk-web1@192.0.2.1: Permission denied (publickey).", "key refused", "the SSH server refused this host's key"),
        ("Host key verification failed.", "host key", "the SSH server has another host key than the pinned one"),
        (
            "holdfast: web1--archive: this client has 50 sessions here already: let fewer of its units begin at a time",
            "unreachable",
            "this host has as many sessions on the server as it may have",
        ),
        ("holdfast: web1--archive is in maintenance", "locked", "the server has it in maintenance"),
    ],
)
def test_what_ssh_says_is_nearer_to_the_cause_than_what_borg_says(
    host: FakeHost, text: str, reason: str, words: str
) -> None:
    closed = ("Connection closed by remote host. Is borg working on the server?", said.remote(text))
    lines = said.error(81, "ConnectionClosedWithHint", *closed).stderr.splitlines()
    found = weighed(host, *lines, *NOISE, status=1).assessment
    assert (found.outcome, found.reason) == ("failed", reason)
    assert found.message.startswith(f"{words}\n")


def test_without_a_summary_it_failed_whatever_the_status(host: FakeHost) -> None:
    assert weighed(host, "something else").assessment.outcome == "failed"
    assert weighed(host, '[{"archive": 1}]').assessment.outcome == "failed"
    found = weighed(host, *NOISE, "connection refused", status=1)
    assert (found.assessment.outcome, found.assessment.reason) == ("failed", "unreachable")


def test_a_journal_that_lost_the_beginning_may_have_lost_warnings(
    host: FakeHost, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a small one the oldest lines are removed while the run goes on."""
    beginning = f"MESSAGE={journal.BEGINNING}"
    host.answer("journalctl", f"_SYSTEMD_INVOCATION_ID={INVOCATION}", beginning, stdout=entries(("holdfast", "x")))
    found = weighed(host, SUMMARY).assessment
    assert found.outcome == "ok"
    definition = defined(host)
    host.answer("journalctl", beginning)
    found = evidence.gather(host, definition, INVOCATION, Ending("success", "exited", "0")).assessment
    assert (found.outcome, found.reason) == ("incomplete", "unknown")
    assert "the journal has lost the beginning of this run" in found.message
    monkeypatch.setenv("INVOCATION_ID", INVOCATION)
    assert cli.main(["verify", UNIT], host) == 1
    assert "the journal has lost the beginning" in capsys.readouterr().err
    host.journal(("borgmatic", GONE), ("borgmatic", SUMMARY))
    host.answer("journalctl", beginning)
    found = evidence.gather(host, definition, INVOCATION, Ending("success", "exited", "0")).assessment
    assert (found.outcome, found.reason) == ("incomplete", "source missing")


def test_prepare_marks_the_beginning(host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("INVOCATION_ID", INVOCATION)
    prepared(host, borg_key="2" * 64)
    assert capsys.readouterr().out.splitlines()[0] == journal.BEGINNING


def test_verify_fails_a_run_with_warnings(host: FakeHost, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOCATION_ID", INVOCATION)
    State(UNIT, INVOCATION, NOW).save(host)
    host.journal(("borgmatic", DENIED), ("borgmatic", SUMMARY))
    defined(host)
    assert cli.main(["verify", UNIT], host) == 1
    assert "/srv/x" in capsys.readouterr().err
    defined(host, incomplete_is="ok")
    assert cli.main(["verify", UNIT], host) == 0
    defined(host)
    host.journal(("borgmatic", SUMMARY))
    assert cli.main(["verify", UNIT], host) == 0


# --- before a run ----------------------------------------------------------------------------------------------------


def prepared(host: FakeHost, **escrow: Any) -> int:
    for suffix in ("password", "environment"):
        host.put(f"/etc/holdfast/secrets/vault.{suffix}", "x")
    identity = copy.deepcopy(IDENTITY)
    identity["escrow"].update(escrow)
    host.put("/etc/holdfast/secrets/vault.identity", identity)
    host.put("/etc/holdfast/escrow.json", {"repositories": {"vault": "ab" * 16}})
    host.put("/srv/data", "")
    host.put("/etc/holdfast/sources.d/system.d/x.paths", "/srv/drop*\n/srv/space \n")
    host.put("/srv/drop*", "")
    host.put("/srv/space ", "")
    host.put("/srv/odd[1]", "")
    defined(host, escrow={"mode": "age"}, paths=["/srv/data", "/srv/odd[1]"])
    return cli.main(["prepare", UNIT], host)


def test_prepare_writes_what_borg_is_to_read_as_it_is(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOCATION_ID", INVOCATION)
    assert prepared(host, borg_key="2" * 64) == 0
    assert host.path(f"/run/holdfast/{UNIT}.sources").read_text() == "R /srv/odd[1]\nR /srv/drop*\n"
    assert host.path("/run/holdfast/borg.environment").read_text() == "BORG_HOST_ID=holdfast-0123456789abcdef\n"
    state = states.load(host, UNIT, INVOCATION)
    assert state is not None
    assert "'/srv/space ' (borg takes no path with spaces around it)" in state.missing


@pytest.mark.parametrize("escrow", [{}, {"borg_key": "3" * 64}])
def test_no_backup_without_the_repositorys_key_in_the_escrow(
    host: FakeHost, escrow: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVOCATION_ID", INVOCATION)
    assert prepared(host, **escrow) == 1
    state = states.load(host, UNIT, INVOCATION)
    assert state is not None
    assert state.stopped == "no escrow"
    host.put("/var/lib/holdfast/repositories/vault.env", "junk")
    assert prepared(host, **escrow) == 1
    state = states.load(host, UNIT, INVOCATION)
    assert state is not None
    assert state.stopped == "no record"


def test_a_host_without_an_id(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_borg, "host_id", lambda: None)
    borg.write_environment(host)
    assert host.path("/run/holdfast/borg.environment").read_text() == ""
    assert "BORG_HOST_ID" not in borg.environment(host, defined(host))


def test_what_borgmatic_takes_literally() -> None:
    assert sources.plain("/srv/a b$%ü")
    assert not any(sources.plain(path) for path in ("/a*", "/a?", "/a[b]"))


# --- for people ------------------------------------------------------------------------------------------------------


def archives(host: FakeHost) -> None:
    names = {
        "web1--system-x--2026-11-21T10:00:00.000000": (said.OTHER_ID, "holdfast,job:system-x"),
        "web1--system--2026-11-21T11:00:00.000000.pg": (DUMP, "holdfast,job:system,dump:pg"),
        "web1--system--2026-11-21T12:00:00.000000": (ARCHIVE, "holdfast,job:system,night"),
        "by-hand": ("9" * 64, "job:system"),
    }
    listed = [
        {
            "name": name,
            "id": each,
            "time": "2026-11-21T12:00:00.000000",
            "hostname": "h",
            "username": "u",
            "comment": comment,
        }
        for name, (each, comment) in names.items()
    ]
    host.answer("list", stdout=json.dumps({"archives": listed}))


def test_snapshots(host: FakeHost, capsys: Capture) -> None:
    defined(host)
    archives(host)
    assert cli.main(["snapshots", "system", "--json"], host) == 0
    found = json.loads(capsys.readouterr().out)["snapshots"]
    assert [(each["id"], each["dump"], each["hostname"]) for each in found] == [
        (DUMP, "pg", "web1"),
        (ARCHIVE, None, "web1"),
    ]
    assert found[1]["time"] == "2026-11-21T12:00:00Z"
    assert host.calls[-1][:4] == ["/usr/bin/borg", "--log-json", "list", "--bypass-lock"]
    # As root it would follow what the account planted, so the account's own borg opens it.
    assert host.calls[-1][-1] == "ssh://holdfast/srv/a"
    assert host.users[-1] is None
    assert host.environments[-1] == {
        "BORG_BASE_DIR": "/var/lib/holdfast/borg-root",
        "BORG_EXIT_CODES": "modern",
        "BORG_HOST_ID": "holdfast-0123456789abcdef",
        "BORG_PASSCOMMAND": "cat /etc/holdfast/secrets/vault.password",
        "BORG_REMOTE_PATH": "/usr/bin/borg",
        "BORG_RSH": f"setsid --wait setpriv --reset-env --init-groups --regid={ME} --reuid={ME} env -u",
        "HOME": "/root",
        "TZ": "UTC",
    }
    assert cli.main(["snapshots", "system"], host) == 0
    assert "files" in capsys.readouterr().out


def test_snapshots_that_cannot_be_read(host: FakeHost, capsys: Capture) -> None:
    defined(host)
    host.answer("list", status=52, stderr=said.WRONG.stderr)
    assert cli.main(["snapshots", "system"], host) == 1
    assert "the passphrase does not open the key" in capsys.readouterr().err
    host.answer("list", status=1)
    assert cli.main(["snapshots", "system"], host) == 1
    assert "cannot be read: borg warned" in capsys.readouterr().err
    host.answer("list", status=1, stderr="?")
    assert cli.main(["snapshots", "system"], host) == 1
    assert "cannot be read: borg warned" in capsys.readouterr().err
    host.answer("list", status=81, stderr=said.remote("ssh: connect to host 127.0.0.1 port 2: Connection refused"))
    assert cli.main(["snapshots", "system"], host) == 1
    assert "vault cannot be read: no SSH server listens there\n" in capsys.readouterr().err
    host.answer("list", status=81, stderr=said.CLOSED.stderr)
    assert cli.main(["snapshots", "system"], host) == 1
    assert "the connection was closed: " in capsys.readouterr().err
    host.answer("list", stdout="{}")
    assert cli.main(["snapshots", "system"], host) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_how_it_is_opened(host: FakeHost) -> None:
    changes = {"encryption": "keyfile-blake2", "ssh_command": "ssh -F /c -i /k"}
    env = borg.environment(host, defined(host, access="ssh", borg=changes))
    assert env["BORG_RSH"] == "ssh -F /c -i /k"
    assert "BORG_REMOTE_PATH" not in env
    assert env["BORG_KEY_FILE"] == "/etc/holdfast/secrets/vault.borg_key"
    definition = defined(host)
    host.put("/etc/holdfast/secrets/vault.repository", "a\nb")
    with pytest.raises(ProgramError, match="holds no location"):
        borg.location(host, definition)
    host.path("/etc/holdfast/secrets/vault.repository").unlink()
    with pytest.raises(ProgramError, match="cannot be used"):
        borg.location(host, definition)
    with pytest.raises(ProgramError, match="is no job of borg"):
        borg.environment(host, define(host))


def test_restore(host: FakeHost, capsys: Capture) -> None:
    defined(host)
    archives(host)
    host.path("/root").mkdir(mode=0o700)
    assert cli.main(["restore", "system", "--target", "/root/r", "--path", "/srv/a*/"], host) == 0
    assert host.calls[-1] == [
        "/usr/bin/borg",
        "extract",
        "--bypass-lock",
        "--sparse",
        "--numeric-ids",
        "--",
        "ssh://holdfast/srv/a::web1--system--2026-11-21T12:00:00.000000",
        "pp:srv/a*",
    ]
    assert host.directories == [str(host.path("/root/r"))]
    assert host.path("/root/r").stat().st_mode & 0o777 == 0o700
    assert "snapshot 24239443 is restored below /root/r" in capsys.readouterr().out
    assert cli.main(["restore", "system", "--target", "/root/d", "--dump", "pg", "--dry-run"], host) == 0
    assert host.calls[-1][-1] == "ssh://holdfast/srv/a::web1--system--2026-11-21T11:00:00.000000.pg"
    assert not host.path("/root/d").exists()
    assert cli.main(["restore", "system", "--target", "/root/d", "--snapshot", ARCHIVE[:8]], host) == 0
    assert cli.main(["restore", "system", "--target", "/", "--force", "--path", "/etc"], host) == 0
    assert host.calls[-1][5:7] == ["--exclude=pp:etc/holdfast", "--exclude=pp:var/lib/holdfast"]
    assert host.calls[-1][-1] == "pp:etc"
    assert "stay as they are on this host" in capsys.readouterr().out


def test_an_archive_from_the_future_is_not_the_latest(host: FakeHost, capsys: Capture) -> None:
    defined(host)
    times = {ARCHIVE: "2026-11-21T12:00:00.000000", said.OTHER_ID: "2026-11-22T12:00:00.000000"}
    listed = [
        {"name": f"web1--system--{time}", "id": each, "time": time, "comment": "holdfast,job:system"}
        for each, time in times.items()
    ]
    host.answer("list", stdout=json.dumps({"archives": listed}))
    assert cli.main(["restore", "system", "--target", "/", "--force", "--dry-run"], host) == 0
    assert host.calls[-1][-1] == "ssh://holdfast/srv/a::web1--system--2026-11-21T12:00:00.000000"
    assert f"snapshot {said.OTHER_ID[:8]} is from the future" in capsys.readouterr().err
    host.clock -= 86400
    assert cli.main(["restore", "system", "--target", "/", "--force", "--dry-run"], host) == 1
    assert "has no such snapshot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--snapshot", "x"], "neither latest nor an id"),
        (["--snapshot", "0123456789"], "has no such snapshot"),
        (["--dump", "other"], "has no such snapshot"),
    ],
)
def test_restore_of_nothing(host: FakeHost, capsys: Capture, arguments: list[str], words: str) -> None:
    defined(host)
    archives(host)
    assert cli.main(["restore", "system", "--target", "/root/r", *arguments], host) != 0
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "warned"), [("1.4.0", True), ("1.2.8", True), ("1.4.5", False), ("1.10.0", False), ("", False)]
)
def test_a_restore_by_a_borg_that_trusts_its_archives_says_so(
    host: FakeHost, capsys: Capture, version: str, warned: bool
) -> None:
    defined(host)
    archives(host)
    host.answer("--version", stdout=f"borg {version}\n" if version else "")
    assert cli.main(["restore", "system", "--target", "/root/r"], host) == 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == warned
    for line in told:
        assert line.startswith(f"borg {version} is older than 1.4.5: ")
        assert "CVE-2026-62268" in line


@pytest.mark.parametrize("status", [1, 101])
def test_a_path_that_the_archive_does_not_hold(host: FakeHost, capsys: Capture, status: int) -> None:
    defined(host)
    archives(host)
    host.answer("extract", status=status)
    host.path("/root/r/srv").mkdir(parents=True)
    wanted = ["--path", "/srv", "--path", "/srv/aa"]
    assert cli.main(["restore", "system", "--target", "/root/r", "--force", *wanted], host) == 1
    assert (
        "the restore is not complete: snapshot 24239443 of system--vault holds no /srv/aa\n" in capsys.readouterr().err
    )


def test_everything_may_be_named(host: FakeHost) -> None:
    defined(host)
    archives(host)
    assert cli.main(["restore", "system", "--target", "/root/r", "--path", "/", "--path", "/srv"], host) == 0
    assert host.calls[-1][-2:] == ["--", "ssh://holdfast/srv/a::web1--system--2026-11-21T12:00:00.000000"]
    assert not any("pp:" in word for word in host.calls[-1])


def test_a_restore_that_warns_is_not_complete(host: FakeHost, capsys: Capture) -> None:
    defined(host)
    archives(host)
    host.answer("extract", status=105)
    assert cli.main(["restore", "system", "--target", "/root/r"], host) == 1
    assert "the restore is not complete: permission" in capsys.readouterr().err


SERVICE_TEXT = """\
[Service]
RuntimeDirectory=holdfast-borgmatic-system--vault
RuntimeDirectoryMode=0700
ExecStartPre=+/usr/local/bin/holdfast prepare system--vault
ExecStart=/usr/bin/borgmatic \\
  --config \\
  /etc/holdfast/borgmatic/system--vault.yaml \\
  create \\
  --json
# Fails where borg warned, too: borgmatic does not.
ExecStartPost=+/usr/local/bin/holdfast verify system--vault
ExecStopPost=+/usr/local/bin/holdfast finish system--vault
"""
# What borgmatic 1.9.14 printed with --dry-run create --list.
LISTED = """\
{"type": "file_status", "status": "-", "path": "/srv/data/sub/two"}
{"type": "file_status", "status": "x", "path": "/srv/data/left-out"}
{"type": "file_status", "status": "-", "path": "/srv/data\\u001b[31m"}
"""


def pretending(host: FakeHost, listed: str, status: int = 0, **changes: Any) -> None:
    """A host on which systemd writes `listed` when the dry run is started."""
    defined(host, **changes)
    host.put("/srv/data")
    host.answer("systemctl", "show", stdout=f"Id=holdfast-{UNIT}.service\nLoadState=loaded\nActiveState=inactive\n")
    host.answer("systemctl", "--value", stdout=f"{INVOCATION}\n")
    host.answer("systemctl", "cat", stdout=SERVICE_TEXT)

    def started(_argv: Sequence[str]) -> Done:
        copy = host.path(f"/run/systemd/system/holdfast-dry-run@{UNIT}.service").read_text()
        (output,) = re.findall("^StandardOutput=truncate:(.*)$", copy, re.MULTILINE)
        assert host.path(output).stat().st_mode & 0o777 == 0o600
        host.path(output).write_text(listed)
        return Done(status)

    host.answers.insert(0, (("systemctl", "start"), started))


def test_the_unit_of_a_dry_run() -> None:
    assert pretend.copy_of(SERVICE_TEXT, "borg", "/list") == (
        "[Service]\nRuntimeDirectory=dry-run-holdfast-borgmatic-system--vault\nRuntimeDirectoryMode=0700\n"
        "ExecStart=/usr/bin/borgmatic  --config  /etc/holdfast/borgmatic/system--vault.yaml  --dry-run create --list\n"
        "# Fails where borg warned, too: borgmatic does not.\n\n"
        "[Service]\nRemainAfterExit=yes\nStandardOutput=truncate:/list\n"
    )
    with pytest.raises(ValueError, match="is no backup by restic"):
        pretend.copy_of(SERVICE_TEXT, "restic")


def test_dry_run(host: FakeHost, capsys: Capture) -> None:
    pretending(host, LISTED)
    assert cli.main(["run", "system", "--dry-run"], host) == 0
    assert capsys.readouterr().out == (
        "system--vault: dry run, nothing is saved\n  /srv/data/sub/two\n  /srv/data\\x1b[31m\n"
        "  files and directories: 2; of borg nobody knows their size before\n"
    )
    assert list(host.path("/var/lib/holdfast").glob("*.list")) == []


@pytest.mark.parametrize(("incomplete_is", "status"), [("failed", 1), ("ok", 0)])
def test_a_dry_run_with_warnings_ends_as_a_run_would(
    host: FakeHost, capsys: Capture, incomplete_is: str, status: int
) -> None:
    pretending(host, f"{LISTED}{DENIED}\n", incomplete_is=incomplete_is)
    assert cli.main(["run", "system", "--dry-run"], host) == status
    assert capsys.readouterr().err == "  /srv/x: open: [Errno 13] Permission denied: 'x'\n"


def test_a_dry_run_that_fails(host: FakeHost, capsys: Capture) -> None:
    pretending(host, 'a line of borgmatic\'s\n{"type": "file_status"}\n', status=1)
    assert cli.main(["run", "system", "--dry-run"], host) == 1
    assert "  a line of borgmatic's\n" in capsys.readouterr().err


def test_log_and_record(host: FakeHost, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    defined(host)
    State(UNIT, INVOCATION, NOW - 5).save(host)
    host.journal(("borgmatic", GONE), ("borgmatic", "plain"), ("borgmatic", SUMMARY))
    host.answer("/usr/bin/borg", "--version", stdout="borg 1.4.0\n")
    host.answer("/usr/bin/borgmatic", "--version", stdout="1.9.14\n")
    monkeypatch.setenv("MONITOR_INVOCATION_ID", INVOCATION)
    monkeypatch.setenv("MONITOR_SERVICE_RESULT", "exit-code")
    monkeypatch.setenv("MONITOR_EXIT_CODE", "exited")
    monkeypatch.setenv("MONITOR_EXIT_STATUS", "0")
    assert cli.main(["record", UNIT], host) == 0
    outcome = host.read_json(f"/var/lib/holdfast/outcomes/{UNIT}.json") or {}
    assert (outcome["outcome"], outcome["reason"], outcome["snapshot"]) == ("incomplete", "source missing", ARCHIVE)
    assert {**outcome["versions"], "holdfast": None} == {"borg": "1.4.0", "borgmatic": "1.9.14", "holdfast": None}
    capsys.readouterr()
    host.answer("systemctl", "show", stdout=f"Id=holdfast-{UNIT}.service\nLoadState=loaded\nActiveState=inactive\n")
    assert cli.main(["log", "system"], host) == 0
    out = capsys.readouterr().out
    assert "borgmatic: /nothere: stat: [Errno 2]" in out
    assert "borgmatic: files: 188, 30.2 MiB in all; added 1.4 MiB" in out
    assert '"type"' not in out


@pytest.mark.parametrize(("recorded", "stopped"), [(said.ID, None), ("1" * 64, "another repository")])
def test_a_run_into_another_repository_is_no_backup(
    host: FakeHost, recorded: str, stopped: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same passphrase borg opens it all the same."""
    for name, value in {"INVOCATION_ID": INVOCATION, "SERVICE_RESULT": "success", "EXIT_CODE": "exited"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EXIT_STATUS", "0")
    host.put("/var/lib/holdfast/repositories/vault.env", RECORD.replace("1" * 64, recorded))
    State(UNIT, INVOCATION, NOW).save(host)
    host.journal(("borgmatic", SUMMARY))
    defined(host)
    assert cli.main(["finish", UNIT], host) == (1 if stopped else 0)
    state = states.load(host, UNIT, INVOCATION)
    assert state is not None
    assert state.stopped == stopped


@pytest.mark.parametrize(
    ("answer", "stopped"),
    [
        ({"stdout": json.dumps({"archives": [], "repository": {"id": "1" * 64}})}, None),
        ({"stdout": json.dumps({"archives": [], "repository": {"id": said.ID}})}, "another repository"),
        ({"stdout": "{}"}, "unknown"),
        ({"status": 2, "stderr": said.WRONG.stderr}, "unknown"),
    ],
)
def test_dumps_alone_into_another_repository_are_no_backup(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], stopped: str | None
) -> None:
    """Nothing says where the dumps went, so borg is asked which repository is there."""
    defined(host, paths=[], optional_paths=[], dumps=[{"name": "pg", "unit": "pg.service"}])
    monkeypatch.setenv("INVOCATION_ID", INVOCATION)
    State(UNIT, INVOCATION, NOW, dumps={"pg": ""}).save(host)
    monkeypatch.setenv("SERVICE_RESULT", "success")
    monkeypatch.setenv("EXIT_CODE", "exited")
    monkeypatch.setenv("EXIT_STATUS", "0")
    host.answer("/usr/bin/borg", "list", **answer)
    assert cli.main(["finish", UNIT], host) == (1 if stopped else 0)
    found = states.load(host, UNIT, INVOCATION)
    assert found is not None
    assert found.stopped == stopped
    asked = next(call for call in host.calls if "list" in call)
    assert asked[-4:] == ["--bypass-lock", "--json", "--last=1", "ssh://holdfast/srv/a"]


# --- dumps -----------------------------------------------------------------------------------------------------------

# Recorded from borg 1.2.4, which prints the same as 1.4; its command wrote to standard error, too.
CREATED = """{
    "archive": {
        "command_line": [
            "/usr/bin/borg",
            "create"
        ],
        "duration": 0.06082,
        "end": "2026-11-30T15:50:16.000000",
        "id": "f31650398a6c1c369f9c43b0a46337d3e9e97dd48db9e1b4e47d12937c9265c5",
        "limits": {
            "max_archive_size": 2.7322822582041067e-05
        },
        "name": "a1",
        "start": "2026-11-30T15:50:16.000000",
        "stats": {
            "compressed_size": 619,
            "deduplicated_size": 619,
            "nfiles": 1,
            "original_size": 565
        }
    },
    "encryption": {
        "mode": "repokey-blake2"
    },
    "repository": {
        "id": "343a279e0cc2364c5f27e88edde5cd4291612c37845d2535f9407376de31a0ba",
        "last_modified": "2026-11-30T15:50:16.000000",
        "location": "/tmp/bt/r"
    }
}""".splitlines()
ENTRY = '{"type": "-", "mode": "-rw-rw----", "path": "x.sql", "healthy": true, "flags": 0, "size": %s}\n'


@pytest.mark.parametrize(
    ("lines", "answer", "problem"),
    [
        ([" progress", *CREATED], {"stdout": ENTRY % 3}, None),
        (["{", '  "level": 1', "}", *CREATED, "{"], {"stdout": ENTRY % 3}, None),
        (["}", "{"], {"stdout": ENTRY % 3}, "made no snapshot"),
        (CREATED, {"stdout": ENTRY % 0}, "its command wrote nothing: the snapshot is empty"),
        (CREATED, {"stdout": "{}"}, "borg's answer cannot be read"),
        (CREATED, {"status": 2, "stderr": said.WRONG.stderr}, "passphrase"),
        (CREATED[:-1], {"stdout": ENTRY % 3}, "made no snapshot"),
        (["{", "}"], {"stdout": ENTRY % 3}, "made no snapshot"),
        ([], {"stdout": ENTRY % 3}, "made no snapshot"),
    ],
)
def test_a_dump(host: FakeHost, capsys: Capture, lines: list[str], answer: dict[str, Any], problem: str | None) -> None:
    definition = defined(host, paths=[], optional_paths=[], dumps=[{"name": "pg", "unit": "pg.service"}])
    host.answer("--show-cursor", stdout="-- cursor: s=1;i=2\n")
    host.answer("_SYSTEMD_UNIT=pg.service", stdout=entries(*[("borg", each) for each in lines]))
    host.answer("/usr/bin/borg", "list", "ssh://holdfast/srv/a::a1", **answer)
    state = State(UNIT, INVOCATION, NOW)
    prepare._dumps(host, definition, state)
    # Root's memory of where it was is not the account's.
    looked = [env for call, env in zip(host.calls, host.environments) if "list" in call]
    assert {env["BORG_RELOCATED_REPO_ACCESS_IS_OK"] for env in looked} <= {"yes"}
    archive = "f31650398a6c1c369f9c43b0a46337d3e9e97dd48db9e1b4e47d12937c9265c5"
    assert state.dumps == ({} if problem else {"pg": archive})
    assert state.dumps_failed == (["pg"] if problem else [])
    assert (problem or "") in capsys.readouterr().err


def test_a_dump_in_the_log(host: FakeHost, capsys: Capture) -> None:
    defined(host, dumps=[{"name": "pg", "unit": "pg.service"}])
    host.answer(
        "systemctl", "show", stdout=f"Id=holdfast-{UNIT}.service\nInvocationID={INVOCATION}\nLoadState=loaded\n"
    )
    host.journal(*[("holdfast", f"{number}") for number in range(60)], ("borgmatic", SUMMARY))
    lines = ["before", *CREATED, "after"]
    host.answer("_SYSTEMD_UNIT=pg.service", stdout=entries(*[("borg", each) for each in lines]))
    assert cli.main(["log", "system"], host) == 0
    said = [line.split(" ", 2)[2] for line in capsys.readouterr().out.splitlines() if " borg: " in line]
    assert said == [
        "borg: before",
        "borg: files: 1, 565 B in all; added 619 B",
        "borg: snapshot f3165039",
        "borg: after",
    ]
