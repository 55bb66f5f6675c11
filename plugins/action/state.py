# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the state directory on the controller, as the user who runs Ansible."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.holdfast.backup.plugins.plugin_utils import _state


class ActionModule(ActionBase):
    """Keeps what hosts deliver in the state directory. No module runs on the host."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Check everything, then write; in check mode only compare."""
        variables = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, variables)
        _unused, arguments = self.validate_argument_spec(
            {
                "path": {"type": "str", "required": True},
                "host": {"type": "str"},
                "write": {"type": "dict", "default": {}},
                "remove": {"type": "list", "elements": "str", "default": []},
                "make_fleet_id": {"type": "bool", "default": False},
                "fleet_id": {"type": "str"},
            }
        )
        try:
            _state.check_outside_inventory(arguments["path"], variables.get("ansible_inventory_sources") or [])
            change = _state.update(
                arguments["path"],
                arguments["host"] or variables["inventory_hostname"],
                write=arguments["write"],
                remove=arguments["remove"],
                make_fleet_id=arguments["make_fleet_id"],
                fleet_id=arguments["fleet_id"],
                check_mode=self._task.check_mode,
            )
        except ValueError as error:
            if self._task.no_log:
                # The message holds no secret, and no_log would hide it from the person who needs it.
                self._display.error(f"{variables['inventory_hostname']}: {error}")
            raise AnsibleActionFail(str(error)) from None
        lines = [f"{path}: directory 0700" for path in change.directories]
        lines += [f"{path}: written" for path in change.written] + [f"{path}: absent" for path in change.removed]
        result.update(
            changed=bool(lines),
            written=change.written,
            removed=change.removed,
            fleet_id=change.fleet_id,
            diff={"before": "", "after": "".join(f"{line}\n" for line in lines), "after_header": arguments["path"]},
        )
        return result
