# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the facade and the roles make of what hosts delivered, which may be anything."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROOT = Path(__file__).parents[3]
FACADE = ROOT / "playbooks/vars/facade.yml"
ESCROW = ROOT / "roles/escrow/vars/main.yml"
USER = {"name": "web1--vault", "host": "web1", "backup_id": "web1", "repository": "vault", "quota": None}


def accounts(client: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    loader = DataLoader()
    variables = loader.load_from_file(str(FACADE), trusted_as_template=True)
    stored = {"rest": {"vault": {"user": "web1--vault", "hash": "stored", "next_hash": None}}, "decommissioned": None}
    variables.update(
        inventory_hostname="vault1",
        hostvars={"web1": client},
        __holdfast_preflight={"hosts": {"vault1": {"server": {"users": [USER]}}}, "known": {"web1": stored}},
    )
    found = Templar(loader=loader, variables=variables).template(variables["rest_server_accounts"])
    return t.cast("list[dict[str, t.Any]]", found)


@pytest.mark.parametrize(
    ("running", "busy"),
    [
        ([], False),
        (["holdfast-system--other.service"], False),
        (["holdfast-system--vault.service"], True),
        (["holdfast-system--vault--pg.service"], True),
        (None, True),
        # A hostile client must not stop the server, and with it everybody.
        (5, True),
        (True, True),
        ([5, None, {"a": 1}], False),
        ({"a": 1}, False),
        ("text", False),
    ],
)
def test_a_clients_running_units(running: t.Any, busy: bool) -> None:
    assert accounts({"__holdfast_host": {"running": running}})[0]["busy"] is busy


@pytest.mark.parametrize(
    "said", [{}, {"__escrow_identity": {"repositories": 5}}, {"__escrow_identity": {"repositories": ["vault"]}}]
)
def test_without_a_hash_of_this_run_the_stored_one_counts(said: dict[str, t.Any]) -> None:
    found = accounts(said)[0]
    assert (found["name"], found["hash"], found["next_hash"]) == ("web1--vault", "stored", None)


def test_the_hash_of_this_run_counts() -> None:
    born = {"__escrow_identity": {"repositories": {"vault": {"rest_hash": "new", "rest_next_hash": "next"}}}}
    assert (accounts(born)[0]["hash"], accounts(born)[0]["next_hash"]) == ("new", "next")


def written(delivered: dict[str, t.Any]) -> dict[str, t.Any]:
    """What of a client's identity goes to the state directory."""
    loader = DataLoader()
    variables = loader.load_from_file(str(ESCROW), trusted_as_template=True)
    variables.update(
        escrow_repositories=[{"name": "vault", "rest_user": "web1--vault"}, {"name": "local", "rest_user": None}],
        __escrow_identity={"repositories": delivered},
    )
    found = Templar(loader=loader, variables=variables).template(variables["__escrow_write"])
    return t.cast("dict[str, t.Any]", found)


def test_a_client_is_kept_under_its_own_name_only() -> None:
    said = {
        "rest_user": "db1--vault",
        "rest_hash": "h",
        "rest_next_hash": None,
        "bundle": "eA==",
        "bundle_name": "b.age",
    }
    local = {"rest_user": None, "rest_hash": None, "bundle": None}
    found = written({"vault": said, "local": local, "undeclared": said})
    assert sorted(found) == ["escrow/vault/b.age", "rest/vault.json"]
    assert found["escrow/vault/b.age"] == {"b64": "eA=="}
    assert json.loads(found["rest/vault.json"]) == {"user": "web1--vault", "hash": "h", "next_hash": None}
    assert written({"undeclared": said}) == {}
