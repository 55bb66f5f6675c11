# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import functools
import json
import os
import pwd
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.holdfast.backup.plugins.module_utils import _ensure, _owner, _record
from ansible_collections.holdfast.backup.plugins.module_utils._ensure import ensure
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result
from ansible_collections.holdfast.backup.plugins.modules import repository

from tests.unit.plugins.module_utils import recorded
from tests.unit.plugins.module_utils import recorded_borg as borg
from tests.unit.plugins.module_utils.recorded import ID, KEY, OTHER_ID, OTHER_KEY, Runner, config, keys

PASSWORD = "correct horse battery staple"
BINARY = "/bin/true"
PRESENT = {"cat": [config()] * 4, "key": [keys()] * 4}
MADE = {
    "cat": [recorded.ABSENT_18, config()],
    "version": [recorded.VERSION_18],
    "init": [recorded.initialized()],
    "key": [keys()],
}


class Play:
    """A host with a record directory, and the module run on it against recorded answers."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.records = root / "records"
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        (root / "password").write_text(PASSWORD + "\n")
        monkeypatch.setattr(repository, "LOCK_DIRECTORY", str(root / "lock"))

    def entry(self, name: str = "vault", **options: Any) -> dict[str, Any]:
        return {
            "name": name,
            "repository": f"rest:https://h/{name}/",
            "password_file": str(self.root / "password"),
            "binary": BINARY,
            "record": str(self.records / f"{name}.env"),
            **options,
        }

    def __call__(
        self,
        answers: dict[str, list[Result]],
        *entries: dict[str, Any],
        check: bool = False,
        runner: Callable[..., Result] | None = None,
        **options: Any,
    ) -> tuple[dict[str, Any], Runner]:
        """Run the module and return its result and what it ran."""
        recorder = Runner(answers)
        self._monkeypatch.setattr(repository, "ensure", functools.partial(ensure, runner=runner or recorder))
        arguments = {
            "repositories": list(entries) or [self.entry()],
            "_ansible_check_mode": check,
            **{"_ansible_diff": True, **options},
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            repository.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert PASSWORD not in json.dumps(result)
        return result, recorder

    def record(self, name: str = "vault") -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.records / f"{name}.env").read_text().splitlines())

    def files(self) -> dict[str, bytes]:
        """Return every file below the host's root, to see that nothing changed."""
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def play(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Play:
    tmp_path.chmod(0o755)
    return Play(tmp_path, capsys, monkeypatch)


# --- set/check × changed/idempotent ----------------------------------------------------------------------------------


def test_a_repository_is_made_through_its_proxy(play: Play) -> None:
    _result, runner = play(MADE, play.entry(proxy="http://proxy:3128"))
    assert {each["environment"].get("HTTPS_PROXY") for each in runner.calls} == {"http://proxy:3128"}


def test_absent_is_initialised_and_recorded(play: Play) -> None:
    result, runner = play(MADE)
    assert runner.commands == ["cat", "version", "init", "cat", "key"]
    assert runner.calls[2]["argv"] == [BINARY, "--no-cache", "init", "--json"]
    assert all(
        call["environment"]
        == {"RESTIC_PASSWORD_FILE": str(play.root / "password"), "RESTIC_REPOSITORY": "rest:https://h/vault/"}
        for call in runner.calls
    )
    assert result["changed"] is True
    (found,) = result["repositories"]
    assert found == {
        "name": "vault",
        "action": "init",
        "changed": True,
        "key": KEY,
        "location": "rest:https://h/vault/",
        "engine": "restic",
        "state": "present",
        "reason": None,
        "id": ID,
        "format_version": 2,
        "snapshots": {"count": None, "last": None},
        "age_seconds": None,
        "locks": None,
        "keys": None,
        "size": None,
        "modified": None,
    }
    record = play.record()
    assert list(record) == ["HOLDFAST_REPOSITORY_ID", "RESTIC_KEY_HINT", "HOLDFAST_FINGERPRINT"]
    assert (record["HOLDFAST_REPOSITORY_ID"], record["RESTIC_KEY_HINT"]) == (ID, KEY)
    path = str(play.records / "vault.env")
    assert result["diff"] == [
        {"before_header": path, "after_header": path, "before": "", "after": (play.records / "vault.env").read_text()}
    ]


def test_another_way_to_it_is_tried_until_it_opened(play: Play) -> None:
    first, second = "1" * 32, "2" * 32
    play(MADE, play.entry(way=first))
    assert play.record()["HOLDFAST_WAY"] == first
    assert play({}, play.entry(way=first))[0]["changed"] is False
    # Whoever does not know of one changes nothing about it.
    assert play({}, play.entry())[0]["changed"] is False
    before = play.files()
    for _run in range(2):
        refused, _runner = play({"cat": [recorded.REFUSED_KEY]}, play.entry(way=second))
        assert "the SSH server refused this host's key" in refused["msg"]
        assert play.files() == before
    for check in (True, False):
        found, runner = play(PRESENT, play.entry(way=second), check=check)
        assert (found["changed"], runner.commands) == (True, ["cat", "key"])
        # Nothing was learnt that the escrow would lack.
        assert found["repositories"][0]["action"] == "way"
    assert play.record()["HOLDFAST_WAY"] == second
    # It leads to an empty place: what is on record is not made anew there.
    gone, runner = play({"cat": [recorded.ABSENT_18], "version": [recorded.VERSION_18]}, play.entry(way=first))
    assert "bring it back" in gone["msg"]
    assert "init" not in runner.commands


def test_the_second_run_opens_nothing_and_needs_no_program(play: Play) -> None:
    play(MADE)
    before = play.files()
    result, runner = play(
        {}, play.entry(binary="/nonexistent/restic", from_repo={"repository": "/x", "password_file": "/gone"})
    )
    assert runner.calls == []
    assert (result["changed"], result["diff"]) == (False, [])
    (found,) = result["repositories"]
    assert (found["action"], found["changed"], found["state"]) == ("none", False, None)
    assert (found["id"], found["key"]) == (ID, KEY)
    assert found["reason"] == "not checked: the record applies, so the repository was not opened"
    assert play.files() == before


def test_check_mode_says_init_and_changes_nothing(play: Play) -> None:
    before = play.files()
    result, runner = play({"cat": [recorded.ABSENT_18]}, check=True)
    assert runner.commands == ["cat"]
    (found,) = result["repositories"]
    assert (result["changed"], found["action"], found["state"]) == (True, "init", "absent")
    assert (found["id"], found["key"]) == (None, None)
    assert "HOLDFAST_REPOSITORY_ID=<made in the first real run>" in result["diff"][0]["after"]
    assert play.files() == before
    assert not play.records.exists()
    assert not (play.root / "lock").exists()


def test_check_mode_of_the_second_run(play: Play) -> None:
    play(MADE)
    result, runner = play({}, check=True)
    assert runner.calls == []
    assert result["changed"] is False


def test_no_diff_unless_asked(play: Play) -> None:
    assert "diff" not in play(MADE, _ansible_diff=False)[0]


# --- adopt and verify ------------------------------------------------------------------------------------------------


def test_present_is_adopted(play: Play) -> None:
    checked, _runner = play(PRESENT, check=True)
    assert not play.records.exists()
    result, runner = play(PRESENT)
    assert runner.commands == ["cat", "key"]
    for each in (checked, result):
        (found,) = each["repositories"]
        assert (each["changed"], found["action"], found["state"]) == (True, "adopt", "present")
        assert (found["id"], found["key"]) == (ID, KEY)
    assert play.record()["RESTIC_KEY_HINT"] == KEY
    assert play({})[0]["changed"] is False


def test_a_mounted_mount_is_used(play: Play) -> None:
    entry = play.entry(repository=str(play.root / "r"), mount="/")
    assert play(PRESENT, entry)[0]["repositories"][0]["action"] == "adopt"


def test_present_is_not_adopted_if_that_is_not_wanted(play: Play) -> None:
    result, _runner = play(PRESENT, play.entry(adopt=False))
    assert result["failed"] is True
    assert f"there is a repository {ID} without a record and adopt is false" in result["msg"]
    assert not play.records.exists()


def test_verify_opens_with_the_recorded_key(play: Play) -> None:
    play(MADE)
    result, runner = play(PRESENT, verify=True)
    assert runner.commands == ["cat", "key"]
    assert [call["environment"]["RESTIC_KEY_HINT"] for call in runner.calls] == [KEY, KEY]
    (found,) = result["repositories"]
    assert (result["changed"], found["action"], found["state"]) == (False, "none", "present")


@pytest.mark.parametrize("check", [False, True])
def test_another_id_is_an_error_that_names_both(play: Play, check: bool) -> None:
    play(MADE)
    before = play.files()
    result, _runner = play({"cat": [config(OTHER_ID)], "key": [keys()]}, verify=True, check=check)
    assert result["failed"] is True
    assert (
        f"it has the id {OTHER_ID}, but the record {play.records}/vault.env says {ID}; correct the location, or"
        in result["msg"]
    )
    assert play.record()["HOLDFAST_REPOSITORY_ID"] == ID
    assert (play.files() == before) is check


def test_another_key_is_an_error_that_names_both(play: Play) -> None:
    play(MADE)
    result, _runner = play({"cat": [config()], "key": [keys(OTHER_KEY)]}, verify=True)
    assert result["failed"] is True
    assert f"opens its key {OTHER_KEY}, but the record {play.records}/vault.env says {KEY}" in result["msg"]
    assert "put the recorded password back, or remove the record" in result["msg"]
    assert play.record()["RESTIC_KEY_HINT"] == KEY


def test_the_short_key_of_an_old_restic_is_the_same_key(play: Play) -> None:
    play({"cat": [config()], "key": [keys(KEY[:8])]})
    assert play.record()["RESTIC_KEY_HINT"] == KEY[:8]
    assert play(PRESENT, verify=True)[0]["changed"] is True
    assert play.record()["RESTIC_KEY_HINT"] == KEY
    assert play({"cat": [config()], "key": [keys(KEY[:8])]}, verify=True)[0]["changed"] is False
    assert play.record()["RESTIC_KEY_HINT"] == KEY


def test_a_changed_password_is_looked_at_again(play: Play) -> None:
    play(MADE)
    before = play.record()
    (play.root / "password").write_text("another one")
    result, runner = play({"cat": [recorded.WRONG_KEY_18]})
    assert runner.commands == ["cat"]
    assert "vault (rest:https://h/vault/) is wrong_key: the password opens no key" in result["msg"]
    assert play.record() == before
    assert play(PRESENT)[0]["changed"] is True
    assert play.record()["HOLDFAST_FINGERPRINT"] != before["HOLDFAST_FINGERPRINT"]
    assert play({})[0]["changed"] is False


def test_a_rotated_rest_password_opens_nothing(play: Play) -> None:
    location = play.root / "location"
    for password in ("one", "two"):
        location.write_text(f"rest:https://user:{password}@h/vault/\n")
        entry = play.entry(repository=None, repository_file=str(location))
        result, runner = play(MADE if password == "one" else {}, entry)
        assert result["changed"] is (password == "one")
        assert bool(runner.calls) is (password == "one")


def test_a_moved_repository_is_the_same(play: Play) -> None:
    play(MADE)
    result, _runner = play(PRESENT, play.entry(repository="rest:https://new/vault/"))
    assert (result["changed"], result["repositories"][0]["action"]) == (True, "adopt")
    assert play.record()["HOLDFAST_REPOSITORY_ID"] == ID


def test_absent_at_a_new_location_is_initialised(play: Play) -> None:
    play(MADE)
    answers = {**MADE, "cat": [recorded.ABSENT_18, config(OTHER_ID)], "init": [recorded.initialized(OTHER_ID)]}
    result, _runner = play({**answers, "key": [keys(OTHER_KEY)]}, play.entry(repository="rest:https://new/vault/"))
    assert result["repositories"][0]["action"] == "init"
    assert play.record()["HOLDFAST_REPOSITORY_ID"] == OTHER_ID


# --- never initialise in doubt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (recorded.WRONG_KEY_18, "is wrong_key: the password opens no key of this repository; put the repository's own"),
        (Result(11), "is locked: the repository is locked; let the other process end"),
        (recorded.REFUSED_18, "is unreachable: connection refused; make it reachable"),
        (
            recorded.REFUSED_KEY,
            "refused this host's key; run again with the server in the limit; where backup_repositories.vault.source is",
        ),
        (recorded.OTHER_HOST_KEY, "If it stays, backup_repositories.vault.address or the server's backup_address and"),
        (recorded.S3_WRONG_SECRET, "refuses this host's credentials; correct backup_repositories.vault.environment"),
        (recorded.NO_SSHD, "correct backup_ssh_port of the server or backup_repositories.vault.port"),
        (Result(-15, timed_out=True), "is unreachable: no answer within 60 s"),
        (Result(1, "", "Fatal: only supported KDF is scrypt()"), "is damaged: a file in keys/ is not a key"),
        (Result(1, "", "Fatal: something new"), "is unreachable: something new"),
    ],
)
def test_any_other_state_fails_and_nothing_is_made(play: Play, answer: Result, words: str) -> None:
    result, runner = play({"cat": [answer]})
    assert runner.commands == ["cat"]
    assert result["failed"] is True
    assert result["changed"] is False
    assert words in result["msg"]
    assert result["repositories"][0]["reason"]
    assert not play.records.exists()


