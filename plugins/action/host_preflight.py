# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at a host with host_info, and judges what it delivers, in one task: each task more is one more for every host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered, _host
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import shorten


def _needs(client: dict[str, t.Any] | None) -> dict[str, list[str]]:
    """What a client's jobs and repositories need of their host, as options of host_info."""
    jobs, repositories = (client["jobs"].values(), client["repositories"]) if client else ((), ())
    return {
        "calendars": sorted({job["schedule"]["calendar"] for job in jobs}),
        # A proxy resolves for itself, where this host perhaps cannot.
        "resolve": sorted({each["address"] for each in repositories if each["address"] and not each.get("proxy")}),
        "mounts": sorted({repository["mount"] for repository in repositories if repository["mount"]}),
    }


class ActionModule(ActionBase):
    """Runs the module host_info, and weighs what it brought."""

    _supports_check_mode = True
    _supports_async = False

    def _look(self, look: dict[str, t.Any], variables: dict[str, t.Any]) -> dict[str, t.Any]:
        said = self._execute_module(module_name="holdfast.backup.host_info", module_args=look, task_vars=variables)
        try:
            return _delivered.accept("host_info", said, check_mode=self._task.check_mode)
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from None

    def _fetch_lists(self, variables: dict[str, t.Any]) -> None:
        """Let apt know what there is: on a new host nothing could be judged, and no package be found."""
        done = self._execute_module(
            module_name="ansible.builtin.apt", module_args={"update_cache": True}, task_vars=variables
        )
        if done.get("failed"):
            raise AnsibleActionFail(
                f"apt has no package lists on this host, and apt update failed: {shorten(str(done.get('msg')))}"
            )

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """What host_info saw, with `inventory_problems`. Fails for what the host itself does not deliver."""
        variables = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, variables)
        _unused, arguments = self.validate_argument_spec(
            {
                "look": {"type": "dict", "required": True},
                **{name: {"type": "dict"} for name in ("tool", "server")},
                "revoke_only": {"type": "bool", "default": False},
            }
        )
        host = str(variables["inventory_hostname"])
        # Taken as it is: as an option it would be templated, down to each path of each job.
        client = variables["__holdfast_preflight"]["hosts"][host]["client"]
        if arguments["revoke_only"]:
            # What it is besides keeps nobody their access.
            client = None
        tool, server = arguments["tool"] or {}, arguments["server"] or None
        look = {**arguments["look"], **_needs(client), "places": _host.places_to_see(client, tool, server)}
        look["subvolumes"] = _host.subvolumes_to_see(server)
        try:
            seen = self._look(look, variables)
            if seen.get("apt_lists") is False and not self._task.check_mode and not arguments["revoke_only"]:
                self._fetch_lists(variables)
                seen = {**self._look(look, variables), "changed": True}
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        result.update(seen)
        if self._discovered_interpreter_key:
            # Found by the controller: without it every task would look for Python again.
            result["ansible_facts"] = {self._discovered_interpreter_key: self._discovered_interpreter}
        if result.get("failed"):
            return {**result, "msg": f"nothing was changed on this host:\n- {host}: {result.get('msg')}"}
        check = bool(self._task.check_mode)
        judged = seen
        if arguments["revoke_only"]:
            # Where a role fails for one of these, what lost access is taken away all the same.
            judged = {**seen, "sandbox": None, "server_sandbox": None, "apt_lists": None}
            server = {**server, "quotas": []} if server else None
        found = _host.host_problems(judged, variables["ansible_facts"], client, tool, host, server, check)
        # What is wrong with the inventory stops every host, and comes first.
        result["inventory_problems"] = _host.inventory_problems(judged, client, tool, server, host)
        if arguments["revoke_only"]:
            # But no other server may go on letting somebody in for it.
            found["errors"] += result["inventory_problems"]
            result["inventory_problems"] = []
        if seen.get("apt_lists") is False and check:
            result["packages"] = _host.unforeseen(seen, tool)
        result["warnings"] = [*result.get("warnings", []), *found["warnings"]]
        if found["errors"] and not result["inventory_problems"]:
            result.update(failed=True, msg="\n- ".join(["nothing was changed on this host:", *found["errors"]]))
        return result
