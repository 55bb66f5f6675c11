# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _borg
from ansible_collections.holdfast.backup.plugins.module_utils._borg import Borg, classify
from ansible_collections.holdfast.backup.plugins.module_utils._outcome import TABLE
from ansible_collections.holdfast.backup.plugins.module_utils._restic import EngineError, Look
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result
from ansible_collections.holdfast.backup.plugins.module_utils._source import Source

from tests.unit.plugins.module_utils import recorded_borg as said
from tests.unit.plugins.module_utils.recorded import Runner
from tests.unit.plugins.module_utils.recorded_borg import EXPORTED, ID, KEY, NOW, archive, listing

REMOTE = Source("ssh://holdfast-archive/./web1--archive", "/s/password", password=b"open sesame\n")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_borg, "host_id", lambda: "holdfast-0123456789abcdef")


def borg(runner: Runner, source: Source = REMOTE, **arguments: Any) -> Borg:
    return Borg(source, binary="/usr/bin/borg", timeout=30, runner=runner, clock=lambda: 1000.0, **arguments)


# --- what is run -----------------------------------------------------------------------------------------------------


def test_argv_and_environment() -> None:
    runner = Runner({"list": [listing()]})
    borg(runner, rsh="ssh -F /c alias", user="holdfast").archives("--last=1")
    assert runner.calls == [
        {
            "command": "list",
            "argv": [
                "/usr/bin/borg",
                "--log-json",
                "list",
                "--bypass-lock",
                "--json",
                "--last=1",
                "ssh://holdfast-archive/./web1--archive",
            ],
            "environment": {
                "BORG_BASE_DIR": "/var/lib/holdfast/borg",
                "BORG_EXIT_CODES": "modern",
                "BORG_HOST_ID": "holdfast-0123456789abcdef",
                "BORG_RSH": "ssh -F /c alias",
                "TZ": "UTC",
            },
            "files": {},
            "descriptors": {"BORG_PASSPHRASE_FD": b"open sesame\n"},
            "user": "holdfast",
            "timeout": 30.0,
        }
    ]


def test_a_key_file_opens_and_is_never_where_init_writes_to() -> None:
    runner = Runner({"list": [listing()], "init": [Result(0)]})
    tool = borg(runner, key=EXPORTED)
    tool.archives()
    tool.init("keyfile-blake2")
    assert [call["files"] for call in runner.calls] == [{"BORG_KEY_FILE": EXPORTED.encode()}, {}]
    assert runner.calls[1]["argv"][2:] == ["init", "--encryption=keyfile-blake2", REMOTE.location]


def test_root_leaves_what_an_account_owns_to_the_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the repository may have put a link in the place of an index, or of borg's state below the base directory."""
    if os.geteuid() == 0:
        os.chown(tmp_path, 4711, 4712)
    owner, state = tmp_path.stat(), tmp_path / "state"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    source = replace(REMOTE, location=str(tmp_path))
    runner = Runner({"list": [listing(), listing()]})
    borg(runner, source, base_directory=str(state)).look()
    (call,) = runner.calls
    assert call["argv"][-1] == f"ssh://holdfast{tmp_path}"
    told = call["environment"]
    assert (
        told["BORG_RSH"]
        == f"setsid --wait setpriv --reset-env --clear-groups --regid={owner.st_gid} --reuid={owner.st_uid} env -u"
    )
    assert told["BORG_REMOTE_PATH"] == "/usr/bin/borg"
    assert told["BORG_BASE_DIR"] not in ("", str(state))
    assert not Path(told["BORG_BASE_DIR"]).exists()
    # Control: run as the account itself.
    borg(runner, source, base_directory=str(state), user="holdfast").look()
    assert runner.calls[1]["argv"][-1] == str(tmp_path)
    assert runner.calls[1]["environment"]["BORG_BASE_DIR"] == str(state)