def test_a_recorded_repository_that_is_gone_is_not_made_anew(play: Play) -> None:
    play(MADE)
    before = play.files()
    result, runner = play({"cat": [recorded.ABSENT_18]}, verify=True)
    assert runner.commands == ["cat"]
    assert f"is absent: the record {play.records}/vault.env says that repository {ID} was here" in result["msg"]
    assert play.record()["HOLDFAST_REPOSITORY_ID"] == ID
    # Each run looks again, also one that is not told to, until it is there.
    for check in (True, False, False):
        result, runner = play({"cat": [recorded.ABSENT_18]}, check=check)
        assert (runner.commands, result["failed"]) == (["cat"], True)
        assert "was here; bring it back" in result["msg"]
    assert play(PRESENT)[0]["changed"] is True
    assert play.files() == before
    assert play({})[1].commands == []


@pytest.mark.parametrize("answers", [{"cat": [recorded.REFUSED_KEY]}, {"cat": [config(OTHER_ID)], "key": [keys()]}])
def test_what_was_not_found_as_recorded_is_looked_at_until_it_is(play: Play, answers: dict[str, list[Result]]) -> None:
    play(MADE)
    before = play.files()
    assert play(answers, verify=True, check=True)[1].commands
    assert play.files() == before
    assert play(answers, verify=True)[0]["failed"] is True
    assert play(answers)[0]["failed"] is True
    play(PRESENT)
    assert play.files() == before


