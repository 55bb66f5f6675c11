# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin escrow_read."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display
from ansible_collections.holdfast.backup.plugins.action.escrow_read import ActionModule

from tests.unit.plugins.action.acting import perform

act = partial(perform, ActionModule)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    place = tmp_path / "hosts" / "web1" / "escrow" / "vault"
    place.mkdir(parents=True)
    (place / ("0" * 32 + ".json")).write_text(json.dumps({"password": "geheim"}))
    return tmp_path


def test_secrets(state: Path) -> None:
    args = {"path": str(state), "repositories": ["vault"]}
    wanted = {"vault": {"password": "geheim"}}
    assert act(args, {"inventory_hostname": "web1"}, no_log=True)["secrets"] == wanted
    assert act({**args, "host": "web1"}, {"inventory_hostname": "other"}, no_log=True)["secrets"] == wanted


def test_no_log_is_asked_for(state: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="no_log: true"):
        act({"path": str(state), "repositories": ["vault"]}, {"inventory_hostname": "web1"}, no_log=False)


def test_what_the_host_never_had_is_told(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, message, **_more: said.append(message))
    args = {"path": str(state), "repositories": ["vault", "later", "last"]}
    assert set(act(args, {"inventory_hostname": "web1"}, no_log=True)["secrets"]) == {"vault"}
    assert said == [
        "web1: the state directory knows nothing of later, last: this host never had it, or another state directory did"
    ]


def test_a_missing_bundle_is_told(state: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="no escrow bundle of other"):
        act({"path": str(state), "repositories": ["other"]}, {"inventory_hostname": "web1"}, no_log=True)


def test_which_bundle_is_taken(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, message, **_more: said.append(message))
    forged = state / "hosts/web1/escrow/vault" / ("1" * 32 + ".json")
    forged.write_text(json.dumps({"password": "forged", "made": 5}))
    args = {"path": str(state), "repositories": ["vault"]}
    assert act(args, {"inventory_hostname": "web1"}, no_log=True)["secrets"]["vault"]["password"] == "forged"
    (told,) = said
    assert told.startswith("web1: vault: its escrow bundles hold different passwords")
    taken = act({**args, "bundles": "0" * 32 + ".json"}, {"inventory_hostname": "web1"}, no_log=True)
    assert taken["secrets"] == {"vault": {"password": "geheim"}}
    assert len(said) == 1
