# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the escrow of one host on the controller."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.holdfast.backup.plugins.plugin_utils import _escrow_read, _state


class ActionModule(ActionBase):
    """Returns secrets: the task has to say no_log."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Open the newest bundle of each repository, or the one that is asked for."""
        variables = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, variables)
        _unused, arguments = self.validate_argument_spec(
            {
                "path": {"type": "str", "required": True},
                "host": {"type": "str"},
                "backup_id": {"type": "str"},
                "key": {"type": "str", "no_log": False},
                "bundles": {"type": "list", "elements": "str", "default": []},
                "repositories": {"type": "list", "elements": "str", "required": True},
            }
        )
        if not self._task.no_log:
            raise AnsibleActionFail("escrow_read returns secrets: set no_log: true on its task")
        host = arguments["host"] or variables["inventory_hostname"]
        directory = os.path.join(arguments["path"], "hosts", _state.host_directory(host))
        try:
            secrets, told = _escrow_read.secrets_of(
                directory,
                arguments["repositories"],
                arguments["key"],
                arguments["backup_id"],
                bundles=arguments["bundles"],
            )
        except (ValueError, OSError) as error:
            # The message holds no secret, and no_log would hide it from the person who needs it.
            self._display.error(f"{host}: {error}")
            raise AnsibleActionFail(str(error)) from None
        for words in told:
            self._display.warning(f"{host}: {words}")
        never = [name for name in arguments["repositories"] if name not in secrets]
        if never:
            self._display.warning(
                f"{host}: the state directory knows nothing of {', '.join(never)}: this host never had it, or another state directory did"
            )
        result.update(changed=False, secrets=secrets)
        return result
