# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin preflight: bad input stops before anything is changed."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.holdfast.backup.plugins.action.preflight import ActionModule
from ansible_collections.holdfast.backup.plugins.lookup.program import LookupModule
from ansible_collections.holdfast.backup.plugins.plugin_utils import _limit

from tests.unit.plugins.action.acting import perform

act = partial(perform, ActionModule)
HASH = "$2b$12$" + "a" * 53


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


# --- the state directory


def test_hosts_that_name_several_state_directories_are_refused(tmp_path: Path) -> None:
    """A run takes what its first host says: with another --limit it would be another one, in silence."""
    variables = fleet(backup_state_dir=str(tmp_path / "fleet"))
    told = (
        f"backup_state_dir: is '{tmp_path / 'fleet'}' of web1, and not set ('holdfast-state') of db1, vault1:"
        " a run has one state directory, and takes what its first host says. Set it once for all hosts, in group_vars/all,"
        " or for one run with -e backup_state_dir="
    )
    with pytest.raises(AnsibleActionFail) as caught:
        act({"state_dir": str(tmp_path), "limit": ["db1"]}, variables)
    assert str(caught.value).endswith(f"\n- {told}")
    # Nobody's access is kept for it.
    read = act({"state_dir": str(tmp_path), "limit": ["db1"], "mode": "read"}, variables)
    assert read["warnings"] == [f"{told}. This run takes {str(tmp_path)!r}"]
    for host in variables["hostvars"].values():
        host["backup_state_dir"] = str(tmp_path / "fleet")
    assert act({"state_dir": str(tmp_path)}, variables)["warnings"] == []
    # What it takes may be what a host says that has nothing to do with backups.
    variables["hostvars"]["other1"] = {}
    with pytest.raises(AnsibleActionFail, match=r"not set \('holdfast-state'\) of other1: "):
        act({"state_dir": str(tmp_path)}, {**variables, "inventory_hostname": "other1"})
    assert act({"state_dir": str(tmp_path)}, {**variables, "inventory_hostname": "web1"})["warnings"] == []


def test_what_a_server_is_made_with_keeps_nobody_their_access(tmp_path: Path) -> None:
    """A playbook that only reads, decommission for one, did so with these values, too; what undoes a promise stops it."""
    variables = fleet(
        backup_repositories={
            "vault": {"server": "vault1", "access": "sftp"},
            "store": {"server": "vault1", "access": "rest"},
        }
    )
    variables["hostvars"]["vault1"] |= {
        "rest_server_path": "/root/backups",
        "rest_server_extra_args": ["--no-verify-upload"],
        "ssh_access_rclone_arguments": ["--s3-acl=public-read"],
        "ansible_host": "127.0.0.1",
    }
    words = (
        "rest_server_path",
        "rest_server_extra_args[0]",
        "ssh_access_rclone_arguments[0]",
        "ansible_host of vault1",
    )
    with pytest.raises(AnsibleActionFail) as caught:
        act({"state_dir": str(tmp_path)}, variables)
    result = act({"state_dir": str(tmp_path), "mode": "read", "revoke": "web1"}, variables)
    for each in words:
        assert each in str(caught.value)
        assert any(each in warning for warning in result["warnings"]), each
    # Its own value, not the default.
    assert result["hosts"]["vault1"]["server"]["path"] == "/root/backups"
    # With those nobody would be served: there access is only taken away.
    assert result["hosts"]["vault1"]["server"]["rclone_arguments_refused"] is True
    variables["hostvars"]["vault1"]["rest_server_extra_args"] = ["--no-auth"]
    with pytest.raises(AnsibleActionFail, match="--no-auth"):
        act({"state_dir": str(tmp_path), "mode": "read", "revoke": "web1"}, variables)


