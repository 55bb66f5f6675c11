# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes and reads hand-over files on the controller, as the user who runs Ansible."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.holdfast.backup.plugins.plugin_utils import _handover, _handover_file, _state, _whole_file

Hosts = dict[str, t.Any]


class ActionModule(ActionBase):
    """Tells another controller what it has to know, or keeps what that one told. No module runs on any host."""

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
                "hosts": {"type": "dict", "required": True},
                "export_to": {"type": "path"},
                "import_from": {"type": "path"},
            },
            required_one_of=[["export_to", "import_from"]],
            mutually_exclusive=[["export_to", "import_from"]],
        )
        limited = set(variables.get("ansible_play_hosts_all", []))
        state_dir, hosts = arguments["path"], arguments["hosts"]
        try:
            # Not as the model was computed with: identities may have been made since.
            # What is damaged of a host that this run is about, preflight has refused.
            known = {host: _state.examine_host(state_dir, host)[0] for host in hosts}
            if arguments["export_to"]:
                result.update(self._export(os.path.abspath(arguments["export_to"]), hosts, known, limited))
            elif not variables.get("ansible_limit"):
                raise ValueError(
                    "import_from: also say which hosts this file may speak for, --limit vault1: a server, or clients of one"
                    " administrator. A file about any other host is refused"
                )
            else:
                result.update(self._import(os.path.abspath(arguments["import_from"]), state_dir, hosts, known, limited))
        except (ValueError, OSError) as error:
            raise AnsibleActionFail(str(error)) from None
        return result

    def _export(self, path: str, hosts: Hosts, known: Hosts, limited: set[str]) -> dict[str, t.Any]:
        check_mode = bool(self._task.check_mode)
        _whole_file.check_place("export_to", path)
        document = _handover.offered(hosts, known, limited, check_mode=check_mode)
        content = _handover_file.serialise(document)
        try:
            before = _handover_file.read(path)
            shown = _handover_file.lines(_handover_file.parse(before))
        except (ValueError, OSError):
            # Something else, or nothing yet: it is written anew.
            before, shown = b"", []
        if before != content and not check_mode:
            _whole_file.write(path, content)
        return {"changed": before != content, "diff": _diff(path, shown, _handover_file.lines(document))}

    def _import(self, path: str, state_dir: str, hosts: Hosts, known: Hosts, limited: set[str]) -> dict[str, t.Any]:
        try:
            content = _handover_file.read(path)
        except OSError as error:
            raise ValueError(f"import_from = {path}: cannot be read: {error.strerror}") from None
        try:
            document = _handover_file.parse(content)
            taken = _handover.taken(document, hosts, limited)
        except ValueError as error:
            raise ValueError(f"import_from = {path}: {error}") from None
        before = _handover.before(document, hosts, known)
        changes = []
        # First nothing is written: what one host has in its place must not leave half a file behind.
        for check_mode in (True, bool(self._task.check_mode)):
            changes = [
                _state.update(state_dir, host, write=write, remove=taken.remove.get(host, ()), check_mode=check_mode)
                for host, write in taken.write.items()
            ]
        changed = any(change.written or change.removed or change.directories for change in changes)
        diff = _diff(state_dir, _handover_file.lines(before), _handover_file.lines(document))
        return {"changed": changed, "warnings": taken.notes + _handover.unexpected(document, before), "diff": diff}


def _diff(place: str, before: list[str], after: list[str]) -> dict[str, str]:
    texts = ["".join(f"{line}\n" for line in lines) for lines in (before, after)]
    return {"before": texts[0], "after": texts[1], "before_header": place, "after_header": place}
