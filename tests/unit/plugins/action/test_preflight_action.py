# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin preflight: bad input stops before anything is changed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.holdfast.backup.plugins.action.preflight import ActionModule
from ansible_collections.holdfast.backup.plugins.lookup.program import LookupModule

from tests.unit.plugins.action.acting import perform

act = partial(perform, ActionModule)


def fleet(**web1: Any) -> dict[str, Any]:
    base = {"backup_escrow": {"mode": "none"}, "backup_jobs": {"system": {"paths": ["/etc"]}}}
    hostvars = {"vault1": {}, "web1": {**base, **web1}, "db1": base}
    groups = {"backup_clients": ["web1", "db1"], "backup_servers": ["vault1"]}
    return {"hostvars": hostvars, "groups": groups, "ansible_play_hosts_all": ["vault1", "web1", "db1"]}


def test_the_model(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    result = act({"state_dir": path}, fleet())
    assert result["changed"] is False
    assert sorted(result["hosts"]) == ["db1", "vault1", "web1"]
    assert (result["state_dir"], result["fleet_id"], sorted(result["known"])) == (path, None, ["db1", "vault1", "web1"])
    assert result["warnings"] == []
    assert result["wanted_fleet_id"] is None
    assert act({"state_dir": path, "fleet_id": "abcdefgh"}, fleet())["wanted_fleet_id"] == "abcdefgh"
    assert not (tmp_path / "state").exists()
    assert result["program_sha256"] == LookupModule().run([])[0]["sha256"]
    assert "program_sha256" not in act({"state_dir": path, "mode": "read"}, fleet())


def test_bad_input_stops(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail) as caught:
        act({"state_dir": str(tmp_path)}, fleet(backup_id="A", backup_jobs={"x": {}}))
    assert str(caught.value).startswith("nothing was changed; correct the inventory:\n- web1: ")


def test_variables_of_roles_stop_too_and_are_told_once(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail) as caught:
        act({"state_dir": str(tmp_path)}, fleet(restic_install="compile", restic_privilege="sudo"))
    assert str(caught.value).count("- web1: restic_install = 'compile': ") == 1
    assert str(caught.value).count("- web1: restic_privilege = 'sudo': ") == 1


def test_bad_input_outside_the_limit_is_a_warning(tmp_path: Path) -> None:
    result = act({"state_dir": str(tmp_path), "limit": ["db1"]}, fleet(backup_id="A"))
    assert len(result["warnings"]) == 1
    assert "web1: backup_id = 'A'" in result["warnings"][0]


def test_bad_input_of_the_server_of_a_limited_client_stops(tmp_path: Path) -> None:
    variables = fleet(backup_repositories={"vault": {"server": "vault1"}})
    variables["hostvars"]["vault1"]["rest_server_tls"] = "on"
    with pytest.raises(AnsibleActionFail, match="vault1: rest_server_tls"):
        act({"state_dir": str(tmp_path), "limit": ["web1"], "mode": "read"}, variables)
    assert act({"state_dir": str(tmp_path), "limit": ["db1"]}, variables)["warnings"]


def test_bad_input_outside_the_limit_revokes_nobody(tmp_path: Path) -> None:
    variables = fleet(backup_repositories={"vault": {"server": "vault1"}})
    bad = fleet(backup_repositories={"vault": {"server": "vault1"}}, backup_jobs={"system": {"paths": ["etc"]}})
    users = [
        each["name"] for each in act({"state_dir": str(tmp_path)}, variables)["hosts"]["vault1"]["server"]["users"]
    ]
    assert users == ["web1--vault"]
    hashed = "$2b$12$" + "a" * 53
    web1, vault1 = tmp_path / "hosts/web1/rest", tmp_path / "hosts/vault1"
    for directory in (web1, vault1):
        directory.mkdir(parents=True)
    (web1 / "vault.json").write_text(json.dumps({"user": "web1--vault", "hash": hashed, "next_hash": None}))
    (vault1 / "rendered.json").write_text(json.dumps({"users": {"web1--vault": "0"}, "names": ["vault1"]}))
    result = act({"state_dir": str(tmp_path), "limit": ["vault1"]}, bad)
    assert "web1: backup_jobs.system.paths[0]" in result["warnings"][0]
    assert [each["name"] for each in result["hosts"]["vault1"]["server"]["users"]] == users


def test_what_a_host_says_of_itself_never_names_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fact in a cache outranks the inventory: a hostile client could take the name of one that is gone."""
    variables = fleet(backup_id="gone", ansible_facts={"backup_id": "gone", "distribution": "Debian"})
    for limit in (["web1"], ["db1"]):
        with pytest.raises(AnsibleActionFail, match=r"web1: backup_id: is among the facts .* --flush-cache"):
            act({"state_dir": str(tmp_path), "limit": limit}, variables)
    # Where facts are no variables the inventory has the last word.
    monkeypatch.setenv("ANSIBLE_INJECT_FACT_VARS", "false")
    assert act({"state_dir": str(tmp_path)}, variables)["warnings"] == []
    monkeypatch.undo()
    variables["hostvars"]["web1"]["ansible_facts"] = {"distribution": "Debian", "local": {"backup_id": "x"}}
    assert act({"state_dir": str(tmp_path)}, variables)["warnings"] == []


def test_a_server_outside_the_limit(tmp_path: Path) -> None:
    variables = fleet(backup_repositories={"vault": {"server": "vault1"}})
    with pytest.raises(AnsibleActionFail, match="--limit vault1,web1"):
        act({"state_dir": str(tmp_path), "limit": ["web1"]}, variables)
    assert act({"state_dir": str(tmp_path), "limit": ["web1"], "mode": "read"}, variables)["changed"] is False


def test_where_the_state_directory_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="backup_state_dir"):
        act({"state_dir": "relative"}, {**fleet(), "ansible_inventory_sources": ["web1,"]})