@pytest.mark.parametrize("path", ["/", "/missing"])
def test_root_opens_what_is_its_own(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    runner = Runner({"list": [listing()]})
    borg(runner, replace(REMOTE, location=path)).archives()
    assert runner.calls[0]["argv"][-1] == path
    assert "BORG_RSH" not in runner.calls[0]["environment"]


def test_no_question_is_answered_in_advance() -> None:
    names = set(borg(Runner({})).environment())
    assert not [name for name in names if name.endswith("_IS_OK") or name.startswith("BORG_PASS")]


def test_the_host_id_is_of_the_machine_and_does_not_tell_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    file = tmp_path / "machine-id"
    file.write_text("0123456789abcdef0123456789abcdef\n")
    first = _borg.host_id(str(file))
    assert first is not None
    assert first.startswith("holdfast-")
    assert "0123456789abcdef" not in first
    assert _borg.host_id(str(file)) == first
    file.write_text("f123456789abcdef0123456789abcdef\n")
    assert _borg.host_id(str(file)) not in (None, first)
    file.write_text("uninitialized\n")
    assert _borg.host_id(str(file)) is None
    assert _borg.host_id(str(tmp_path / "missing")) is None


def test_version() -> None:
    assert borg(Runner({"--version": [said.VERSION_12]})).version() == (1, 2, 4)
    with pytest.raises(EngineError, match="is it borg"):
        borg(Runner({"--version": [Result(0, "restic 0.18.0")]})).version()


def test_a_program_that_cannot_be_run() -> None:
    def broken(*_argv: object, **_more: object) -> Result:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(EngineError, match="/usr/bin/borg cannot be run: Permission denied"):
        Borg(REMOTE, binary="/usr/bin/borg", timeout=1, runner=broken).look()


# --- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("result", "state", "words"),
    [
        (said.ABSENT, "absent", "there is no repository"),
        (said.REMOTE_NO_CONFIG, "absent", "there is no config file: the directory is empty, or a repository lost it"),
        (said.NO_CONFIG, "absent", "there is no config file: the directory is empty, or a repository lost it"),
        (said.WRONG, "wrong_key", "the passphrase does not open the key"),
        (said.LOCKED, "locked", "the repository is locked"),
        (said.MOVED, "unreachable", "it was at another location before"),
        (said.CLOSED, "unreachable", "Could not resolve hostname nohost.invalid"),
        (said.INVALID_TAM, "damaged", "borg before 1.2.5 left renamed and recreated ones so"),
        (
            said.NO_TAM,
            "damaged",
            "before borg 1.2.5: make sure that nobody else wrote to it, then 'borg upgrade --tam'",
        ),
        (said.OCCUPIED, "unreachable", "A repository already exists"),
        (said.DENIED, "unreachable", "permission denied"),
    ],
)
def test_states_of_both_generations(result: Result, state: str, words: str, old: bool) -> None:
    """Borg 1.2 ends with 2 whatever happened; the message id tells all the same."""
    found = classify(replace(result, code=2) if old else result)
    assert found[0] == state
    assert words in str(found[1])


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (Result(0), "present"),
        (Result(107), "present"),
        (Result(2, "", "what is this\n"), "unreachable"),
        (Result(2, "", '{"type": "log_message"\n{"type": "log_message", "msgid": "PassphraseWrong"}\n'), "unreachable"),
        (Result(-9), "unreachable"),
        (Result(-15, timed_out=True), "unreachable"),
        # Only an error of borg's own proves something.
        (Result(2, "", said.ABSENT.stderr.replace("ERROR", "WARNING")), "unreachable"),
    ],
)
def test_doubt_is_never_absence(result: Result, state: str) -> None:
    assert classify(result, timeout=5)[0] == state


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bk-web1@192.0.2.1: Permission denied (publickey).", "the SSH server refused this host's key"),
        ("Host key verification failed.", "the SSH server has another host key than the pinned one"),
        ("holdfast: web1--archive is in maintenance", "the server has it in maintenance"),
        ("ssh: connect to host 192.0.2.1 port 2222: Connection refused", "no SSH server listens there"),
    ],
)
def test_why_a_server_is_not_reached_is_what_ssh_says(line: str, words: str) -> None:
    closed = ("Connection closed by remote host. Is borg working on the server?", said.remote(line))
    assert classify(said.error(81, "ConnectionClosedWithHint", *closed)) == ("unreachable", words)


