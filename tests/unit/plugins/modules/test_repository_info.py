# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.holdfast.backup.plugins.module_utils import _record
from ansible_collections.holdfast.backup.plugins.module_utils._borg import Borg
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree
from ansible_collections.holdfast.backup.plugins.module_utils._record import Record
from ansible_collections.holdfast.backup.plugins.module_utils._restic import Restic
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result
from ansible_collections.holdfast.backup.plugins.module_utils._source import load
from ansible_collections.holdfast.backup.plugins.modules import repository_info

from tests.unit.plugins.module_utils import recorded
from tests.unit.plugins.module_utils import recorded_borg as borg
from tests.unit.plugins.module_utils.recorded import ID, KEY, Runner, make


class Play:
    """The module, run against recorded answers."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        (root / "password").write_text("correct horse\n")
        self.options = {
            "repository": "rest:https://h/vault/",
            "password_file": str(root / "password"),
            "binary": "/bin/true",
        }

    def __call__(self, answers: dict[str, list[Result]], **options: Any) -> tuple[dict[str, Any], Runner]:
        runner = Runner(answers)
        self._monkeypatch.setattr(repository_info, "Restic", functools.partial(Restic, runner=runner))
        self._monkeypatch.setattr(repository_info, "Borg", functools.partial(Borg, runner=runner))
        arguments = {key: value for key, value in {**self.options, **options}.items() if value is not None}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            repository_info.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert "correct horse" not in json.dumps(result)
        return result, runner


@pytest.fixture
def play(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Play:
    tmp_path.chmod(0o755)
    return Play(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("check", [False, True])
def test_present(play: Play, check: bool) -> None:
    answers = {"cat": [recorded.config()], "snapshots": [recorded.SNAPSHOTS]}
    result, runner = play(answers, options={"rest.connections": 2}, _ansible_check_mode=check)
    assert [call["argv"] for call in runner.calls] == [
        ["/bin/true", "--no-cache", "-o", "rest.connections=2", "--no-lock", "cat", "config"],
        ["/bin/true", "--no-cache", "-o", "rest.connections=2", "--no-lock", "snapshots", "--json"],
    ]
    assert runner.calls[0]["environment"] == {
        "RESTIC_PASSWORD_FILE": str(play.root / "password"),
        "RESTIC_REPOSITORY": "rest:https://h/vault/",
    }
    assert 0 < runner.calls[1]["timeout"] <= runner.calls[0]["timeout"] <= 30
    assert result["changed"] is False
    found = result["repository"]
    assert (found["state"], found["id"], found["snapshots"]["count"]) == ("present", ID, 3)
    assert found["age_seconds"] == pytest.approx(time.time() - 1795265737, abs=60)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (recorded.ABSENT_18, "absent"),
        (recorded.WRONG_KEY_18, "wrong_key"),
        (recorded.REFUSED_18, "unreachable"),
        (Result(11), "locked"),
        (Result(1, "", "Fatal: only supported KDF is scrypt()"), "damaged"),
    ],
)
def test_a_state_is_a_result(play: Play, answer: Result, state: str) -> None:
    result, runner = play({"cat": [answer]})
    assert "failed" not in result
    assert result["repository"]["state"] == state
    assert result["repository"]["reason"]
    assert runner.commands == ["cat"]


def test_a_proxy(play: Play) -> None:
    _result, runner = play({"cat": [recorded.ABSENT_18]}, proxy="http://proxy:3128")
    assert runner.calls[0]["environment"]["HTTPS_PROXY"] == "http://proxy:3128"


def test_the_record_saves_an_opening(play: Play) -> None:
    path = str(play.root / "records" / "vault.env")
    with Tree() as tree:
        key = _record.make_key(tree, str(play.root / "records"))
        _record.write(tree, path, Record(ID, KEY, _record.fingerprint(key, load(play.options))))
    result, runner = play({"snapshots": [recorded.NO_SNAPSHOTS]}, record=path)
    assert runner.commands == ["snapshots"]
    assert runner.calls[0]["environment"]["RESTIC_KEY_HINT"] == KEY
    assert (result["repository"]["id"], result["repository"]["format_version"]) == (ID, None)


def test_a_record_of_another_location_only_gives_the_hint(play: Play) -> None:
    path = str(play.root / "vault.env")
    with Tree() as tree:
        _record.write(tree, path, Record("a" * 64, KEY, f"{'c' * 32}-{'d' * 32}"))
    answers = {"cat": [recorded.config()], "snapshots": [recorded.NO_SNAPSHOTS]}
    result, runner = play(answers, record=path)
    assert runner.calls[0]["environment"]["RESTIC_KEY_HINT"] == KEY
    assert result["repository"]["id"] == ID


def test_a_record_that_is_not_there_yet(play: Play) -> None:
    answers = {"cat": [recorded.config()], "snapshots": [recorded.NO_SNAPSHOTS]}
    assert play(answers, record=str(play.root / "none.env"))[1].commands == ["cat", "snapshots"]


def test_a_missing_mount_is_unreachable(play: Play) -> None:
    for keyless in (False, True):
        result, runner = play({}, repository=str(play.root / "r"), mount=str(play.root), keyless=keyless)
        assert runner.calls == []
        assert (result["repository"]["state"], result["repository"]["reason"]) == (
            "unreachable",
            f"nothing is mounted on {play.root}",
        )


def test_a_mounted_mount(play: Play) -> None:
    found = play({"cat": [recorded.ABSENT_18]}, repository=str(play.root / "r"), mount="/")[0]["repository"]
    assert found["state"] == "absent"
    found = play({}, repository=str(make(play.root / "k")), mount="/", keyless=True)[0]["repository"]
    assert found["state"] == "present"


def test_keyless_needs_neither_password_nor_program(play: Play) -> None:
    path = str(make(play.root / "r", snapshots=2))
    result, runner = play({}, repository=path, keyless=True, size=True, password_file=None, binary="no-such-restic")
    assert runner.calls == []
    assert result["changed"] is False
    assert (result["repository"]["snapshots"]["count"], result["repository"]["size"]) == (2, 1775)
    assert "repositories" not in result


def test_keyless_of_many(play: Play) -> None:
    make(play.root / "srv/a")
    make(play.root / "srv/b")
    result, _runner = play({}, repository=str(play.root / "srv"), keyless=True)
    assert [each["location"] for each in result["repositories"]] == [str(play.root / "srv/a"), str(play.root / "srv/b")]
    assert "repository" not in result


def test_a_password_in_the_location_is_not_shown(play: Play) -> None:
    result, runner = play({"cat": [recorded.ABSENT_18]}, repository="rest:https://u:sesame@h/vault/")
    assert runner.calls[0]["environment"]["RESTIC_REPOSITORY"] == "rest:https://u:sesame@h/vault/"
    assert result["repository"]["location"] == "rest:https://h/vault/"
    assert "sesame" not in json.dumps(result)


def test_the_location_in_a_file(play: Play) -> None:
    location = play.root / "location"
    location.write_text("rest:https://u:sesame@h/vault/\n")
    result, runner = play({"cat": [recorded.ABSENT_18]}, repository=None, repository_file=str(location))
    assert runner.calls[0]["environment"]["RESTIC_REPOSITORY_FILE"] == str(location)
    assert result["repository"]["location"] == "rest:https://h/vault/"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "tar"}, "value of engine must be one of: restic, borg, got: tar"),
        ({"timeout": 0}, "timeout: 0 is less than a second"),
        ({"binary": "no-such-restic"}, "binary: 'no-such-restic' is not installed"),
        ({"password_file": None}, "password_file: name the file"),
        ({"password_file": "/missing"}, "password_file: /missing does not exist"),
        ({"mount": "/mnt"}, "mount '/mnt' is not the directory"),
        ({"keyless": True}, "repository: keyless reads files"),
        ({"keyless": True, "repository": None, "repository_file": "/x"}, "repository: keyless reads files"),
        ({"repository_file": "/x"}, "mutually exclusive"),
    ],
)
def test_bad_input(play: Play, options: dict[str, Any], words: str) -> None:
    result, runner = play({}, **options)
    assert result["failed"] is True
    assert words in result["msg"]
    assert runner.calls == []


def test_something_that_is_not_restic(play: Play) -> None:
    assert "did not answer in JSON" in play({"cat": [Result(0, "hello")]})[0]["msg"]


def test_borg_with_a_key_file(play: Play) -> None:
    key = play.root / "key"
    key.write_text(borg.EXPORTED)
    answers = {"list": [borg.listing(borg.archive("a", 1)), borg.listing(borg.archive("a", 1, tam="verified"))]}
    result, runner = play(answers, engine="borg", repository="ssh://a/./r", key_file=str(key), ssh_command="ssh -F /c")
    assert result["repository"]["snapshots"]["count"] == 1
    assert runner.calls[0]["files"] == {"BORG_KEY_FILE": borg.EXPORTED.encode()}
    assert runner.calls[0]["environment"]["BORG_RSH"] == "ssh -F /c"


def test_borg_keyless(play: Play) -> None:
    borg.make(play.root / "many/web1--a")
    options = {"engine": "borg", "keyless": True, "password_file": None}
    result, runner = play({}, repository=str(play.root / "many"), **options)
    assert [each["id"] for each in result["repositories"]] == [borg.ID]
    result, runner = play({}, repository=str(play.root / "many/web1--a"), **options)
    assert result["repository"]["modified"] == "2026-11-21T16:28:10Z"
    assert runner.calls == []


def test_what_is_said_of_locks_is_what_is_done() -> None:
    """See test_inspect_opens_the_repository_once_if_its_id_is_known: the record saves the look at the config only."""
    contains = yaml.safe_load(repository_info.RETURN)["repository"]["contains"]
    said = " ".join(contains["locks"]["description"])
    assert "null unless O(size) is asked for" in said
    assert "O(record)" not in said
