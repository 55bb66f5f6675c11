# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin handover, and what preflight makes of what it kept: the exchange between two state directories."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.holdfast.backup.plugins.action import handover, preflight
from ansible_collections.holdfast.backup.plugins.module_utils import _tls
from ansible_collections.holdfast.backup.plugins.plugin_utils import _limit, _state

from tests.unit.plugins.action.acting import perform

HASH = "$2b$12$" + "a" * 53
REST = {"user": "web9--vault", "hash": HASH, "next_hash": None}
REPOSITORIES = {"vault": {"server": "vault1"}}
CLIENT = {
    "backup_repositories": REPOSITORIES,
    "backup_jobs": {"system": {"paths": ["/etc"]}},
    "backup_escrow": {"mode": "none"},
}
ADMINISTRATOR: dict[str, Any] = {
    "hostvars": {"web9": CLIENT, "vault1": {}},
    "groups": {"backup_clients": ["web9"], "backup_servers_elsewhere": ["vault1"]},
}
OPERATOR = {
    "hostvars": {"web9": {"backup_repositories": REPOSITORIES}, "vault1": {"ansible_host": "vault.example"}},
    "groups": {"backup_clients_elsewhere": ["web9"], "backup_servers": ["vault1"]},
}


def looked(state: Path, side: dict[str, Any], *limit: str, mode: str = "read") -> dict[str, Any]:
    limited = list(limit or ("web9", "vault1"))
    return perform(
        preflight.ActionModule, {"state_dir": str(state), "mode": mode}, {**side, "ansible_play_hosts_all": limited}
    )


def handed(state: Path, side: dict[str, Any], *limit: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """The action for one side; `limit` is what its user gave as --limit."""
    variables = {"ansible_play_hosts_all": list(limit or ("web9", "vault1")), "ansible_limit": ",".join(limit)}
    given = {
        "path": str(state),
        "hosts": looked(state, side)["hosts"],
        **{key: str(path) for key, path in arguments.items()},
    }
    return perform(handover.ActionModule, given, variables, check_mode=check)


def test_the_exchange(tmp_path: Path) -> None:
    own, theirs = tmp_path / "administrator", tmp_path / "operator"
    question, answer = tmp_path / "question.json", tmp_path / "answer.json"

    with pytest.raises(AnsibleActionFail, match="no hand-over file was imported that says where it serves web9--vault"):
        looked(own, ADMINISTRATOR, mode="site")
    with pytest.raises(AnsibleActionFail, match="web9: has no secret for the repository vault yet"):
        handed(own, ADMINISTRATOR, export_to=question)
    assert handed(own, ADMINISTRATOR, export_to=question, check=True)["changed"] is True
    _state.update(str(own), "web9", write={"rest/vault.json": REST})
    announced = handed(own, ADMINISTRATOR, export_to=question, check=True)
    assert not question.exists()
    assert announced == handed(own, ADMINISTRATOR, export_to=question)
    assert stat.S_IMODE(question.stat().st_mode) == 0o600
    assert "client web9: vault on vault1, restic over rest" in announced["diff"]["after"]
    assert HASH not in str(announced["diff"])
    again = handed(own, ADMINISTRATOR, export_to=question)
    assert again["changed"] is False
    assert again["diff"]["before"] == again["diff"]["after"]

    waiting = looked(theirs, OPERATOR, mode="site")["warnings"]
    assert any("vault1 does not let it in to vault before its hand-over file is imported" in each for each in waiting)
    announced = handed(theirs, OPERATOR, "web9", import_from=question, check=True)
    assert not theirs.exists()
    assert announced == handed(theirs, OPERATOR, "web9", import_from=question)
    assert (announced["changed"], announced["diff"]["before"]) == (True, "")
    again = handed(theirs, OPERATOR, "web9", import_from=question)
    assert again["changed"] is False
    assert again["diff"]["before"] == again["diff"]["after"] != ""
    assert _state.read_host(str(theirs), "web9")["rest"] == {"vault": REST}
    assert looked(theirs, OPERATOR, mode="site")["warnings"] == []

    with pytest.raises(AnsibleActionFail, match="vault1 does not serve its repository vault yet"):
        handed(theirs, OPERATOR, export_to=answer)
    users = [{"name": "web9--vault", "hash": HASH, "next_hash": None}]
    rendered = _limit.rendered(users, ["vault.example"], {})
    ca = _tls.certificate_part(_tls.make_authority(["vault.example"], 1_800_000_000, str(tmp_path)))
    _state.update(str(theirs), "vault1", write={"rendered.json": rendered, "ca.pem": ca})
    assert handed(theirs, OPERATOR, export_to=answer)["changed"] is True

    assert handed(own, ADMINISTRATOR, "vault1", import_from=answer)["changed"] is True
    assert handed(own, ADMINISTRATOR, "vault1", import_from=answer)["changed"] is False
    found = looked(own, ADMINISTRATOR, "web9", mode="site")["hosts"]["web9"]["client"]["repositories"][0]
    assert _state.read_host(str(own), "vault1")["ca"] == ca
    assert (found["location"], found["accepts"]) == ("rest:https://vault.example:8000/web9--vault/", [HASH])


@pytest.mark.parametrize("check", [True, False])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, check: bool) -> None:
    """Not /dev/null by root, and nothing waits for somebody to write into a pipe."""
    own, pipe, link = tmp_path / "administrator", tmp_path / "pipe", tmp_path / "link"
    _state.update(str(own), "web9", write={"rest/vault.json": REST})
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link, tmp_path):
        with pytest.raises(AnsibleActionFail, match=f"export_to = {path}: is no file"):
            handed(own, ADMINISTRATOR, export_to=path, check=check)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert link.is_symlink()


