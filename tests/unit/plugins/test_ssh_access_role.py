# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role ssh_access makes of its variables."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles/ssh_access"


def faced(name: str, **variables: t.Any) -> t.Any:
    loader = DataLoader()
    known: dict[str, t.Any] = {}
    for part in ("defaults", "vars"):
        known.update(loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True))
    known.update(variables)
    return Templar(loader=loader, variables=known).template(known[name])


def test_one_address_does_not_take_all_logins() -> None:
    """sshd refuses some of everybody's logins from its 11th unfinished one on, and 100 can be had from one address."""
    lines = {each["line"]: each["default"] for each in faced("__ssh_access_startups")}
    assert lines == {"MaxStartups 60:30:100": "10:30:100", "PerSourceMaxStartups 20": "none"}
    # Two addresses leave everybody as many logins as sshd has by itself.
    assert 60 - 2 * 20 >= 10
    assert faced("__ssh_access_startups", ssh_access_max_startups=None, ssh_access_per_source_max_startups=None) == []
    assert [
        each["line"]
        for each in faced("__ssh_access_startups", ssh_access_max_startups="", ssh_access_per_source_max_startups=5)
    ] == ["PerSourceMaxStartups 5"]
    (task,) = [
        task["holdfast.backup.sshd_drop_in"]
        for task in DataLoader().load_from_file(str(ROLE / "tasks/main.yml"))
        if "holdfast.backup.sshd_drop_in" in task
    ]
    assert task["where_default"] == "{{ __ssh_access_startups }}"


def test_what_a_client_did_not_say_in_this_run_is_told_from_what_it_said() -> None:
    keys = [{"repository": "vault", "heard": False}, {"repository": "offsite"}]
    (account,) = faced(
        "__ssh_access_accounts_wanted", ssh_access_accounts=[{"name": "bk-a", "backup_id": "a", "keys": keys}]
    )
    assert [key["heard"] for key in account["keys"]] == [False, True]


def test_dead_clients_are_given_up() -> None:
    """In five minutes, and with their sessions what these hold. What sshd makes of it is seen in molecule/ssh_access."""
    lines = (
        (ROLE / "templates/sshd.conf.j2").read_text().split("Match User bk-*\n")[1].split("Match all")[0].splitlines()
    )
    said = dict(line.split(maxsplit=1) for line in map(str.strip, lines))
    assert (said["ClientAliveInterval"], said["ClientAliveCountMax"]) == ("60", "5")


def test_accounts_do_not_see_what_others_may_do() -> None:
    """Below a directory that everybody may enter, since all of them look for their own there."""
    account = "bk-web1"
    found = faced(
        "__ssh_access_directories",
        ssh_access_definitions=[{"name": "web1--vault", "account": account, "kind": "borg"}],
    )
    directories = {each["path"]: each for each in found}
    assert directories["/etc/holdfast/serve"]["mode"] == "0755"
    own = directories[f"/etc/holdfast/serve/{account}"]
    assert own == {"path": f"/etc/holdfast/serve/{account}", "group": account, "mode": "0750"}


def test_what_rclone_is_told_besides_is_no_right() -> None:
    """Whose rights change loses the backup that runs."""
    definition = {"name": "web1--vault", "account": "bk-web1", "kind": "rclone"}

    def rights(**variables: t.Any) -> str:
        return str(faced("__ssh_access_rights", ssh_access_definitions=[definition], **variables)["web1--vault"])

    assert rights(ssh_access_rclone_arguments=["--bwlimit=1M"]) == rights()
    assert rights(ssh_access_path="/srv/other") != rights()
