# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ssh itself makes of the file by which a client dials its server."""

from __future__ import annotations

import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fleet, _templates

TEMPLATES = Path(__file__).parents[3] / "roles/ssh_identity/templates"
pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh")


def repository(address: str) -> dict[str, t.Any]:
    """A repository of borg, as the model has it, on a server with this address."""
    variables = {
        "backup_escrow": {"mode": "none"},
        "backup_repositories": {"archive": {"engine": "borg", "server": "vault1"}},
        "backup_jobs": {"system": {"paths": ["/etc"]}},
    }
    hosts: dict[str, dict[str, t.Any]] = {"vault1": {"backup_address": address}, "web1": variables}
    model = _fleet.fleet(hosts, {"backup_clients": ["web1"], "backup_servers": ["vault1"]})
    assert model["errors"] == []
    return t.cast("dict[str, t.Any]", model["hosts"]["web1"]["client"]["repositories"][0])


def dialled(found: dict[str, t.Any], folder: Path) -> dict[str, str]:
    """Every setting in force."""
    values = {"__repository": found, "__directory": "/etc/holdfast/ssh"}
    file = folder / "conf"
    file.write_text(_templates.environment(str(TEMPLATES)).get_template("conf.j2").render(values))
    argv = ["ssh", "-G", "-F", str(file), found["ssh"]["alias"]]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """In three minutes; who is only slow to answer keeps the session."""
    said = dialled(repository("192.0.2.1"), tmp_path)
    assert int(said["serveraliveinterval"]) * int(said["serveralivecountmax"]) == 180
    assert int(said["connecttimeout"]) == 20


def test_another_address_is_the_same_repository(tmp_path: Path) -> None:
    """For borg, which asks before it opens what it calls relocated, and for the pin of the host key."""
    old, new = repository("192.0.2.1"), repository("2001:db8::1")
    assert old["location"] == new["location"]
    before, after = dialled(old, tmp_path), dialled(new, tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"hostname"}
    assert (before["hostname"], after["hostname"]) == ("192.0.2.1", "2001:db8::1")
    assert after["hostkeyalias"] == "holdfast-archive"
