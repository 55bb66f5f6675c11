"""Calls an action plugin as Ansible's task executor does."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase


def perform(
    plugin: type[ActionBase], args: dict[str, Any], variables: dict[str, Any] | None = None, **keys: Any
) -> dict[str, Any]:
    """The plugin's result for a task with these arguments and other keys; nothing may ever run on the host."""
    task = Task()
    task.action = f"holdfast.backup.{plugin.__module__.rpartition('.')[2]}"
    task.args = args
    for key, value in {"check_mode": False, "async_val": 0, **keys}.items():
        setattr(task, key, value)
    connection = MagicMock()
    connection._shell.tmpdir = "/nonexistent"
    module = plugin(task, connection, MagicMock(), MagicMock(), MagicMock(), MagicMock())
    result: dict[str, Any] = module.run(task_vars=variables or {})
    assert not connection.exec_command.called
    assert not connection.put_file.called
    return result