def test_nor_if_the_password_changed_or_the_key_of_the_fingerprints_is_lost(play: Play) -> None:
    play(MADE)
    (play.root / "password").write_text("another one")
    assert "was here; bring it back" in play({"cat": [recorded.ABSENT_18]})[0]["msg"]
    (play.records / "fingerprint.key").unlink()
    assert "was here; bring it back" in play({"cat": [recorded.ABSENT_18]})[0]["msg"]


def test_a_server_that_cannot_read_its_files_is_told_with_the_cure(play: Play) -> None:
    said = Result(
        1, "", "Fatal: unable to open config file: unexpected HTTP response (500): 500 Internal Server Error\n"
    )
    result, _runner = play({"cat": [said]})
    assert "is unreachable: HTTP 500; look at whom it belongs to on its server, chown -R it" in result["msg"]
    denied = Result(1, "", "Fatal: unable to open config file: stat /r/config: permission denied\n")
    assert "chown -R" in play({"cat": [denied]})[0]["msg"]
    # A local one is given to its account by the module itself.
    assert "chown -R" not in play({"cat": [denied]}, play.entry(repository=str(play.root / "r")))[0]["msg"]


def test_a_lost_key_of_the_fingerprints_is_made_anew(play: Play) -> None:
    play(MADE)
    (play.records / "fingerprint.key").unlink()
    result, runner = play(PRESENT)
    assert (result["changed"], runner.commands) == (True, ["cat", "key"])
    assert play({})[0]["changed"] is False


