# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks against a host that answers whatever it is asked with facts of its own choice, in real runs on the controller."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALM = "`all good: every backup ok`"
# What an honest host says, with one repository that nobody has made yet.
STATUS = {"holdfast": "0.1.0", "units": [{"unit": "system--local", "outcome": "failed", "reason": "no space"}]}


class Fleet:
    """Two clients, of which the first is somebody else's by now."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        honest = self.program("honest", {"rc": 0, "stdout": json.dumps(STATUS), "changed": False})
        self.hosts = {"web1": self.host(honest), "web2": self.host(honest)}

    def program(self, name: str, answer: dict[str, Any]) -> Path:
        """What answers in Python's place, whichever module is asked."""
        path = self.directory / name
        path.write_text(f"#!/bin/sh\nprintf '%s\\n' {shlex.quote(json.dumps(answer))}\n")
        path.chmod(0o755)
        return path

    def host(self, python: Path) -> dict[str, Any]:
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(python),
            "backup_jobs": {"system": {"paths": ["/etc"], "schedule": {"calendar": "daily"}}},
        }

    def hostile(self, facts: dict[str, Any]) -> None:
        """The first host answers with facts from now on."""
        answer = {"rc": 0, "stdout": "", "changed": False, "ansible_facts": facts}
        self.hosts["web1"] = self.host(self.program("hostile", answer))

    def hanging(self, facts: dict[str, Any]) -> None:
        """The first host answers once, with facts, and never again."""
        answer = {"rc": 0, "stdout": "", "changed": False, "ansible_facts": facts}
        path = self.program("hanging", answer)
        once = f"[ -e {path}.asked ] && exec sleep 1000\n: >{path}.asked\n"
        path.write_text(path.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{once}"))
        self.hosts["web1"] = self.host(path)

    def play(self, name: str, *arguments: str, **configuration: str) -> tuple[int, str]:
        inventory = {"all": {"children": {"backup_clients": {"hosts": self.hosts}, "backup_servers": {}}}}
        (self.directory / "hosts.json").write_text(json.dumps(inventory))
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "tmp"),
            "LC_ALL": "C.UTF-8",
            **configuration,
        }
        program = str(Path(sys.executable).parent / "ansible-playbook")
        done = subprocess.run(
            [program, "-i", "hosts.json", f"holdfast.backup.{name}", *arguments],
            cwd=self.directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_the_report_is_nobodys_to_replace(fleet: Fleet) -> None:
    facts = {"query": CALM, "format": "json", "lookup": "no function", "_raw_params": "x", "[odd": "x"}
    fleet.hostile(facts)
    code, output = fleet.play("status")
    # It said nothing of its backups.
    assert code != 0
    assert "all good" not in output
    assert [line.split()[:4] for line in output.splitlines() if line.startswith("web")][:2] == [
        ["web1", "system", "local", "not"],
        ["web2", "system", "local", "failed"],
    ], output
    # What its user asks for is what is shown, whatever a host says.
    _code, output = fleet.play("status", "-e", "query=hosts.web2.units[0].outcome")
    assert '"failed"' in output
    _code, output = fleet.play("status", "-e", "format=json")
    assert '"format": 1' in output


@pytest.mark.parametrize("query", ["hosts.*.units[] | length(@)", "length(hosts) =='3'", "length(hosts) == `3`"])
def test_a_query_that_was_cut_at_a_space_is_refused(fleet: Fleet, query: str) -> None:
    code, output = fleet.play("status", "-e", f"query={query}")
    assert code != 0
    assert "is only the beginning of what was given" in output


def test_another_strategy_of_the_configuration_counts_for_nothing(fleet: Fleet) -> None:
    """The strategy free knows no run_once: each host would be told the table, and bad input would not stop everybody."""
    code, output = fleet.play("status", ANSIBLE_STRATEGY="free")
    assert code == 0, output
    assert output.count("OUTCOME") == 1, output


def test_a_configuration_ends_nobody_for_another_host(fleet: Fleet) -> None:
    """One host that fails must not keep the others their backups, nor servers from revoking what is lost."""
    fleet.hosts["web1"]["ansible_python_interpreter"] = "/bin/false"
    code, output = fleet.play("site", ANSIBLE_ANY_ERRORS_FATAL="true")
    assert code != 0
    assert "Look at this host, and judge what it delivers" in output


def test_restore_asks_its_user_only(fleet: Fleet) -> None:
    cache = {
        "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(fleet.directory),
    }
    fleet.hosts = {"web1": fleet.hosts["web2"]}
    fleet.hostile({"target": "/", "job": "x", "_raw_params": "x", "force": True})
    fleet.play("status", **cache)
    code, output = fleet.play("restore", **cache)
    assert code != 0
    assert "restore needs one client" in output
    code, output = fleet.play("restore", "-e", "job=system target=/root/new", **cache)
    assert code == 0, output
    code, output = fleet.play("restore", "-e", "job=system target=/root/new path=/srv/My Files", **cache)
    assert code != 0
    assert "restore needs one client" in output


def test_who_hangs_does_not_say_how_long_it_may(fleet: Fleet) -> None:
    """What the inventory says was read before any host was asked for anything."""
    system = {"architecture": "x86_64", "distribution": "Debian", "distribution_version": "13"}
    result = {"__holdfast_preflight": {"hosts": {"web1": {"answer_timeout": 60}}}}
    fleet.hanging({**system, "distribution_release": "trixie", "backup_answer_timeout": 60, **result})
    fleet.hosts["web1"]["backup_answer_timeout"] = 5
    code, output = fleet.play("site", "--limit", "web1")
    assert code != 0
    assert "Timed out after 5" in output, output
