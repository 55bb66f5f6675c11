"""The hosts are whole systems: what every other scenario builds on."""

from __future__ import annotations

from typing import Any

import pytest

NAMES = ["vault1", "web1", "six"]


def test_systemd_is_running(host: Any) -> None:
    done = host.run("systemctl is-system-running")
    assert done.stdout.strip() == "running", host.run("systemctl --failed; journalctl -p 4 --no-pager").stdout


@pytest.mark.parametrize("name", NAMES)
def test_hosts_of_the_lab_answer_by_name(host: Any, name: str) -> None:
    assert host.run("timeout 5 bash -c 'exec 3<>/dev/tcp/%s/22; head -c 4 <&3'", name).stdout == "SSH-"


def test_units_are_confined_like_on_a_real_host(host: Any) -> None:
    """A rule about addresses is enforced, not only accepted."""
    connect = "timeout 2 bash -c 'exec 3<>/dev/tcp/vault1/22'"
    unit = "systemd-run --quiet --wait --pipe --property=DynamicUser=yes"
    assert host.run(f"{unit} {connect}").rc == 0
    assert host.run(f"{unit} --property=IPAddressDeny=any {connect}").rc != 0
