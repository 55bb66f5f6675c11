# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The unit of rest-server, as the role renders it."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.holdfast.backup.plugins.modules import host_info
from ansible_collections.holdfast.backup.plugins.plugin_utils._templates import environment

ROLE = Path(__file__).parents[3] / "roles/rest_server"


def service(**variables: t.Any) -> str:
    """The unit file of the service with the role's defaults and other variables."""
    loader = DataLoader()
    known: dict[str, t.Any] = {}
    for part in ("defaults", "vars"):
        known.update(loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True))
    known.update(variables)
    values = re.findall(r"'(\w+)': ((?:__)?rest_server_[^,}]*)", known["__rest_server_files"])
    templar = Templar(loader=loader, variables=known)
    given = {name: templar.evaluate_expression(trust_as_template(text)) for name, text in values}
    return environment(str(ROLE / "templates")).get_template("rest-server.service.j2").render(given)


def lines(text: str) -> set[str]:
    return {line for line in text.splitlines() if line and not line.startswith("#")}


def test_a_reduced_sandbox_needs_no_mounts() -> None:
    """Where none starts; what keeps it off the network and without capabilities stays."""
    reduced = service(rest_server_sandbox="reduced")
    assert not re.search(r"^(?:\w*Paths|Private\w+|Protect\w+|DevicePolicy)=", reduced, re.MULTILINE)
    assert lines(reduced) < lines(service())
    kept = {"RestrictAddressFamilies=none", "IPAddressDeny=any", "CapabilityBoundingSet=", "User=holdfast-rest"}
    assert kept | {"NoNewPrivileges=yes", "SystemCallFilter=@system-service"} <= lines(reduced)


def test_repositories_below_home_are_all_that_is_seen_of_it() -> None:
    """molecule/rest_server has such a server."""
    inside = lines(service(rest_server_path="/home/backup/repositories"))
    path = "/home/backup/repositories"
    assert {"ProtectHome=tmpfs", f"BindPaths={path}", f"ReadWritePaths={path}", "ProtectSystem=strict"} <= inside
    for elsewhere in ("/srv/holdfast", "/home2/holdfast", "/srv/home/holdfast"):
        assert "ProtectHome=yes" in lines(service(rest_server_path=elsewhere))
        assert "BindPaths=" not in service(rest_server_path=elsewhere)


def test_what_host_info_tries_is_what_a_reduced_sandbox_gives_up() -> None:
    given_up = lines(service()) - lines(service(rest_server_sandbox="reduced"))
    assert set(host_info.SERVER_SANDBOX) == given_up - {"ReadWritePaths=/srv/holdfast"}