def test_an_old_restic_never_initialises(play: Play) -> None:
    result, runner = play({"cat": [recorded.ABSENT_14_REST], "version": [recorded.VERSION_14]})
    assert runner.commands == ["cat", "version"]
    assert "is absent: restic 0.14.0 cannot prove absence: initialising needs 0.17.1 or later" in result["msg"]


def test_nothing_is_made_under_a_mount_that_is_missing(play: Play) -> None:
    mount = play.root / "mnt"
    mount.mkdir()
    entry = play.entry(repository=str(mount / "r"), mount=str(mount))
    for check in (False, True):
        result, runner = play({}, entry, check=check)
        assert runner.calls == []
        assert f"is unreachable: nothing is mounted on {mount}; mount it" in result["msg"]
    assert list(mount.iterdir()) == []


def test_something_that_is_not_restic(play: Play) -> None:
    result, _runner = play({"cat": [Result(0, "hello")]})
    assert "vault: restic cat config did not answer in JSON" in result["msg"]
    assert result["repositories"][0]["state"] == "unreachable"


# --- init that does not go as hoped ----------------------------------------------------------------------------------

EXISTS = recorded.init_error("Fatal: create repository at rest:https://h/vault/ failed: config file already exists\n")


def test_the_loser_of_two_runs_adopts(play: Play) -> None:
    result, runner = play({**MADE, "init": [EXISTS]})
    assert runner.commands == ["cat", "version", "init", "cat", "key"]
    assert (result["changed"], result["repositories"][0]["action"]) == (True, "adopt")
    assert play.record()["HOLDFAST_REPOSITORY_ID"] == ID


