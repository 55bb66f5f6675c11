# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin state, called as Ansible's task executor calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display
from ansible_collections.holdfast.backup.plugins.action.state import ActionModule

from tests.unit.plugins.action.acting import perform

REST = {"user": "web1--vault", "hash": "$2b$12$" + "a" * 53, "next_hash": None}


def act(args: dict[str, Any], variables: dict[str, Any] | None = None, *, check: bool = False) -> dict[str, Any]:
    return perform(ActionModule, args, {"inventory_hostname": "web1", **(variables or {})}, check_mode=check)


def test_writes_for_the_host_of_the_task(tmp_path: Path) -> None:
    args = {"path": str(tmp_path / "state"), "write": {"rest/vault.json": REST}, "make_fleet_id": True}
    announced = act(args, check=True)
    assert announced["changed"] is True
    assert not (tmp_path / "state").exists()
    done = act(args)
    assert done["changed"] is True
    assert done["written"] == ["fleet.json", "hosts/web1/rest/vault.json"]
    assert done["diff"] == announced["diff"]
    assert "hash" not in done["diff"]["after"]
    assert len(done["fleet_id"]) == 32
    again = act(args)
    assert again["changed"] is False
    assert again["fleet_id"] == done["fleet_id"]
    gone = act({"path": args["path"], "host": "web1", "remove": ["rest/vault.json"]})
    assert gone["removed"] == ["hosts/web1/rest/vault.json"]
    assert gone["diff"]["after"] == "hosts/web1/rest/vault.json: absent\n"


def test_bad_contents_fail_the_task(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"write: rest/vault\.json"):
        act({"path": str(tmp_path / "state"), "write": {"rest/vault.json": "x"}})


def test_never_inside_the_inventory(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="inside the inventory directory"):
        act({"path": str(tmp_path / "state")}, {"ansible_inventory_sources": [str(tmp_path)]})


@pytest.mark.parametrize("no_log", [True, False])
def test_why_is_told_where_no_log_hides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_log: bool) -> None:
    said: list[str] = []
    monkeypatch.setattr(Display, "error", lambda _self, message, **_more: said.append(message))
    args = {"path": str(tmp_path / "state"), "write": {"rest/vault.json": "x"}}
    with pytest.raises(AnsibleActionFail) as failed:
        perform(ActionModule, args, {"inventory_hostname": "web1"}, no_log=no_log)
    assert said == ([f"web1: {failed.value}"] if no_log else [])
