# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""host_info on real hosts."""

from __future__ import annotations

from tests.lab.api import Lab

from .conftest import HOSTS, RunModule

ARGS = {
    "packages": ["restic", "libc6", "nosuch-package"],
    "binaries": ["systemctl", "nosuch-binary"],
    "calendars": ["daily", "Mon..Fri 02:30 Europe/Berlin", "bogus", "2025-01-01", "*-02-30"],
    "resolve": ["localhost", {"address": "nosuch.invalid", "variable": "backup_address"}],
    "files": ["/etc/hostname", "/nosuch"],
    "mounts": ["/proc", "/etc"],
    "running": ["ssh*.service", "systemd-journald.service"],
}


def test_what_a_host_says(lab: Lab, host: str, run_module: RunModule) -> None:
    info = run_module(host, "host_info", {**ARGS, "sandbox_probe": True, "server_sandbox_probe": True})
    assert (info["failed"], info["changed"]) == (False, False)
    suite = next(suite for suite, name in HOSTS.items() if name == host)
    assert info["systemd"] == {"bookworm": 252, "trixie": 257}[suite]
    assert info["packages"]["restic"]["candidate"].startswith({"bookworm": "0.14.0", "trixie": "0.18.0"}[suite])
    assert info["packages"]["libc6"]["installed"] is not None
    assert info["packages"]["nosuch-package"] == {"installed": None, "candidate": None, "versions": []}
    assert info["binaries"]["nosuch-binary"] is None
    assert info["calendars"]["daily"] == {"valid": True, "error": None, "never": False}
    assert (
        info["calendars"]["2025-01-01"] == info["calendars"]["*-02-30"] == {"valid": True, "error": None, "never": True}
    )
    assert info["calendars"]["bogus"]["valid"] is False
    assert info["resolve"]["localhost"]["addresses"]
    assert info["resolve"]["nosuch.invalid"]["error"]
    expected = lab.exec(host, ["sha256sum", "/etc/hostname"], check=True).stdout.split()[0]
    assert info["files"] == {"/etc/hostname": expected, "/nosuch": None}
    assert info["mounts"] == {"/proc": True, "/etc": False}
    assert "systemd-journald.service" in info["running"]
    assert info["sandbox"] == info["server_sandbox"] == {"works": True, "error": None}
    assert info["virtualization"] == "systemd-nspawn"
    assert info["reads_everything"] is True
    assert info["selinux"] is None


def test_a_login_that_is_not_root_is_told_the_cure(lab: Lab, host: str, run_module: RunModule) -> None:
    """Else it would be told to give up the sandbox, which it may not start."""
    info = run_module(host, "host_info", {**ARGS, "sandbox_probe": True}, user="ops")
    assert info["failed"] is True
    assert info["msg"].startswith("ansible_become: Ansible is 'ops' on this host (uid ")
