# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of this collection, and believes of its result what a host may say; meta/runtime.yml leads here."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.holdfast.backup.plugins.module_utils._program import text
from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered


class ActionModule(ActionBase):
    """The module of the task, with a checked result."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module on the host; one error for that host where it says what the module never says."""
        variables = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, variables)
        try:
            said = self._execute_module(task_vars=variables)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        module = str(self._task.action).rpartition(".")[2]
        try:
            result.update(_delivered.accept(module, said, check_mode=self._task.check_mode))
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from None
        if self._task.no_log and result.get("failed"):
            # No message of a module of ours holds a secret, and no_log would hide it from the person who needs it.
            self._display.error(
                f"{variables['inventory_hostname']}: {text.one_line(str(result.get('msg', 'unknown')))}"
            )
        if self._discovered_interpreter_key:
            # Found by the controller: without it every task would look for Python again.
            result["ansible_facts"] = {self._discovered_interpreter_key: self._discovered_interpreter}
        return result
