# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin host_preflight: one look at a host, judged in the same task."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible.playbook.task import Task
from ansible_collections.holdfast.backup.plugins.action.host_preflight import ActionModule
from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered

EMPTY: tuple[Any, ...] = ({}, [], None, "")
SEEN: dict[str, Any] = {
    **{key: next(each for each in EMPTY if field.fits(each)) for key, field in _delivered.RESULTS["host_info"].items()},
    "packages": {"restic": {"installed": "0.18.0", "candidate": "0.18.0", "versions": ["0.18.0"]}},
    "systemd": 257,
}
FACTS = {"distribution": "Debian", "distribution_version": "13", "distribution_release": "trixie"}
TOOL: dict[str, Any] = {
    "install": "package",
    "package": "restic",
    "pinned": "",
    "version": "",
    "checksums": {},
    "binary": "/usr/bin/restic",
    "account": "holdfast",
}
CLIENT: dict[str, Any] = {
    "jobs": {"system": {"schedule": {"calendar": "daily"}}},
    "repositories": [
        {"name": "vault", "address": "vault1", "address_variable": "backup_address of vault1", "mount": None},
        {"name": "disk", "address": None, "mount": "/mnt/disk", "path": "/mnt/disk/holdfast/disk"},
        # A proxy resolves it.
        {"name": "far", "address": "vault9", "mount": None, "proxy": "http://192.0.2.1:3128"},
    ],
}
SERVER: dict[str, Any] = {
    "fleet_id": "f1",
    "state_dir": "/state",
    "revoke_max": None,
    "users": [],
    "path": "/srv",
    "quotas": [],
}
LOOK = {"packages": ["restic"]}
NEEDS = {
    "subvolumes": [],
    "calendars": ["daily"],
    "resolve": ["vault1"],
    "mounts": ["/mnt/disk"],
    "places": [{"path": "/mnt/disk/holdfast/disk", "account": "holdfast", "private": True}],
}


def act(
    said: dict[str, Any],
    facts: dict[str, Any] | None = None,
    discovered: bool = False,
    is_client: bool = True,
    **arguments: Any,
) -> dict[str, Any]:
    task = Task()
    task.action = "holdfast.backup.host_preflight"
    task.args = {"look": LOOK, "tool": TOOL, **arguments}
    task.check_mode = False
    task.async_val = 0
    module = ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
    ran = MagicMock(return_value={"changed": False, **said})
    module._execute_module = ran
    module._remove_tmp_path = MagicMock()
    module._discovered_interpreter_key = "discovered_interpreter_python" if discovered else None
    module._discovered_interpreter = "/usr/bin/python3"
    model = {"hosts": {"web1": {"client": CLIENT if is_client else None}}}
    variables = {"inventory_hostname": "web1", "ansible_facts": facts or FACTS, "__holdfast_preflight": model}
    result: dict[str, Any] = module.run(task_vars=variables)
    needs = NEEDS if is_client and not arguments.get("revoke_only") else {name: [] for name in NEEDS}
    ran.assert_called_once_with(
        module_name="holdfast.backup.host_info", module_args={**LOOK, **needs}, task_vars=variables
    )
    module._remove_tmp_path.assert_called_once()
    return result


def test_a_good_host() -> None:
    result = act(SEEN)
    assert not result.get("failed")
    assert {key: result[key] for key in SEEN} == SEEN
    assert (result["warnings"], result["inventory_problems"]) == ([], [])
    found = act(SEEN, discovered=True)
    assert found["ansible_facts"] == {"discovered_interpreter_python": "/usr/bin/python3"}


def test_what_the_host_does_not_deliver_fails_its_task() -> None:
    result = act({**SEEN, "systemd": None, "packages": {}})
    assert result["failed"]
    assert result["msg"].startswith("nothing was changed on this host:\n- web1: systemd: ")
    assert "\n- web1: restic_package = 'restic': " in result["msg"]
    assert result["inventory_problems"] == []


def test_what_is_wrong_with_the_inventory_comes_first_and_is_left_to_the_next_task() -> None:
    served = {"fleet_id": "f2", "users": {"a--v": "a"}}
    result = act({**SEEN, "systemd": None, "htpasswd": served}, is_client=False, server=SERVER)
    assert not result.get("failed")
    assert len(result["inventory_problems"]) == 1
    assert "backup_state_dir = '/state'" in result["inventory_problems"][0]