def test_the_loser_does_not_adopt_if_that_is_not_wanted(play: Play) -> None:
    result, _runner = play({**MADE, "init": [EXISTS]}, play.entry(adopt=False))
    assert "without a record and adopt is false" in result["msg"]


def test_left_over_keys_are_damage(play: Play) -> None:
    error = recorded.init_error("Fatal: create key in repository at x failed: repository already contains keys\n")
    result, _runner = play({**MADE, "cat": [recorded.ABSENT_18] * 2, "init": [error]})
    assert (
        "is damaged: init failed: create key in repository at x failed: repository already contains keys; restore"
        in result["msg"]
    )
    assert result["repositories"][0]["state"] == "damaged"
    assert not play.records.exists()


def test_init_that_cannot_write(play: Play) -> None:
    error = recorded.init_error("Fatal: create repository at /r failed: mkdir /r: permission denied\n")
    result, _runner = play({**MADE, "cat": [recorded.ABSENT_18] * 2, "init": [error]})
    assert "is absent: init failed: create repository at /r failed: mkdir /r: permission denied" in result["msg"]


def test_success_of_init_is_not_believed(play: Play) -> None:
    result, _runner = play({**MADE, "cat": [recorded.ABSENT_18] * 2})
    assert "is absent: init succeeded, but then: there is no repository" in result["msg"]
    result, _runner = play({**MADE, "init": [recorded.initialized(OTHER_ID)]})
    assert f"init made {OTHER_ID}, but {ID} is there" in result["msg"]
    assert not play.records.exists()


def test_init_that_prints_no_id_is_judged_by_the_repository(play: Play) -> None:
    result, _runner = play({**MADE, "init": [Result(0, "created restic repository")]})
    assert result["repositories"][0]["id"] == ID


def test_version_and_chunker_parameters(play: Play) -> None:
    other = {"repository": "/srv/other", "password_file": str(play.root / "password")}
    _result, runner = play(MADE, play.entry(repository_version="2", from_repo=other))
    assert runner.calls[2]["argv"][-4:] == ["--json", "--repository-version", "2", "--copy-chunker-params"]
    assert runner.calls[2]["environment"]["RESTIC_FROM_REPOSITORY"] == "/srv/other"


def test_environments_that_contradict_each_other(play: Play) -> None:
    for name, value in (("one", "1"), ("two", "2")):
        (play.root / name).write_text(f"AWS_SECRET_ACCESS_KEY={value * 20}\nSAME=x\n")
    other = {
        "repository": "s3:x",
        "password_file": str(play.root / "password"),
        "environment_file": str(play.root / "two"),
    }
    result, runner = play({}, play.entry(environment_file=str(play.root / "one"), from_repo=other))
    assert "repositories[vault].from_repo.environment_file: AWS_SECRET_ACCESS_KEY has another value" in result["msg"]
    assert "2222" not in json.dumps(result)
    assert runner.calls == []


# --- several, and two runs -------------------------------------------------------------------------------------------


def test_the_others_are_done_although_one_fails(play: Play) -> None:
    def answer(argv: list[str], *, environment: dict[str, str], **_arguments: Any) -> Result:
        if "bad" in environment["RESTIC_REPOSITORY"]:
            return recorded.WRONG_KEY_18
        return keys() if "key" in argv else config()

    result, _runner = play({}, play.entry("one"), play.entry("bad"), play.entry("two"), runner=answer)
    assert result["failed"] is True
    assert result["msg"].startswith("1 of 3 repositories cannot be used: bad (rest:https://h/bad/) is wrong_key")
    assert result["changed"] is True
    assert [(each["name"], each["action"]) for each in result["repositories"]] == [
        ("one", "adopt"),
        ("bad", "none"),
        ("two", "adopt"),
    ]
    assert sorted(os.listdir(play.records)) == ["fingerprint.key", "one.env", "two.env"]


def test_all_records_of_the_first_run_share_one_key(play: Play) -> None:
    def answer(argv: list[str], **_arguments: Any) -> Result:
        return keys() if "key" in argv else config()

    entries = [play.entry(f"r{number}") for number in range(16)]
    result, _runner = play({}, *entries, runner=answer)
    assert [each["action"] for each in result["repositories"]] == ["adopt"] * 16
    assert play({}, *entries)[0]["changed"] is False


