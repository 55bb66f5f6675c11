# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles make of what hosts delivered, which may be anything."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROOT = Path(__file__).parents[3]
ESCROW = ROOT / "roles/escrow/vars/main.yml"


def written(delivered: dict[str, t.Any]) -> dict[str, t.Any]:
    """What of a client's identity goes to the state directory."""
    loader = DataLoader()
    variables = loader.load_from_file(str(ESCROW), trusted_as_template=True)
    variables.update(
        escrow_repositories=[
            {"name": "vault", "rest_user": "web1--vault", "ssh": None},
            {"name": "local", "rest_user": None, "ssh": None},
            {"name": "offsite", "rest_user": None, "ssh": {"account": "bk-web1"}},
        ],
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


def test_public_keys_are_kept_one_a_line() -> None:
    said = {"ssh_public_key": "ssh-ed25519 A", "ssh_next_public_key": None}
    # A repository of another access has no key, whatever its host says.
    found = written({"offsite": said, "vault": said})
    assert found == {"ssh/offsite.pub": "ssh-ed25519 A\n"}
    found = written({"offsite": {**said, "ssh_next_public_key": "ssh-ed25519 B"}})
    assert found == {"ssh/offsite.pub": "ssh-ed25519 A\nssh-ed25519 B\n"}
    assert written({"offsite": {"ssh_public_key": None}}) == {}
