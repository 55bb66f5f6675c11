# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin escrow_read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible.playbook.task import Task
from ansible_collections.holdfast.backup.plugins.action.escrow_read import ActionModule


def act(args: dict[str, Any], variables: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    task = Task()
    task.action = "holdfast.backup.escrow_read"
    task.args = args
    task.check_mode = False
    task.async_val = 0
    for key, value in keys.items():
        setattr(task, key, value)
    connection = MagicMock()
    connection._shell.tmpdir = "/nonexistent"
    module = ActionModule(task, connection, MagicMock(), MagicMock(), MagicMock(), MagicMock())
    result: dict[str, Any] = module.run(task_vars=variables or {})
    assert not connection.exec_command.called
    return result


@pytest.fixture
def state(tmp_path: Path) -> Path:
    place = tmp_path / "hosts" / "web1" / "escrow" / "vault"
    place.mkdir(parents=True)
    (place / ("0" * 32 + ".json")).write_text(json.dumps({"password": "geheim"}))
    return tmp_path


def test_secrets(state: Path) -> None:
    args = {"path": str(state), "repositories": ["vault"]}
    wanted = {"vault": {"password": "geheim"}}
    assert act(args, {"inventory_hostname": "web1"}, no_log=True)["secrets"] == wanted
    assert act({**args, "host": "web1"}, {"inventory_hostname": "other"}, no_log=True)["secrets"] == wanted


def test_no_log_is_asked_for(state: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="no_log: true"):
        act({"path": str(state), "repositories": ["vault"]}, {"inventory_hostname": "web1"}, no_log=False)


def test_a_missing_bundle_is_told(state: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="no escrow bundle of other"):
        act({"path": str(state), "repositories": ["other"]}, {"inventory_hostname": "web1"}, no_log=True)