def test_what_another_run_did_meanwhile_is_seen(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., None] = Tree.lock

    def lock(tree: Tree, path: str, *, timeout: float) -> None:
        monkeypatch.setattr(Tree, "lock", real)
        play(MADE)
        monkeypatch.setattr(repository, "ensure", functools.partial(ensure, runner=Runner({})))
        real(tree, path, timeout=timeout)

    monkeypatch.setattr(Tree, "lock", lock)
    result, _runner = play({})
    assert result["changed"] is False
    assert result["repositories"][0]["id"] == ID


def test_only_one_run_at_a_time(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tree() as tree:
        tree.make_directory(str(play.root / "lock"), uid=0, gid=0, mode=0o700)
        tree.lock(str(play.root / "lock"), timeout=0)
        monkeypatch.setattr(Tree, "lock", functools.partialmethod(_lock_now, Tree.lock))
        result, runner = play(MADE)
    assert "another run holds" in result["msg"]
    assert runner.calls == []


def _lock_now(tree: Tree, real: Callable[..., None], path: str, *, timeout: float) -> None:
    assert timeout == 180
    real(tree, path, timeout=0)


# --- check mode before everything is there ---------------------------------------------------------------------------


def test_check_mode_before_files_program_and_account_are_there(play: Play) -> None:
    missing = str(play.root / "missing")
    result, runner = play(
        {},
        play.entry("password", password_file=missing),
        play.entry("location", repository=None, repository_file=missing),
        play.entry("program", binary="no-such-restic"),
        play.entry("account", repository="/srv/r", user="no-such-user"),
        check=True,
    )
    assert runner.calls == []
    assert result["changed"] is True
    assert [(each["state"], each["action"], each["changed"]) for each in result["repositories"]] == [
        (None, "init", True)
    ] * 4
    assert [each["reason"] for each in result["repositories"]] == [
        f"not checked: repositories[password].password_file: {missing} does not exist: make it, or name the file that is there",
        f"not checked: repositories[location].repository_file: {missing} does not exist: make it, or name the file that is there",
        "not checked: binary: 'no-such-restic' is not installed: install it or give the path of the program",
        "not checked: there is no account 'no-such-user' on this host",
    ]
    assert [each["location"] for each in result["repositories"]] == [
        "rest:https://h/password/",
        "",
        "rest:https://h/program/",
        "/srv/r",
    ]
    assert not play.records.exists()


def test_check_mode_with_a_server_that_is_not_there_yet_warns(play: Play) -> None:
    result, _runner = play({"cat": [recorded.REFUSED_18]}, check=True)
    assert "failed" not in result
    assert result["changed"] is True
    assert "vault (rest:https://h/vault/) could not be checked: connection refused" in json.dumps(result["warnings"])
    play(MADE)
    result, _runner = play({"cat": [recorded.REFUSED_18]}, check=True, verify=True)
    assert (result["changed"], result["repositories"][0]["action"]) == (False, "none")


def test_check_mode_with_a_record_and_a_missing_password(play: Play) -> None:
    play(MADE)
    (play.root / "password").unlink()
    result, _runner = play({}, check=True)
    assert (result["changed"], result["repositories"][0]["action"]) == (True, "adopt")


def test_check_mode_with_an_account_that_is_there(play: Play) -> None:
    result, runner = play({"cat": [recorded.ABSENT_18]}, play.entry(repository="/srv/r", user="nobody"), check=True)
    assert runner.calls[0]["user"] == "nobody"
    assert runner.calls[0]["files"] == {"RESTIC_PASSWORD_FILE": (PASSWORD + "\n").encode()}
    assert result["repositories"][0]["action"] == "init"


@pytest.mark.parametrize("begun", [True, False])
def test_what_was_given_in_part_is_given_before_it_is_opened(
    play: Play, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """Cut off, it was found to be the right one before; until then neither account can open it."""
    events: list[str] = []
    place = play.root / "repository"
    place.mkdir()
    (place / "config").touch()
    user = pwd.getpwuid(place.stat().st_uid).pw_name if begun else "nobody"
    monkeypatch.setattr(_owner, "belongs_to_another", lambda *_arguments: True)
    monkeypatch.setattr(_owner, "give", lambda path, owner: events.append(f"give {path} to {owner.pw_name}"))

    def opened(argv: Sequence[str], **given: Any) -> Result:
        events.append(argv[-1])
        return recorder(argv, **given)

    recorder = Runner(PRESENT)
    result, _runner = play({}, play.entry(repository=str(place), user=user), runner=opened)
    assert result["repositories"][0]["action"] == "adopt", result
    given = f"give {place} to {user}"
    assert events[:1] == ([given] if begun else ["config"])
    assert events[-1] == given


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a--b"}, "the name 'a--b' is not lower case letters, digits and single hyphens"),
        ({"name": "../x"}, "the name '../x' is not"),
        ({"name": "a\n"}, "is not lower case"),
        ({"name": "a" * 29}, "28 characters at most"),
        ({"engine": "tar"}, "value of engine must be one of: restic, borg, got: tar found in repositories"),
        ({"engine": "borg"}, "repositories[vault].key_file: it is missing: name the file that keeps the exported key"),
        (
            {"encryption": "repokey-blake2"},
            "repositories[vault].encryption: it is for engine borg only, and this one is",
        ),
        (
            {"engine": "borg", "key_file": "/k", "repository_version": "2"},
            "repositories[vault].repository_version: it is for engine restic only, and this one is borg: remove it",
        ),
        ({"record": "x.env"}, "repositories[vault].record: 'x.env' is not an absolute path"),
        ({"repository": "x"}, "repositories[vault].repository: 'x' is no absolute path"),
        ({"repository_file": "/x"}, "repositories[vault].repository: give exactly one"),
        ({"password_file": "/missing"}, "repositories[vault].password_file: /missing does not exist"),
        ({"user": "nobody"}, "repositories[vault].user: only a local repository can belong to an account"),
        ({"user": "no-such-user", "repository": "/srv/r"}, "there is no account 'no-such-user'"),
        ({"mount": "/mnt"}, "mount '/mnt' is not the directory of the repository or one above it"),
        ({"binary": "no-such-restic"}, "binary: 'no-such-restic' is not installed"),
    ],
)
def test_bad_input_stops_before_anything_is_changed(play: Play, options: dict[str, str], words: str) -> None:
    before = play.files()
    result, runner = play({}, play.entry("good"), {**play.entry(), **options})
    assert result["failed"] is True
    assert words in result["msg"]
    assert "repositories" not in result
    assert runner.calls == []
    assert play.files() == before


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"name": "one"}, "name 'one' is given more than once"),
        ({"repository": "rest:https://h/one/"}, "repository 'rest:https://h/one/' is given more than once"),
    ],
)
def test_two_of_a_kind(play: Play, other: dict[str, str], words: str) -> None:
    result, _runner = play({}, play.entry("one"), {**play.entry("two"), **other})
    assert words in result["msg"]


