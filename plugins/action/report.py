# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the state of the fleet: a table for people, JSON on request, or the answer to a query."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible_collections.holdfast.backup.plugins.plugin_utils import _report, _whole_file

display = Display()


def _was_cut(variables: t.Mapping[str, t.Any]) -> bool:
    """Whether there is what ``-e`` makes of the rest of an expression: words without a ``=`` in one variable, or odd names.

    A host may have delivered facts that are called so.
    """
    given = set(variables) - set(variables.get("ansible_facts") or {})
    return "_raw_params" in given or any(name[:1] in "=[]{}()|&?@'`!<>\"" for name in given if name)


def _keep(path: str, content: bytes, check_mode: bool) -> bool:
    """Write the file that the user asked for; whether it differs from what is there."""
    _whole_file.check_place("output", path)
    differs = not os.path.exists(path) or Path(path).read_bytes() != content
    if not check_mode:
        # Also where it holds the same: somebody else may have made it, for others to read.
        _whole_file.write(path, content)
    return differs


class ActionModule(ActionBase):
    """Runs on the controller only, over what the clients answered before."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Print the table, or return the state."""
        result: dict[str, t.Any] = super().run(tmp, task_vars or {})
        _unused, arguments = self.validate_argument_spec(
            {
                "hosts": {"type": "dict", "required": True},
                "answers": {"type": "dict", "required": True},
                "stale": {"type": "dict", "default": {}},
                "format": {"type": "str", "choices": ["table", "json"], "default": "table"},
                "query": {"type": "str"},
                "output": {"type": "path"},
            }
        )
        # No playbook can ask for it: query is a function of Jinja's, and a host may say anything by a fact of that name.
        query = arguments["query"] or load_extra_vars(self._loader).get("query")
        if query and _was_cut(task_vars or {}):
            raise AnsibleActionFail(
                f"query = {query!r}: is only the beginning of what was given, which Ansible cut at a space."
                """ Write it as JSON: -e '{"query": "hosts.*.units[] | length(@)"}'"""
            )
        state = _report.fleet_state(arguments["hosts"], arguments["answers"], arguments["stale"])
        result.update(changed=False, state=state)
        try:
            if query:
                result["answer"] = _report.search(state, query)
            document = json.dumps(result.get("answer", state), indent=2, sort_keys=True)
            if arguments["output"]:
                content = f"{document}\n".encode()
                result["changed"] = _keep(os.path.abspath(arguments["output"]), content, bool(self._task.check_mode))
        except (ValueError, OSError) as error:
            raise AnsibleActionFail(str(error)) from None
        if query or arguments["format"] == "json":
            display.display(document)
        else:
            for line in ["", *_report.table(state).splitlines(), ""]:
                display.display(line, color=C.COLOR_ERROR if _report.NO_ESCROW in line else None)
        return result
