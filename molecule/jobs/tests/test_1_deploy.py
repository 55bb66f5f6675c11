"""The first run on hosts that know nothing of holdfast."""

from __future__ import annotations

import json

import pytest
from conftest import HOSTS

from tests.fleet import Fleet


def test_L14_check_mode_passes_on_bare_hosts_and_tells_the_truth(fleet: Fleet) -> None:
    real = fleet.converge()
    assert {host for host, _task in real.changed} == set(HOSTS)


@pytest.mark.parametrize("name", HOSTS)
def test_L7_the_deploy_started_no_backup(fleet: Fleet, name: str) -> None:
    host = fleet.on(name)
    # Positive control: there is something that could have run.
    assert (
        len(host.check_output("systemctl list-unit-files --plain --no-legend 'holdfast-*--*.timer'").splitlines()) > 20
    )
    services = host.check_output("systemctl show --property=Id,InvocationID,ActiveState 'holdfast-*--*.service'")
    assert "ActiveState=active" not in services
    assert host.run("ls /var/lib/holdfast/outcomes").stdout == ""
    for line in services.splitlines():
        assert line == "InvocationID=" or not line.startswith("InvocationID="), services
    # A timer that requires its service starts it whenever the timer is started.
    for unit in json.loads(host.check_output("systemctl list-timers --all --output=json 'holdfast-*'")):
        wants = host.check_output(f"systemctl show --value --property=Requires,Wants,BindsTo {unit['unit']}")
        assert "holdfast" not in wants
