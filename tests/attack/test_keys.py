# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The attacks over SSH with the keys that a client has from the playbook, one of each kind of repository."""

from __future__ import annotations

import time

import pytest

from .fleet_side import Protected
from .ssh_side import Side
from .test_ssh import ATTACKS, refused

# What each key runs.
KEYS = {"proxy": "serve restic", "archive": "borg serve", "files": "sftp-server"}
# What a key is for is no attack.
TRIED = [(name, attack) for name in KEYS for attack in ATTACKS if (name, attack) != ("files", "sftp")]


@pytest.fixture(scope="module")
def keys(protected: Protected) -> dict[str, Side]:
    """The fleet's server, permissive to everybody else, and its client with each of the keys, which are good for those, too."""
    lab = protected.fleet.lab
    sides = {name: Side(lab, "vault1", "web1", protected.fleet.inventory(), key=name) for name in KEYS}
    for name, side in sides.items():
        protected.sh(
            "web1",
            f"mkdir -p -m 700 /root/keys; cd /root/keys; install -m 600 /etc/holdfast/secrets/{name}.ssh_key {name};"
            f" ssh-keygen -y -f {name} | awk '{{ print $1, $2, \"{name}\" }}' >{name}.pub",
        )
        side.permit()
    return sides


@pytest.mark.parametrize("name", KEYS)
def test_each_key_runs_its_one_command(keys: dict[str, Side], name: str) -> None:
    side = keys[name]
    assert side.served()
    with side.open("bk-web1", "ACCOUNT id", until=lambda: side.serves("bk-web1")):
        # What `serve` becomes has another command line for a moment.
        for _dummy in range(50):
            lines = [line for line in side.processes("bk-web1") if any(word in line for word in KEYS.values())]
            if lines:
                break
            time.sleep(0.1)
        assert lines
        assert all(KEYS[name] in line and f"/web1--{name}" in line for line in lines), lines


@pytest.mark.parametrize(("name", "attack"), TRIED)
def test_only_the_account_that_may(protected: Protected, keys: dict[str, Side], name: str, attack: str) -> None:
    with protected.kept("proxy"), protected.kept("archive"):
        refused(keys[name], attack)
