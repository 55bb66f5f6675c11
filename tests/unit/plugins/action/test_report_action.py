# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin report."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible.playbook.task import Task
from ansible_collections.holdfast.backup.plugins.action import report
from ansible_collections.holdfast.backup.plugins.action.report import ActionModule

HOSTS = {
    "web1": {
        "backup_id": "web1",
        "client": {
            "units": [{"unit": "s--v", "job": "s", "repository": "v", "keep": []}],
            "repositories": [],
            "escrow": {"mode": "age"},
        },
    }
}


def act(args: dict[str, Any], variables: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    task = Task()
    task.action = "holdfast.backup.report"
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
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(report.display, "display", lines.append)
    return lines


def test_the_table(shown: list[str]) -> None:
    result = act({"hosts": HOSTS, "answers": {"web1": None}})
    assert (result["changed"], result["state"]["hosts"]["web1"]["answered"]) == (False, False)
    assert "web1  s    v           not asked" in shown[0]


def test_json(shown: list[str]) -> None:
    result = act({"hosts": HOSTS, "answers": {}, "format": "json"})
    assert json.loads(shown[0]) == result["state"]


def test_a_query(shown: list[str]) -> None:
    assert act({"hosts": HOSTS, "answers": {}, "query": "keys(hosts)"})["answer"] == ["web1"]
    assert json.loads(shown[0]) == ["web1"]


def test_a_bad_query(shown: list[str]) -> None:
    with pytest.raises(AnsibleActionFail, match="query = 'hosts\\['"):
        act({"hosts": HOSTS, "answers": {}, "query": "hosts["})
    assert shown == []
