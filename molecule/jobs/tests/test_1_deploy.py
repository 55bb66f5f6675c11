"""The first run on hosts that know nothing of holdfast."""

from __future__ import annotations

import json

from conftest import HOSTS, Client, starts

from tests.fleet import Fleet


def test_L14_check_mode_passes_on_bare_hosts_and_tells_the_truth(fleet: Fleet) -> None:
    real = fleet.converge()
    assert {host for host, _task in real.changed} == set(HOSTS)


def test_L7_the_deploy_started_no_backup(client: Client) -> None:
    timers = json.loads(client.sh("systemctl list-timers --all --output=json 'holdfast-*'"))
    # Positive control: there is something that could have run.
    assert len(timers) == 22
    assert not starts(client)
    assert client.host.run("ls /var/lib/holdfast/outcomes").stdout == ""
    # A timer that requires its service starts it whenever the timer is started.
    needs = client.sh(f"systemctl show --property=Requires,Wants,BindsTo {' '.join(each['unit'] for each in timers)}")
    assert "Requires=sysinit.target" in needs
    assert "holdfast" not in needs
