# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deploy never starts a backup: timers, stamps and reloads on real hosts."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.api import Lab

from .conftest import RunModule

NAME = "hf-probe"
TIMER = f"{NAME}.timer"
SERVICE = f"{NAME}.service"
LOG = "/var/lib/hf-probe.log"
STAMP = f"/var/lib/systemd/timers/stamp-{TIMER}"


class Host:
    """One host with a job that writes a line each time it runs."""

    def __init__(self, lab: Lab, name: str, run_module: RunModule) -> None:
        self.lab, self.name, self.run_module = lab, name, run_module
        # A daily calendar that does not come round while a test runs.
        self.far = self.now(12 * 3600)

    def sh(self, script: str) -> str:
        return self.lab.exec(self.name, ["sh", "-c", script], check=True).stdout

    def runs(self) -> int:
        time.sleep(2.5)  # a timer fires within its accuracy of a second
        return int(self.sh(f"cat {LOG} 2>/dev/null | wc -l"))

    def now(self, offset: int) -> str:
        """A daily calendar at the host's time of day, offset seconds from now."""
        return self.sh(f"date -d @$(($(date +%s) + {offset})) '+*-*-* %H:%M:%S'").strip()

    def files(
        self, calendar: str, *, command: str = f"echo ran >> {LOG}", check: bool = False, jobs: bool = True
    ) -> dict[str, Any]:
        timer = f"[Timer]\nOnCalendar={calendar}\nPersistent=true\nAccuracySec=1s\n[Install]\nWantedBy=timers.target\n"
        service = f"[Service]\nType=oneshot\nExecStart=/bin/sh -c '{command}'\n"
        files = [
            {"path": f"/etc/systemd/system/{TIMER}", "content": timer, "validate": "systemd-unit"},
            {"path": f"/etc/systemd/system/{SERVICE}", "content": service, "validate": "systemd-unit"},
        ]
        return self.module("file_tree", {"namespace": "probe", "files": files if jobs else []}, check=check)

    def module(self, name: str, args: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        result = self.run_module(self.name, name, args, check=check)
        assert not result["failed"], result
        return result

    def units(self, written: dict[str, Any] | None = None, *, check: bool = False, **args: Any) -> dict[str, Any]:
        changed = written["created"] + written["changed_files"] + written["removed"] if written else []
        units = [{"name": TIMER, "state": "started"}]
        return self.module(
            "units", {"namespace": "probe", "units": units, "changed_files": changed, **args}, check=check
        )

    def clean(self) -> None:
        self.sh(
            f"systemctl stop {TIMER} {SERVICE} 2>/dev/null; systemctl disable {TIMER} 2>/dev/null;"
            f"rm -f /etc/systemd/system/hf-* {STAMP} {LOG} /var/lib/holdfast/*/probe.json; systemctl daemon-reload;"
            f"systemctl reset-failed"
        )


@pytest.fixture
def probe(lab: Lab, host: str, run_module: RunModule) -> Iterator[Host]:
    made = Host(lab, host, run_module)
    made.clean()
    yield made
    made.clean()


def facts(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("diff", "invocation")}


def test_fresh_host_check_real_again(probe: Host) -> None:
    announced = probe.files(probe.far, check=True)
    announced_units = probe.units(announced, check=True)
    written = probe.files(probe.far)
    assert facts(written) == facts(announced)
    real = probe.units(written)
    assert facts(real) == facts(announced_units)
    assert real["started"] == real["enabled"] == [TIMER]
    assert real["daemon_reload"]
    assert probe.sh(f"systemctl is-enabled {TIMER}; systemctl is-active {TIMER}").split() == ["enabled", "active"]
    assert not probe.files(probe.far)["changed"]
    assert not probe.units()["changed"]
    assert not probe.units(check=True)["changed"]


def test_changed_calendar_just_passed_does_not_fire(probe: Host) -> None:
    probe.units(probe.files(probe.far))
    probe.sh(f"touch -d '2 days ago' {STAMP}; systemctl restart {TIMER}")
    baseline = probe.runs()  # positive control: the restart with an old stamp catches up, so the job can run
    assert baseline == 1
    written = probe.files(probe.now(-2))
    announced = probe.units(written, check=True)
    result = probe.units(written)
    assert facts(result) == facts(announced)
    assert result["restarted"] == [TIMER]
    assert probe.runs() == baseline


def test_positive_control_plain_reload_fires(probe: Host) -> None:
    """The same change with nothing but daemon-reload starts the job: what we guard against is real."""
    probe.units(probe.files(probe.far))
    before = probe.runs()
    probe.files(probe.now(-1))
    probe.sh("systemctl daemon-reload")
    assert probe.runs() == before + 1


def test_killed_between_files_and_units_does_not_fire(probe: Host) -> None:
    """The list of changed files is lost; systemd knows that it has not read them."""
    probe.units(probe.files(probe.far))
    before = probe.runs()
    probe.files(probe.now(-2))
    result = probe.units()
    assert result["restarted"] == [TIMER]
    assert result["daemon_reload"]
    assert probe.runs() == before


def test_timer_of_another_namespace_does_not_fire_by_our_reload(probe: Host) -> None:
    probe.units(probe.files(probe.far))
    before = probe.runs()
    probe.files(probe.now(-2))
    result = probe.module("units", {"namespace": "other", "daemon_reload": "always"})
    assert result["restarted"] == [TIMER]
    assert probe.runs() == before


def test_timer_stopped_for_a_week_does_not_fire(probe: Host) -> None:
    probe.units(probe.files(probe.far))
    probe.sh(f"systemctl stop {TIMER}; touch -d '7 days ago' {STAMP}")
    assert probe.units()["started"] == [TIMER]
    assert probe.runs() == 0


def test_job_removed_and_declared_again_does_not_fire(probe: Host) -> None:
    probe.units(probe.files(probe.far))
    retire: dict[str, Any] = {"units": [], "phase": "retire", "retire_absent": True}
    announced = probe.units(check=True, **retire)
    retired = probe.units(**retire)
    assert facts(retired) == facts(announced)
    assert retired["retired"] == retired["disabled"] == retired["stopped"] == [TIMER]
    removed = probe.files(probe.far, jobs=False)
    assert sorted(removed["removed"]) == [f"/etc/systemd/system/{SERVICE}", f"/etc/systemd/system/{TIMER}"]
    gone = probe.units(removed, units=[], phase="converge")
    assert gone["daemon_reload"]
    assert probe.sh(f"systemctl show -p LoadState --value {TIMER}").strip() == "not-found"
    assert not probe.units(units=[], retire_absent=True)["changed"]
    probe.sh(f"touch -d '7 days ago' {STAMP}")
    assert probe.units(probe.files(probe.far))["started"] == [TIMER]
    assert probe.runs() == 0


def test_unchanged_running_timer_is_not_touched_and_catches_up(probe: Host) -> None:
    probe.units(probe.files(probe.far))
    entered = f"systemctl show -p ActiveEnterTimestampMonotonic --value {TIMER}; stat -c %y {STAMP}"
    before = probe.sh(entered)
    assert not probe.units()["changed"]
    assert probe.module("units", {"namespace": "other", "daemon_reload": "always"})["daemon_reload"]
    assert probe.sh(entered) == before


def test_boot_catches_up_after_a_deploy(probe: Host) -> None:
    """The stamp is only set aside by a deploy; what is missed while the host is down is caught up."""
    probe.units(probe.files(probe.far))
    assert probe.runs() == 0
    probe.sh(f"touch -d '2 days ago' {STAMP}")
    probe.lab.restart(probe.name)
    assert probe.runs() == 1


def test_running_service_of_a_retired_timer_is_waited_for(probe: Host) -> None:
    probe.units(probe.files(probe.far, command=f"sleep 30; echo ran >> {LOG}"))
    probe.sh(f"systemctl start --no-block {SERVICE}; sleep 0.5")
    retire: dict[str, Any] = {"units": [], "phase": "retire", "retire_absent": True}
    result = probe.run_module(probe.name, "units", {"namespace": "probe", "wait": 1, **retire})
    assert result["failed"]
    assert SERVICE in result["msg"]
    assert "raise wait" in result["msg"]
    assert probe.sh(f"systemctl show -p ActiveState --value {SERVICE}").strip() == "activating"
    assert probe.units(**retire)["waited_for"] == [SERVICE]
    assert probe.sh(f"cat {LOG}").split() == ["ran"]


def test_failure_names_the_unit_and_shows_its_journal(probe: Host) -> None:
    text = "[Service]\nExecStartPre=/bin/sh -c 'echo the reason; exit 7'\nExecStart=/bin/sleep 60\n[Install]\nWantedBy=multi-user.target\n"
    content = base64.b64encode(text.encode()).decode()
    files = [{"path": "/etc/systemd/system/hf-broken.service", "content_base64": content}]
    written = probe.module("file_tree", {"namespace": "probe", "files": files})
    args = {
        "namespace": "probe",
        "units": [{"name": "hf-broken.service", "state": "started"}],
        "changed_files": written["created"],
    }
    result = probe.run_module(probe.name, "units", args)
    assert result["failed"]
    assert "hf-broken.service did not start" in result["msg"]
    assert "the reason" in result["msg"]
    probe.sh("systemctl disable hf-broken.service")


def test_service_and_socket(probe: Host) -> None:
    service = "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    socket = "[Socket]\nListenStream=/run/hf-probe.sock\n[Install]\nWantedBy=sockets.target\n"

    def declare(config: str, socket: str = socket) -> dict[str, Any]:
        files = [
            {"path": "/etc/systemd/system/hf-probe.service", "content": service, "validate": "systemd-unit"},
            {"path": "/etc/systemd/system/hf-probe.socket", "content": socket, "validate": "systemd-unit"},
            {"path": "/etc/hf-probe/config", "content": config},
        ]
        return probe.module("file_tree", {"namespace": "probe", "files": files})

    units: list[dict[str, Any]] = [
        {"name": "hf-probe.socket", "state": "started"},
        {"name": "hf-probe.service", "state": "started", "restart_on": ["/etc/hf-probe/config"]},
    ]
    first = probe.units(declare("a"), units=units)
    assert first["started"] == ["hf-probe.service", "hf-probe.socket"]
    assert not probe.units(units=units)["changed"]
    # The changed list is lost with a killed controller: the contents tell.
    declare("b")
    again = probe.units(units=units)
    assert again["restarted"] == ["hf-probe.service"]
    assert not probe.units(units=units)["changed"]
    written = declare("b", socket.replace("probe.sock", "other.sock"))
    restart = [{**units[0], "restart": True}, units[1]]
    announced = probe.units(written, units=restart, check=True)
    assert facts(probe.units(written, units=restart)) == facts(announced)
    assert probe.sh("systemctl is-active hf-probe.socket hf-probe.service").split() == ["active", "active"]
    assert "hf-other" in probe.sh("ss -xl | grep hf-")
    retired = probe.units(units=[], retire_absent=True)
    assert retired["retired"] == ["hf-probe.service", "hf-probe.socket"]
    probe.module("file_tree", {"namespace": "probe"})
    assert "hf-other" not in probe.sh("ss -xl | grep hf- || true")