def test_two_with_one_record(play: Play) -> None:
    record = str(play.records / "one.env")
    result, _runner = play({}, play.entry("one"), play.entry("two", record=record))
    assert f"record '{record}' is given more than once" in result["msg"]


def test_timeout_is_positive(play: Play) -> None:
    assert "timeout: 0 is less than a second" in play({}, timeout=0)[0]["msg"]


def test_a_record_that_is_none(play: Play) -> None:
    play.records.mkdir()
    (play.records / "vault.env").write_text("junk")
    assert f"record {play.records}/vault.env: it is not a record" in play({})[0]["msg"]


def test_the_default_record(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ensure, "RECORDS", str(play.records))
    entry = play.entry()
    del entry["record"]
    play(MADE, entry)
    assert play.record()["HOLDFAST_REPOSITORY_ID"] == ID


def test_a_record_directory_that_others_write(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play.records.mkdir()

    def refuse(*_args: object) -> None:
        raise UnsafePathError(f"{play.records} is writable by others")

    monkeypatch.setattr(_record, "write", refuse)
    result, _runner = play(MADE)
    assert f"vault: {play.records} is writable by others" in result["msg"]
    assert result["repositories"][0]["state"] == "unreachable"


def test_a_password_in_the_location_is_not_shown(play: Play) -> None:
    secret = "sesame-open-up"
    entry = play.entry(
        repository=f"rest:https://u:{secret}@h/vault/",
        from_repo={"repository": f"rest:https://u:{secret}@h/x/", "password_file": str(play.root / "password")},
    )
    result, _runner = play({"cat": [Result(1, "", f"Fatal: failed at {secret}")]}, entry)
    assert result["repositories"][0]["reason"] == "failed at ***"
    assert secret not in json.dumps(result)
    shown = result["invocation"]["module_args"]["repositories"][0]
    assert (shown["repository"], shown["from_repo"]["repository"]) == ("rest:https://h/vault/", "rest:https://h/x/")


# --- borg ------------------------------------------------------------------------------------------------------------


def borg_entry(play: Play, **options: Any) -> dict[str, Any]:
    return play.entry(
        **{"engine": "borg", "repository": "ssh://a/./r", "key_file": str(play.root / "vault.borg_key"), **options}
    )


BORG_MADE = {
    "list": [borg.NO_CONFIG, borg.listing()],
    "--version": [borg.VERSION_14],
    "init": [Result(0)],
    "key": [Result(0, borg.EXPORTED)],
}


def test_borg_is_initialised_and_its_key_kept_for_the_escrow(play: Play) -> None:
    result, runner = play(BORG_MADE, borg_entry(play))
    assert runner.commands == ["list", "--version", "init", "list", "key"]
    (found,) = result["repositories"]
    assert (found["engine"], found["action"], found["id"], found["key"]) == ("borg", "init", borg.ID, borg.KEY)
    assert play.record()["RESTIC_KEY_HINT"] == borg.KEY
    key = play.root / "vault.borg_key"
    assert key.read_text() == borg.EXPORTED
    assert key.stat().st_mode & 0o777 == 0o400
    assert borg.BLOB.split("\n", 1)[0] not in json.dumps(result)
    # Converged: nothing is opened.
    result, runner = play({}, borg_entry(play))
    assert (result["changed"], runner.calls) == (False, [])


def test_borg_in_check_mode(play: Play) -> None:
    result, runner = play(BORG_MADE, borg_entry(play), check=True)
    assert result["changed"] is True
    assert runner.commands == ["list"]
    assert not (play.root / "vault.borg_key").exists()


@pytest.mark.parametrize("content", [None, borg.EXPORTED.replace("hqlh", "AAAA")])
def test_a_key_that_is_lost_or_another_is_exported_again(play: Play, content: str | None) -> None:
    play(BORG_MADE, borg_entry(play))
    key = play.root / "vault.borg_key"
    key.unlink()
    if content is not None:
        key.write_text(content)
    again = {"list": [borg.listing()], "key": [Result(0, borg.EXPORTED)]}
    assert play(again, borg_entry(play), check=True)[0]["changed"] is True
    assert key.exists() == (content is not None)
    result, _runner = play(again, borg_entry(play))
    assert (result["changed"], result["repositories"][0]["action"]) == (True, "adopt")
    assert key.read_text() == borg.EXPORTED


def test_a_key_that_was_replaced_in_the_repository_is_an_error(play: Play) -> None:
    play(BORG_MADE, borg_entry(play))
    other = borg.EXPORTED.replace("hqlh", "AAAA")
    result, _runner = play({"list": [borg.listing()], "key": [Result(0, other)]}, borg_entry(play), verify=True)
    assert result["failed"] is True
    assert "put the recorded password back" in result["msg"]
    assert (play.root / "vault.borg_key").read_text() == borg.EXPORTED


def test_nothing_is_initialised_over_what_lost_its_config(play: Play) -> None:
    answers = {**BORG_MADE, "list": [borg.NO_CONFIG] * 2, "init": [borg.OCCUPIED]}
    result, _runner = play(answers, borg_entry(play))
    assert result["repositories"][0]["state"] == "damaged"
    assert "restore the config file" in result["msg"]
    assert not (play.root / "vault.borg_key").exists()


def test_a_key_without_its_repository_is_not_overwritten(play: Play) -> None:
    (play.root / "vault.borg_key").write_text(borg.EXPORTED)
    result, runner = play(BORG_MADE, borg_entry(play))
    assert "holds the key of a repository that is not here" in result["msg"]
    assert runner.commands == ["list", "--version"]


def test_a_keyfile_repository_is_opened_with_the_key_that_was_kept(play: Play) -> None:
    options = {"encryption": "keyfile-blake2"}
    _result, runner = play(BORG_MADE, borg_entry(play, **options))
    assert [call["files"] for call in runner.calls] == [{}] * 5
    assert runner.calls[2]["argv"][3] == "--encryption=keyfile-blake2"
    again = {"list": [borg.listing()], "key": [Result(0, borg.EXPORTED)]}
    _result, runner = play(again, borg_entry(play, **options), verify=True)
    assert runner.calls[0]["files"] == {"BORG_KEY_FILE": borg.EXPORTED.encode()}


def test_an_old_borg_does_not_initialise(play: Play) -> None:
    result, _runner = play({**BORG_MADE, "--version": [borg.VERSION_12]}, borg_entry(play))
    assert "borg 1.2.4 cannot prove absence: initialising needs 1.2.8 or later" in result["msg"]
