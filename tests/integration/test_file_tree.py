# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""file_tree over ssh on real hosts: --check, for real, and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.api import Lab

from .conftest import RunModule

UNITS = "/etc/systemd/system"


def facts(result: dict[str, Any]) -> dict[str, Any]:
    assert not result["failed"], result
    return {key: value for key, value in result.items() if key not in ("diff", "invocation")}


@pytest.fixture(autouse=True)
def clean(lab: Lab, host: str, run_module: RunModule) -> Iterator[None]:
    yield
    assert not run_module(host, "file_tree", {"namespace": "itest"})["failed"]
    left = lab.exec(host, ["sh", "-c", f"ls -d /etc/itest {UNITS}/itest* 2>/dev/null"]).stdout
    assert left == ""


def test_check_real_again(lab: Lab, host: str, run_module: RunModule) -> None:
    args: dict[str, Any] = {
        "namespace": "itest",
        "directories": [{"path": "/etc/itest/secrets", "mode": "0700"}],
        "files": [
            {"path": "/etc/itest/a", "content": "text ü\n", "owner": "nobody", "group": "nogroup", "mode": "0640"},
            {
                "path": f"{UNITS}/itest.service",
                "content": "[Service]\nType=oneshot\nExecStart=/bin/true\nExecStartPre=+/etc/itest/program\n",
                "validate": "systemd-unit",
            },
            {"path": "/etc/itest/program", "content": "#!/bin/sh\n", "mode": "0755"},
            {"path": f"{UNITS}/itest.timer", "content": "[Timer]\nOnCalendar=daily\n", "validate": "systemd-unit"},
            {
                "path": f"{UNITS}/itest@.service",
                "content": "[Service]\nExecStart=/bin/echo %i\n",
                "validate": "systemd-unit",
            },
        ],
        "secret_files": [{"path": "/etc/itest/secrets/s", "content": "c4n4ry", "mode": "0400"}],
    }
    announced = run_module(host, "file_tree", args, check=True)
    assert lab.exec(host, ["ls", "/etc/itest"]).returncode != 0
    real = run_module(host, "file_tree", args)
    assert facts(real) == facts(announced)
    assert len(real["created"]) == 6
    assert real["directories_created"] == ["/etc/itest", "/etc/itest/secrets"]
    assert "c4n4ry" not in str(announced) + str(real)
    shown = lab.exec(host, ["stat", "-c", "%U:%G %a", "/etc/itest/a", "/etc/itest/secrets/s"], check=True).stdout
    assert shown.split("\n")[:2] == ["nobody:nogroup 640", "root:root 400"]
    for check in (True, False):
        assert not run_module(host, "file_tree", args, check=check)["changed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Timer]\nOnCalendar=daily\nOnCalender=daily\n", "Unknown key"),
        ("[Timer]\nOnCalendar=daily\n[Tiner]\nx=y\n", "Unknown section"),
        ("[Timer]\nOnCalendar=dayly\n", "calendar"),
    ],
)
def test_l12_unknown_keys_are_errors_before_any_change(
    lab: Lab, host: str, run_module: RunModule, text: str, said: str
) -> None:
    """L12: systemd-analyze verify itself returns 0 for unknown keys and sections."""
    service = {
        "path": f"{UNITS}/itest.service",
        "content": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
        "validate": "systemd-unit",
    }
    timer = {"path": f"{UNITS}/itest.timer", "content": text, "validate": "systemd-unit"}
    for check in (True, False):
        result = run_module(host, "file_tree", {"namespace": "itest", "files": [service, timer]}, check=check)
        assert result["failed"]
        assert said.lower() in result["msg"].lower()
        assert f"{UNITS}/itest.timer" in result["msg"]
    assert lab.exec(host, ["ls", service["path"]]).returncode != 0


def test_missing_program_is_not_checked_then_an_error(host: str, run_module: RunModule) -> None:
    files = [
        {
            "path": f"{UNITS}/itest.service",
            "content": "[Service]\nExecStart=/usr/bin/not-installed-yet\n",
            "validate": "systemd-unit",
        }
    ]
    announced = run_module(host, "file_tree", {"namespace": "itest", "files": files}, check=True)
    assert announced["changed"]
    assert announced["not_checked"] == [
        f"{UNITS}/itest.service: its command /usr/bin/not-installed-yet is not installed"
    ]
    assert (
        "install what is missing first" in run_module(host, "file_tree", {"namespace": "itest", "files": files})["msg"]
    )


def test_thirty_files_cost_one_execution(lab: Lab, host: str, run_module: RunModule) -> None:
    files = [{"path": f"/etc/itest/{number}", "content": f"{number}\n"} for number in range(30)]
    assert len(run_module(host, "file_tree", {"namespace": "itest", "files": files})["created"]) == 30
    files.pop()
    assert run_module(host, "file_tree", {"namespace": "itest", "files": files})["removed"] == ["/etc/itest/29"]
    assert lab.exec(host, ["sh", "-c", "ls /etc/itest | wc -l"]).stdout.strip() == "29"
