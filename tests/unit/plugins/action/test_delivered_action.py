# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin that runs the modules, called as Ansible's task executor calls it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.utils.display import Display
from ansible_collections.holdfast.backup.plugins.action.delivered import ActionModule

from tests.unit.plugins.action.acting import perform


@pytest.mark.parametrize(
    ("no_log", "said", "told"),
    [
        (True, {"failed": True, "msg": "lost:\n\x1b[2J"}, [r"web1: lost:\n\x1b[2J"]),
        (True, {"failed": True}, ["web1: unknown"]),
        (True, {"changed": True, "msg": "done"}, []),
        # Ansible shows it.
        (False, {"failed": True, "msg": "lost"}, []),
    ],
)
def test_why_a_task_failed_is_told_where_no_log_hides_it(
    monkeypatch: pytest.MonkeyPatch, no_log: bool, said: dict[str, Any], told: list[str]
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Display, "error", lambda _self, message, **_more: shown.append(message))
    monkeypatch.setattr(ActionModule, "_execute_module", lambda _self, **_more: dict(said))
    monkeypatch.setattr(ActionModule, "_remove_tmp_path", lambda _self, _path: None)
    result = perform(ActionModule, {}, {"inventory_hostname": "web1"}, no_log=no_log)
    assert said.items() <= result.items()
    assert shown == told