def test_a_template_of_a_host_that_has_nothing_to_do_with_backups(tmp_path: Path) -> None:
    class Broken(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise ValueError(f"{name} is undefined")

        def get(self, name: str, default: Any = None) -> Any:
            return self[name]

    variables = fleet()
    variables["hostvars"]["other1"] = Broken()
    with pytest.raises(
        AnsibleActionFail, match=r"other1: backup_state_dir: cannot be evaluated: .* Correct the template"
    ):
        act({"state_dir": str(tmp_path)}, {**variables, "inventory_hostname": "other1"})


def test_several_spellings_of_one_state_directory_are_one(tmp_path: Path) -> None:
    (tmp_path / "hosts").touch()
    variables = fleet(backup_state_dir=f"{tmp_path}/holdfast-state/")
    variables["hostvars"]["db1"] = {**variables["hostvars"]["db1"], "backup_state_dir": "./holdfast-state"}
    variables["ansible_inventory_sources"] = [str(tmp_path / "hosts")]
    assert act({}, variables)["state_dir"] == f"{tmp_path}/holdfast-state"


def test_of_many_hosts_that_disagree_some_are_named(tmp_path: Path) -> None:
    base = fleet()["hostvars"]["db1"]
    names = [f"web{number}" for number in range(500)]
    hostvars = {**{name: {**base, "backup_state_dir": "/fleet"} for name in names}, "vault1": {"backup_state_dir": 5}}
    variables = {"hostvars": hostvars, "groups": {"backup_clients": names, "backup_servers": ["vault1"]}}
    with pytest.raises(AnsibleActionFail) as caught:
        act({"state_dir": str(tmp_path)}, variables)
    assert "is '/fleet' of web0, web1, web2, web3, web4 and 495 more, and '5' of vault1: " in str(caught.value)


def served(folder: Path) -> dict[str, Any]:
    """Two clients of one server, and what the state directory has of them after a run."""
    variables = fleet(backup_repositories={"vault": {"server": "vault1"}})
    variables["hostvars"]["db1"] = variables["hostvars"]["web1"]
    for name in ("web1", "db1"):
        write(folder, name, "rest/vault.json", {"user": f"{name}--vault", "hash": HASH, "next_hash": None})
    users = {f"{name}--vault": _limit.digest(HASH) for name in ("web1", "db1")}
    write(folder, "vault1", "rendered.json", {"users": users, "names": ["vault1"]})
    return variables


def write(folder: Path, host: str, name: str, content: Any) -> Path:
    path = folder / "hosts" / host / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


BUNDLE = f"escrow/vault/{'0' * 32}-{'0' * 16}.age"


@pytest.mark.parametrize("name", ["ssh/other.pub", "rest/vault.json", "decommissioned.json", "ca.pem", BUNDLE])
@pytest.mark.parametrize("limit", [["db1"], ["vault1"]])
def test_a_damaged_file_of_a_host_outside_the_limit_is_a_warning(tmp_path: Path, name: str, limit: list[str]) -> None:
    variables = served(tmp_path)
    path = write(tmp_path, "web1", name, "nonsense\n")
    result = act({"state_dir": str(tmp_path), "limit": limit}, variables)
    (warning,) = result["warnings"]
    assert warning.startswith(f"web1: {path}: ")
    assert "Bring it back, from version control" in warning
    # Nobody is revoked, and nobody is let in again.
    assert {user["name"] for user in result["hosts"]["vault1"]["server"]["users"]} == {"web1--vault", "db1--vault"}
    assert bool(result["known"]["web1"]["decommissioned"]) == (name == "decommissioned.json")


@pytest.mark.parametrize("limit", [["web1", "vault1"], ["web1", "db1", "vault1"]])
def test_a_damaged_file_of_a_host_in_the_limit_stops_and_is_named(tmp_path: Path, limit: list[str]) -> None:
    variables = served(tmp_path)
    path = write(tmp_path, "web1", "ssh/other.pub", "nonsense\n")
    for mode in ("site", "read"):
        with pytest.raises(AnsibleActionFail, match=re.escape(f"- web1: {path}: no public key of SSH")):
            act({"state_dir": str(tmp_path), "limit": limit, "mode": mode}, variables)


@pytest.mark.parametrize("revoked", [None, "web1", "db1"])
def test_a_damaged_bundle_stops_only_what_writes_into_the_escrow(tmp_path: Path, revoked: str | None) -> None:
    """Others are there; who looks, backs up, restores or revokes needs none of it, or another one."""
    variables = served(tmp_path)
    path = write(tmp_path, "web1", BUNDLE, "")
    with pytest.raises(AnsibleActionFail, match=re.escape(f"- web1: {path}: ")):
        act({"state_dir": str(tmp_path)}, variables)
    arguments = {"state_dir": str(tmp_path), "mode": "read", **({"revoke": revoked} if revoked else {})}
    (warning,) = act(arguments, variables)["warnings"]
    assert warning.startswith(f"web1: {path}: ")
    assert "if web1 is not lost, remove it" in warning


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("rendered.json", "[]", "not a JSON object"),
        ("rendered.json", {"users": None}, "not what a server"),
        ("ssh_rendered.json", {"repositories": {"web1--vault": {"account": "bk-web1"}}}, "not what a server"),
    ],
)
def test_a_damaged_file_of_a_server_concerns_its_clients(tmp_path: Path, name: str, content: Any, word: str) -> None:
    variables = served(tmp_path)
    variables["hostvars"]["vault2"] = {}
    variables["groups"]["backup_servers"].append("vault2")
    write(tmp_path, "vault1", name, content)
    with pytest.raises(AnsibleActionFail, match=rf"vault1: .*{name}: {word}"):
        act({"state_dir": str(tmp_path), "limit": ["web1"]}, variables)
    assert len(act({"state_dir": str(tmp_path), "limit": ["vault2"]}, variables)["warnings"]) == 1


