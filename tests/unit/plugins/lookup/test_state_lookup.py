# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup plugin state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleLookupError
from ansible_collections.holdfast.backup.plugins.lookup.state import LookupModule
from ansible_collections.holdfast.backup.plugins.plugin_utils import _state

REST = {"user": "web1--vault", "hash": "$2b$12$" + "a" * 53, "next_hash": None}


class Lookup(LookupModule):
    """The plugin without Ansible's configuration, which knows options of loaded collections only."""

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        self._direct = direct

    def get_option(self, option: str, hostvars: Any = None) -> Any:
        return self._direct[option]


def look(*hosts: str, path: str) -> list[dict[str, Any]]:
    return Lookup().run(list(hosts), variables={}, path=path)


def test_one_dictionary_for_each_host(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    fleet_id = _state.update(path, "web1", write={"rest/vault.json": REST}, make_fleet_id=True).fleet_id
    first, second = look("web1", "web2", path=path)
    assert first["fleet_id"] == second["fleet_id"] == fleet_id
    assert first["rest"] == {"vault": REST}
    assert second["rest"] == {}


def test_a_missing_directory_is_empty() -> None:
    assert look("web1", path="/nonexistent") == [
        {"fleet_id": None, "rest": {}, "ssh": {}, "escrow": {}, "identities": {}}
        | {"ca": None, "ssh_host_keys": [], "rendered": None, "ssh_rendered": None, "decommissioned": None}
    ]


def test_bad_paths_and_contents_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError, match="not absolute"):
        look("web1", path="state")
    (tmp_path / "fleet.json").write_text("{")
    with pytest.raises(AnsibleLookupError, match=r"fleet\.json"):
        look("web1", path=str(tmp_path))
