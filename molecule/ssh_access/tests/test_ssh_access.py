# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many clients in one execution, and what is guaranteed of each of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.attack import test_ssh as attacks
from tests.attack.ssh_side import CLIENTS, Side

# They run here too; the rest is `make attack`'s.
test_a_line_inserted_by_hand = attacks.test_a_line_inserted_by_hand
test_both_layers_are_there = attacks.test_both_layers_are_there
test_each_key_runs_its_one_command = attacks.test_each_key_runs_its_one_command
test_hostile_public_keys_stop_nobody = attacks.test_hostile_public_keys_stop_nobody
test_maintenance_locks_out = attacks.test_maintenance_locks_out
test_nothing_that_sshd_reads_can_be_written = attacks.test_nothing_that_sshd_reads_can_be_written
test_revocation_ends_sessions_and_keeps_data = attacks.test_revocation_ends_sessions_and_keeps_data
test_sftp_reaches_its_own_directory_only = attacks.test_sftp_reaches_its_own_directory_only
test_who_comes_again_and_again_stops_nobody = attacks.test_who_comes_again_and_again_stops_nobody
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


def test_dead_clients_are_given_up(vaults: dict[str, Side]) -> None:
    """Who lost power says nothing any more, and its session would stay, with what it holds, for hours."""
    for side in vaults.values():
        settings = side.on_server("sshd -T -C user=bk-web1,host=h,addr=192.0.2.1").splitlines()
        assert {"clientaliveinterval 60", "clientalivecountmax 5"} <= set(settings)
        # And connections that nothing runs in, of which what counts sessions knows nothing.
        assert {"maxsessions 1", "unusedconnectiontimeout 20"} <= set(settings)


@pytest.mark.parametrize("name", SOME)
def test_the_client_cannot_and_others_can(side: Side, name: str) -> None:
    with side.unchanged():
        attacks.refused(side, name)


def test_who_may_do_less_has_to_come_again(side: Side, everybody: Callable[..., dict[str, Any]]) -> None:
    """Of one that may delete, and becomes append-only."""
    attacks.test_who_may_do_less_has_to_come_again(side, everybody, "kind")