def test_what_is_damaged_of_another_host_is_no_obstacle(tmp_path: Path) -> None:
    own, question = tmp_path / "administrator", tmp_path / "question.json"
    _state.update(str(own), "web9", write={"rest/vault.json": REST})
    side = {
        "hostvars": {**ADMINISTRATOR["hostvars"], "web8": CLIENT},
        "groups": {**ADMINISTRATOR["groups"], "backup_clients": ["web9", "web8"]},
    }
    hosts = looked(own, side, "web9")["hosts"]
    damaged = own / "hosts/web8/rest/vault.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("<<<<<<<\n")
    given = {"path": str(own), "hosts": hosts, "export_to": str(question)}
    limited = {"ansible_play_hosts_all": ["web9"], "ansible_limit": "web9"}
    assert perform(handover.ActionModule, given, limited)["changed"] is True
    assert list(json.loads(question.read_text())["clients"]) == ["web9"]


def test_an_older_file_is_taken_with_a_warning(tmp_path: Path) -> None:
    old, state = tmp_path / "old.json", tmp_path / "operator"
    own = tmp_path / "administrator"
    _state.update(str(own), "web9", write={"rest/vault.json": REST})
    handed(own, ADMINISTRATOR, export_to=old)
    assert handed(state, OPERATOR, "web9", import_from=old)["warnings"] == []
    _state.update(str(state), "web9", write={"rest/vault.json": {**REST, "hash": HASH.replace("a", "b")}})
    (said,) = handed(state, OPERATOR, "web9", import_from=old)["warnings"]
    assert "the file is older than one that was imported already" in said


def test_who_may_speak_for_whom_is_said(tmp_path: Path) -> None:
    place = tmp_path / "file.json"
    place.write_text(json.dumps({"format": 1, "clients": {"web9": {}}, "servers": {}}))
    with pytest.raises(AnsibleActionFail, match="import_from: also say which hosts this file may speak for, --limit"):
        handed(tmp_path / "state", OPERATOR, import_from=place)
    with pytest.raises(AnsibleActionFail, match=r"import_from = .*file\.json: nothing of it was taken"):
        handed(tmp_path / "state", OPERATOR, "vault1", import_from=place)
    assert handed(tmp_path / "state", OPERATOR, "web9", import_from=place)["changed"] is False


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    state, place = tmp_path / "state", tmp_path / "file.json"
    with pytest.raises(AnsibleActionFail, match=r"file\.json"):
        handed(state, OPERATOR, "web9", import_from=place)
    place.write_text("x")
    with pytest.raises(AnsibleActionFail, match=r"file\.json: is not a hand-over file"):
        handed(state, OPERATOR, "web9", import_from=place)
    _state.update(str(state), "web9", write={"rest/vault.json": REST})
    # A file that lies there is replaced, whatever it holds.
    assert handed(state, ADMINISTRATOR, export_to=place)["changed"] is True
    assert "web9" in place.read_text()
    for check in (True, False):
        with pytest.raises(
            AnsibleActionFail, match=r"export_to = .*missing/file\.json: there is no directory .*missing\. Make it"
        ):
            handed(state, ADMINISTRATOR, export_to=tmp_path / "missing/file.json", check=check)
    with pytest.raises(AnsibleActionFail, match=r"import_from = .*nothing\.json: cannot be read: No such file"):
        handed(state, ADMINISTRATOR, "vault1", import_from=tmp_path / "nothing.json")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(AnsibleActionFail, match="is no file"):
        handed(state, ADMINISTRATOR, export_to=folder)
    assert not list(tmp_path.glob(".holdfast-*"))


def test_one_of_both_is_asked_for(tmp_path: Path) -> None:
    cases: tuple[dict[str, Any], ...] = ({}, {"export_to": "a", "import_from": "b"})
    for arguments in cases:
        with pytest.raises(AnsibleActionFail, match="export_to"):
            handed(tmp_path, OPERATOR, "web9", **arguments)


def test_damage_in_the_state_directory_stops(tmp_path: Path) -> None:
    _state.update(str(tmp_path), "web9", write={"handed_over.json": {"repositories": {"web9--vault": {}}}})
    with pytest.raises(AnsibleActionFail, match=r"handed_over\.json\.repositories\.web9--vault"):
        looked(tmp_path, ADMINISTRATOR)
