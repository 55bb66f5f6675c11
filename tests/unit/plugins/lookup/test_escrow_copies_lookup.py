# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup plugin escrow_copies."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.lookup.escrow_copies import LookupModule
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.plugin_utils import _state

from tests.unit.plugins.plugin_utils.test_delivered import IDENTITY

FIRST, SECOND, THIRD = (f"{digit * 32}-{'a' * 16}.age" for digit in "012")
AGE = b"age-encryption.org/v1\n"
CLIENT = {"client": {"escrow": {"mode": "age"}}}
HOSTS: dict[str, Any] = {
    "web1": CLIENT,
    "web2": CLIENT,
    "web3": {"client": {"escrow": {"mode": "controller"}}},
    "vault1": {
        "server": {
            "users": [
                {"host": "web1", "backup_id": "web1", "repository": "vault"},
                {"host": "web3", "backup_id": "web3", "repository": "vault"},
            ],
            "ssh": {"accounts": [{"host": "web2", "backup_id": "web-2", "keys": [{"repository": "archive"}]}]},
        }
    },
}


class Lookup(LookupModule):
    """The plugin without Ansible's configuration, which knows options of loaded collections only."""

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        self._direct = direct

    def get_option(self, option: str, hostvars: Any = None) -> Any:
        return self._direct[option]


@pytest.fixture
def state(tmp_path: Path) -> str:
    path = str(tmp_path / "state")
    sealed = {"b64": base64.b64encode(AGE + b"1").decode()}
    _state.update(path, "web1", write={f"escrow/vault/{name}": sealed for name in (FIRST, SECOND)})
    _state.update(path, "web2", write={f"escrow/{name}/{FIRST}": sealed for name in ("archive", "elsewhere")})
    _state.update(path, "web3", write={f"escrow/vault/{'3' * 32}.json": {"password": "x"}})
    return path


def look(state: str, there: dict[str, list[str]] | None = None, **variables: Any) -> dict[str, str]:
    (found,) = Lookup().run(["vault1"], variables=variables, path=state, hosts=HOSTS, there=there or {})
    return found


def test_what_is_missing_of_what_the_server_holds(state: str) -> None:
    found = look(state)
    # No bundle in plaintext, and none of a repository that is somewhere else.
    assert list(found) == [f"web-2--archive/{FIRST}", f"web1--vault/{FIRST}", f"web1--vault/{SECOND}"]
    assert set(map(base64.b64decode, found.values())) == {AGE + b"1"}
    there = {"web1--vault": [FIRST], "web-2--archive": [FIRST]}
    assert list(look(state, there)) == [f"web1--vault/{SECOND}"]
    assert look(state, there | {"web1--vault": [FIRST, SECOND]}) == {}


def test_check_mode_names_what_the_real_run_makes(state: str) -> None:
    born = copy.deepcopy(IDENTITY)
    hostvars = {"web1": {"__escrow_identity": born}}
    for name in (THIRD, UNBORN):
        born["repositories"]["vault"]["bundle_name"] = name
        assert look(state, hostvars=hostvars, ansible_check_mode=True)[f"web1--vault/{name}"] == ""
        assert f"web1--vault/{name}" not in look(state, hostvars=hostvars)


@pytest.mark.parametrize("damage", ["", "version https://git-lfs.github.com/spec/v1", None])
def test_a_damaged_bundle_is_told_and_keeps_no_other_from_its_copy(
    state: str, damage: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(state, "hosts/web1/escrow/vault", FIRST)
    bundle.unlink()
    if damage is None:
        bundle.symlink_to(SECOND)
    else:
        bundle.write_text(damage)
    told: list[str] = []
    monkeypatch.setattr("ansible.plugins.lookup.display.warning", told.append)
    for check in (True, False):
        assert list(look(state, ansible_check_mode=check)) == [f"web-2--archive/{FIRST}", f"web1--vault/{SECOND}"]
    assert len(told) == 2
    assert FIRST in told[0]
    assert "vault1 gets no copy of it" in told[0]


def test_a_damaged_directory_keeps_no_other_client_from_its_copies(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(state, "hosts/web2/escrow/archive")
    (folder / FIRST).unlink()
    folder.rmdir()
    folder.symlink_to("/etc")
    told: list[str] = []
    monkeypatch.setattr("ansible.plugins.lookup.display.warning", told.append)
    assert list(look(state)) == [f"web1--vault/{FIRST}", f"web1--vault/{SECOND}"]
    assert [("is a link" in words, "vault1 gets no copy of it" in words) for words in told] == [(True, True)]