def test_what_the_server_said_is_told_without_secrets() -> None:
    result = said.error(81, "ConnectionClosedWithHint", "closed", said.remote("holdfast: maintenance of s3cr3t-word"))
    assert classify(result, secrets=["s3cr3t-word"]) == (
        "unreachable",
        "the connection was closed: holdfast: maintenance of ***",
    )


def test_every_code_that_has_a_name_is_in_the_table() -> None:
    assert set(_borg.CODES.values()) - {4} <= set(TABLE["borg"])


# --- looking ---------------------------------------------------------------------------------------------------------


def test_look_with_the_key() -> None:
    runner = Runner({"list": [listing()], "key": [Result(0, EXPORTED)]})
    assert borg(runner).look(key=True) == Look("present", id=ID, format_version=1, key=KEY, exported=EXPORTED)
    assert runner.calls[1]["argv"][2:] == ["key", "export", REMOTE.location, "-"]
    assert EXPORTED not in repr(borg(Runner({"list": [listing()], "key": [Result(0, EXPORTED)]})).look(key=True))


def test_look_without_it() -> None:
    runner = Runner({"list": [listing()]})
    assert borg(runner).look() == Look("present", id=ID, format_version=1)
    assert borg(Runner({"list": [said.WRONG]})).look(key=True).state == "wrong_key"
    lost = said.error(44, "RepoKeyNotFoundError", "No key entry found in the config of repository /srv/r1.")
    assert borg(Runner({"list": [listing()], "key": [lost]})).look(key=True).state == "damaged"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"list": [Result(0, "hello")]}, "borg list did not answer in JSON"),
        ({"list": [listing(repository_id="x")]}, "borg list did not answer with an id"),
        ({"list": [listing()], "key": [Result(0, EXPORTED.replace(ID, said.OTHER_ID))]}, "the key of this repository"),
        ({"list": [listing()], "key": [Result(0, "")]}, "the key of this repository"),
    ],
)
def test_answers_that_make_no_sense(answers: dict[str, list[Result]], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        borg(Runner(answers)).look(key=True)


def test_a_local_repository_without_config_is_damaged(tmp_path: Path) -> None:
    source = replace(REMOTE, location=str(tmp_path / "r"))
    assert borg(Runner({"list": [said.NO_CONFIG]}), source).look() == Look("absent", "the directory does not exist")
    said.make(tmp_path / "r")
    (tmp_path / "r/config").unlink()
    found = borg(Runner({"list": [said.NO_CONFIG]}), source).look()
    assert found.state == "damaged"
    assert "has no config file" in str(found.reason)


def test_inspect_counts_and_reads_the_newest() -> None:
    last = archive("b", 24, hostname="web1", username="holdfast", comment="holdfast,job:system,red", tam="verified")
    runner = Runner({"list": [listing(archive("a", 21), archive("b", 24)), listing(last)]})
    found = borg(runner).inspect(now=NOW)
    assert runner.calls[1]["argv"][5:7] == ["--last=1", "--format={hostname}{username}{comment}{tam}"]
    assert found.to_dict() == {
        "location": "ssh://holdfast-archive/./web1--archive",
        "engine": "borg",
        "state": "present",
        "reason": None,
        "id": ID,
        "format_version": 1,
        "snapshots": {
            "count": 2,
            "last": {
                "id": f"{24:064x}",
                "time": "2026-11-21T16:21:24Z",
                "hostname": "web1",
                "paths": None,
                "username": "holdfast",
                "tags": ["job:system", "red"],
                "total_bytes_processed": None,
            },
        },
        "age_seconds": 416,
        "locks": None,
        "keys": None,
        "size": None,
        "modified": "2026-11-21T16:21:24Z",
    }


def test_inspect_an_empty_one_and_a_local_one(tmp_path: Path) -> None:
    source = replace(REMOTE, location=str(said.make(tmp_path / "r")))
    found = borg(Runner({"list": [listing()]}), source).inspect(now=NOW, size=True)
    assert (found.snapshots.count, found.snapshots.last, found.age_seconds) == (0, None, None)
    assert (found.keys, found.locks) == (1, [])
    assert (found.size or 0) > 0


INFO = """{
    "cache": {
        "path": "/var/lib/holdfast/borg-root/.cache/borg/9d4f7ea6f0130c5f86979c87469dcf475e245791722a373d66f860f0ed1041ed",
        "stats": {"total_chunks": 152, "total_csize": 587695, "unique_csize": 598468, "unique_size": 1123352}
    },
    "encryption": {"mode": "repokey-blake2"},
    "repository": {"id": "9d4f7ea6f0130c5f86979c87469dcf475e245791722a373d66f860f0ed1041ed", "location": "b"}
}
"""


def test_inspect_gives_the_size_of_one_on_a_server() -> None:
    runner = Runner({"list": [listing()], "info": [Result(0, INFO)]})
    found = borg(runner).inspect(now=NOW, size=True)
    assert runner.calls[1]["argv"][2:] == ["info", "--bypass-lock", "--json", REMOTE.location]
    assert (found.size, found.keys, found.locks) == (598468, 1, None)
    keyfile = INFO.replace("repokey", "keyfile").replace('"stats"', '"other"')
    found = borg(Runner({"list": [listing()], "info": [Result(0, keyfile)]})).inspect(now=NOW, size=True)
    assert (found.state, found.size, found.keys) == ("present", None, 0)
    for answer in (Result(-15, timed_out=True), Result(2), Result(0, "x"), Result(0, '{"cache": 5, "encryption": []}')):
        found = borg(Runner({"list": [listing()], "info": [answer]})).inspect(now=NOW, size=True)
        assert (found.state, found.size, found.keys) == ("present", None, None)


def test_inspect_tells_of_archives_without_authentication() -> None:
    last = archive("b", 24, hostname="web1", username="root", comment="", tam="none")
    found = borg(Runner({"list": [listing(archive("b", 24)), listing(last)]})).inspect(now=NOW)
    assert found.state == "damaged"
    assert "borg upgrade --archives-tam" in str(found.reason)
    assert found.snapshots.count == 1


def test_inspect_what_a_record_knows_and_is_gone() -> None:
    assert borg(Runner({"list": [said.NO_CONFIG]})).inspect(now=NOW).state == "absent"
    found = borg(Runner({"list": [said.NO_CONFIG]})).inspect(now=NOW, recorded=True)
    assert found.state == "damaged"
    assert "the record says" in str(found.reason)


def test_inspect_an_archive_that_cannot_be_read_or_vanishes() -> None:
    damaged = said.error(90, "IntegrityError", "Data integrity error: …")
    found = borg(Runner({"list": [listing(archive("a", 1)), damaged]})).inspect(now=NOW)
    assert (found.state, found.snapshots.count) == ("damaged", 1)
    found = borg(Runner({"list": [listing(archive("a", 1)), listing()]})).inspect(now=NOW)
    assert (found.state, found.snapshots.last) == ("present", None)


# --- odds and ends ---------------------------------------------------------------------------------------------------


def test_why_a_command_failed() -> None:
    tool = borg(Runner({}))
    assert tool.explain(said.OCCUPIED) == "A repository already exists at /srv/d1."
    assert tool.explain(Result(-15, timed_out=True)) == "no answer within 30 s"
    assert tool.explain(Result(2, "", "plain words\n")) == "plain words"
    assert tool.explain(Result(2)) == "no message"
    assert tool.leftovers(said.OCCUPIED) == "the directory is not empty, and has no config file"
    assert tool.leftovers(said.WRONG) is None


def test_only_our_own_comments_hold_tags() -> None:
    assert _borg.tags_of("holdfast,job:a,,b") == ["job:a", "b"]
    assert _borg.tags_of("a comment of job:a") == []
    assert _borg.tags_of("") == []


def test_the_key_file_of_this_host(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "archive.borg_key"
    assert _borg.read_key(str(file)) is None
    file.write_text(EXPORTED)
    file.chmod(0o400)
    assert _borg.read_key(str(file)) == EXPORTED
    file.chmod(0o600)
    file.write_text("BORG_KEY junk\n")
    with pytest.raises(EngineError, match="is no exported key of borg"):
        _borg.read_key(str(file))
    if os.geteuid() == 0:
        file.write_text(EXPORTED)
        os.chown(file, 1234, 1234)
        with pytest.raises(EngineError, match="is no exported key of borg"):
            _borg.read_key(str(file))