def test_a_damaged_fleet_id_stops_everybody(tmp_path: Path) -> None:
    variables = served(tmp_path)
    (tmp_path / "fleet.json").write_text("{}")
    with pytest.raises(AnsibleActionFail, match="no valid fleet_id"):
        act({"state_dir": str(tmp_path), "limit": ["db1"]}, variables)


@pytest.mark.parametrize("content", ["[]", {"repositories": 7}])
def test_a_damaged_hand_over_concerns_its_client_alone(tmp_path: Path, content: Any) -> None:
    variables = served(tmp_path)
    variables["groups"]["backup_servers_elsewhere"] = ["theirs"]
    variables["hostvars"]["theirs"] = {}
    write(tmp_path, "web1", "handed_over.json", content)
    (warning,) = act({"state_dir": str(tmp_path), "limit": ["db1"]}, variables)["warnings"]
    assert warning.startswith("web1: ")
    assert "handed_over.json" in warning
    with pytest.raises(AnsibleActionFail, match=r"handed_over\.json"):
        act({"state_dir": str(tmp_path)}, variables)


# --- whom decommission takes out


def revoke(folder: Path, client: str, variables: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    return act({"state_dir": str(folder), "mode": "read", "revoke": client, **arguments}, variables)


@pytest.mark.parametrize("client", ["vault1", "wbe1", "all", "../vault1", "*"])
def test_only_a_client_is_decommissioned(tmp_path: Path, client: str) -> None:
    variables = served(tmp_path)
    with pytest.raises(AnsibleActionFail, match=re.escape(f"client = {client}: is no host of backup_clients or")):
        revoke(tmp_path, client, variables)
    assert revoke(tmp_path, "web1", variables)["lets_in"] == {"vault1": ["rest"]}
    assert "lets_in" not in act({"state_dir": str(tmp_path), "mode": "read"}, variables)


def test_a_client_that_has_left_its_group_is_decommissioned_all_the_same(tmp_path: Path) -> None:
    variables = served(tmp_path)
    variables["groups"]["backup_clients"].remove("web1")
    assert "web1" not in revoke(tmp_path, "web1", variables)["hosts"]
    with pytest.raises(AnsibleActionFail, match="web1: vault1 would still let it in"):
        revoke(tmp_path, "web1", variables, limit=["db1"])


def test_a_server_whose_state_is_damaged_may_let_in_who_is_to_be_decommissioned(tmp_path: Path) -> None:
    variables = served(tmp_path)
    variables["hostvars"]["vault2"] = {}
    variables["groups"]["backup_servers"].append("vault2")
    write(tmp_path, "vault2", "rendered.json", "[]")
    with pytest.raises(AnsibleActionFail, match=r"vault2: .*rendered\.json"):
        revoke(tmp_path, "web1", variables, limit=["web1", "vault1"])
    # Another client's is of no concern.
    write(tmp_path, "vault2", "rendered.json", {})
    write(tmp_path, "db1", "rest/vault.json", "[]")
    assert revoke(tmp_path, "web1", variables, limit=["web1", "vault1"])["warnings"]


def test_bad_input_of_another_server_is_no_obstacle_to_a_revocation(tmp_path: Path) -> None:
    variables = served(tmp_path)
    variables["hostvars"]["vault2"] = {"rest_server_tls": "on"}
    variables["groups"]["backup_servers"].append("vault2")
    assert len(revoke(tmp_path, "web1", variables, limit=["web1", "vault1"])["warnings"]) == 1
