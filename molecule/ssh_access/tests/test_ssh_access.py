# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many clients in one execution, and what is guaranteed of each of them."""

from __future__ import annotations

import json

import pytest

from tests.attack.ssh_cases import (
    ATTACKS,
    test_a_line_inserted_by_hand,  # noqa: F401 - runs here
    test_both_layers_are_there,  # noqa: F401
    test_each_key_runs_its_one_command,  # noqa: F401
    test_maintenance_locks_out,  # noqa: F401
    test_nothing_that_sshd_reads_can_be_written,  # noqa: F401
    test_revocation_ends_sessions_and_keeps_data,  # noqa: F401
    test_sftp_reaches_its_own_directory_only,  # noqa: F401
)
from tests.attack.ssh_side import CLIENTS, CONTROL, Side

# The rest is `make attack`'s.
SOME = ["command", "terminal", "Unix socket (-L)", "listen on the server (-R)"]


def test_all_clients_are_there(vaults: dict[str, Side]) -> None:
    for side in vaults.values():
        assert int(side.on_server("cat /etc/ssh/authorized_keys.d/bk-* | wc -l")) == 500 + len(CLIENTS)
        accounts = [line.split(":") for line in side.on_server("getent passwd | grep ^bk-").splitlines()]
        assert len({account[2] for account in accounts}) == 500 + len(CLIENTS)
        assert {account[5] for account in accounts} == {"/var/lib/holdfast/home"}
        assert set(side.on_server("grep ^bk- /etc/shadow | cut -d: -f2").split()) == {"*"}
        manifest = json.loads(side.on_server("cat /var/lib/holdfast/ssh_accounts.json"))
        assert len(manifest["accounts"]) == 500 + len(CLIENTS)
        assert side.served()
        assert side.served("bk-victim", "victim")


@pytest.mark.parametrize("name", SOME)
def test_the_client_cannot_and_others_can(side: Side, name: str) -> None:
    assert ATTACKS[name](side, CONTROL), "the attack was not delivered"
    assert not ATTACKS[name](side, "bk-web1")