def test_where_access_is_only_taken_away_no_other_host_has_to_wait() -> None:
    served = {"fleet_id": "f2", "users": {"a--v": "a"}}
    result = act({**SEEN, "htpasswd": served}, server=SERVER, revoke_only=True)
    assert result["failed"]
    assert result["msg"].startswith("nothing was changed on this host:\n- web1: backup_state_dir = '/state'")
    assert result["inventory_problems"] == []
    # As a client it may lack whatever it wants.
    lacking = {"packages": {}, "reads_everything": False, "htpasswd": {**served, "fleet_id": "f1"}}
    assert not act({**SEEN, **lacking}, server=SERVER, revoke_only=True).get("failed")
    assert act({**SEEN, **lacking}, server=SERVER)["failed"]


def test_what_only_a_serving_host_needs_keeps_no_client_its_access() -> None:
    """No mirror, no sandbox, no btrfs: its role may fail for it, and what lost access is taken away all the same."""
    walled = {"works": False, "error": "Failed at step NAMESPACE"}
    quota = {"name": "web1--vault", "quota": "1G"}
    server = {**SERVER, "quotas": [quota]}
    lacking = {**BARE, "sandbox": walled, "server_sandbox": walled, "file_systems": {"/srv": "ext4"}}
    result = act(lacking, is_client=False, server=server, revoke_only=True)
    assert not result.get("failed"), result
    # What was seen is what later tasks go by.
    assert result["apt_lists"] is False


def test_what_deserves_attention_is_a_warning() -> None:
    result = act({**SEEN, "warnings": ["of the module"]}, {**FACTS, "distribution_release": "noble"})
    assert not result.get("failed")
    assert result["warnings"][0] == "of the module"
    assert "is not a tested platform" in result["warnings"][1]


def test_a_failed_look_and_an_odd_answer_end_the_task() -> None:
    assert act({"failed": True, "msg": "no"})["msg"] == "nothing was changed on this host:\n- web1: no"
    with pytest.raises(AnsibleActionFail, match=r"host_info\.systemd"):
        act({**SEEN, "systemd": "257"})


def refreshed(
    check_mode: bool, *answers: dict[str, Any], tool: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The result for a host where apt has no lists, and the modules that ran."""
    task = Task()
    task.action = "holdfast.backup.host_preflight"
    task.args = {"look": LOOK, "tool": tool or TOOL}
    task.check_mode = check_mode
    task.async_val = 0
    module = ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
    module._execute_module = MagicMock(side_effect=answers)
    module._remove_tmp_path = MagicMock()
    module._discovered_interpreter_key = None
    model = {"hosts": {"web1": {"client": CLIENT}}}
    variables = {"inventory_hostname": "web1", "ansible_facts": FACTS, "__holdfast_preflight": model}
    result: dict[str, Any] = module.run(task_vars=variables)
    module._remove_tmp_path.assert_called_once()
    return result, [call.kwargs["module_name"] for call in module._execute_module.call_args_list]


BARE = {**SEEN, "packages": {"restic": {"installed": None, "candidate": None, "versions": []}}, "apt_lists": False}


def test_a_host_without_package_lists_gets_them_before_it_is_judged() -> None:
    result, ran = refreshed(False, BARE, {"changed": True, "cache_updated": True}, SEEN)
    assert (result.get("failed"), result["changed"]) == (None, True)
    assert result["packages"] == SEEN["packages"]
    assert ran == ["holdfast.backup.host_info", "ansible.builtin.apt", "holdfast.backup.host_info"]


def test_check_mode_fetches_no_package_lists_and_goes_on_without() -> None:
    """The real run fetches them and goes on. Later tasks must not ask apt for what it cannot know."""
    age = {"installed": "1.1.1", "candidate": "1.1.1", "versions": ["1.1.1"]}
    nothing: dict[str, Any] = {"installed": None, "candidate": None, "versions": []}
    bare = {**BARE, "packages": {"restic": dict(nothing), "openssl": dict(nothing), "age": age}}
    result, ran = refreshed(True, bare)
    assert ran == ["holdfast.backup.host_info"]
    assert not result.get("failed")
    assert result["inventory_problems"] == []
    (warning,) = result["warnings"]
    assert warning.startswith("web1: apt: has no package lists on this host, so this check leaves out")
    assert "openssl, restic. Run apt update there, or run without --check" in warning
    assert all(each["installed"] for each in result["packages"].values())
    assert result["packages"]["age"] == age


def test_check_mode_takes_a_pinned_version_as_it_is_asked_for() -> None:
    nothing: dict[str, Any] = {"installed": None, "candidate": None, "versions": []}
    result, _ran = refreshed(True, {**BARE, "packages": {"restic": nothing}}, tool={**TOOL, "pinned": "0.18*"})
    assert result["packages"]["restic"]["installed"] == "0.18*"


def test_package_lists_that_cannot_be_fetched_end_the_task() -> None:
    with pytest.raises(
        AnsibleActionFail, match=r"has no package lists on this host, and apt update failed: .*no route"
    ):
        refreshed(False, BARE, {"failed": True, "msg": "no route"})
