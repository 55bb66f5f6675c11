# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state directory through real ansible-playbook runs on the controller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.attack.ssh_side import synthetic_key

ROOT = Path(__file__).resolve().parents[2]
HASH = "$2b$12$" + "a" * 53
CANARY = "canary-5e0c"
PLAY = """
- hosts: all
  gather_facts: false
  become: true
  become_user: nobody-there
  tasks:
    - name: Make the fleet's id
      holdfast.backup.state:
        path: "{{ state_dir }}"
        make_fleet_id: true
      run_once: true
    - name: Keep what the host delivered
      holdfast.backup.state:
        path: "{{ state_dir }}"
        write: "{{ delivered }}"
"""
# Connecting to these hosts is impossible: nothing may need a connection.
HOST = {"ansible_connection": "ssh", "ansible_host": "203.0.113.1", "ansible_ssh_common_args": "-o ConnectTimeout=1"}


class Project:
    """A user's project with an inventory, a playbook and a state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "holdfast-state"
        self.hosts: dict[str, Any] = {}
        (directory / "play.yml").write_text(PLAY)

    def deliver(self, host: str, write: dict[str, Any]) -> None:
        self.hosts[host] = {**HOST, "delivered": write}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        inventory = {"all": {"hosts": self.hosts, "vars": {"state_dir": str(self.state)}}}
        (self.directory / "hosts.json").write_text(json.dumps(inventory))
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "LC_ALL": "C.UTF-8"}
        environment["ANSIBLE_STDOUT_CALLBACK"] = "ansible.builtin.default"
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts.json", "play.yml", *arguments]
        return subprocess.Popen(
            command, cwd=self.directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self, process: subprocess.Popen[str]) -> str:
        output, _none = process.communicate(timeout=300)
        return output

    def play(self, *arguments: str) -> str:
        return self.finish(self.start(*arguments))

    def tree(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.state)): path.read_text()
            for path in sorted(self.state.rglob("*"))
            if path.is_file()
        }


def recap(output: str) -> dict[str, dict[str, int]]:
    """The numbers of each host."""
    found = {}
    for line in output.split("PLAY RECAP")[1].splitlines():
        name, colon, numbers = line.partition(" : ")
        if colon:
            found[name.strip()] = {key: int(value) for key, value in (pair.split("=") for pair in numbers.split())}
    return found


def rest(host: str) -> dict[str, Any]:
    return {"rest/vault.json": {"user": f"{host}--vault", "hash": HASH, "next_hash": None}}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_check_real_again(project: Project) -> None:
    hosts = [f"web{number}" for number in range(1, 7)]
    for host in hosts:
        project.deliver(host, rest(host))
    announced = project.play("--check", "--diff", "--forks", "6")
    assert not project.state.exists(), announced
    done = project.play("--diff", "--forks", "6")
    assert {host: numbers["changed"] for host, numbers in recap(announced).items()} == {
        host: numbers["changed"] for host, numbers in recap(done).items()
    }
    assert recap(done)["web1"]["changed"] == 2
    assert all(numbers["failed"] == numbers["unreachable"] == 0 for numbers in recap(done).values()), done
    tree = project.tree()
    assert len(tree) == 7
    for arguments in (["--check"], []):
        again = project.play(*arguments)
        assert all(numbers["changed"] == 0 for numbers in recap(again).values()), again
    assert project.tree() == tree


def test_two_controllers_at_once(project: Project) -> None:
    hosts = [f"web{number}" for number in range(1, 5)]
    for host in hosts:
        project.deliver(host, rest(host))
    outputs = [project.finish(each) for each in [project.start("--forks", "4"), project.start("--forks", "4")]]
    for output in outputs:
        assert all(numbers["failed"] == 0 for numbers in recap(output).values()), output
    tree = project.tree()
    assert len(tree) == 5
    for text in tree.values():
        json.loads(text)
    # Both used the same id: a later run finds nothing to do.
    assert all(numbers["changed"] == 0 for numbers in recap(project.play()).values())


def test_a_hostile_host_fails_alone_and_executes_nothing(project: Project) -> None:
    key = synthetic_key(1)
    project.deliver("web1", {**rest("web1"), "ssh/vault.pub": f"{key}\n"})
    marker = project.directory / "executed"
    template = "{{ lookup('ansible.builtin.pipe', 'touch " + str(marker) + "') }}"
    hostile: dict[str, dict[str, Any]] = {
        "path": {"../web1/rest/vault.json": rest("x")["rest/vault.json"]},
        "hash": {"rest/vault.json": {"user": "x", "hash": "$2b$31$" + "a" * 53}},
        "bundle": {f"escrow/vault/{'0' * 32}-{'0' * 16}.age": {"b64": "W2RlZmF1bHRzXQo="}},
        "ca": {"ca.pem": f"{CANARY} no certificate"},
        "key": {"ssh/vault.pub": f'command="/bin/sh" {key}\n'},
        "size": {"rendered.json": "x" * 100_000},
    }
    for host, write in hostile.items():
        project.deliver(host, write)
    output = project.play("-vvv")
    numbers = recap(output)
    assert numbers["web1"]["failed"] == 0
    assert {host for host, each in numbers.items() if each["failed"] == 1} == set(hostile), output
    assert set(project.tree()) == {"fleet.json", "hosts/web1/rest/vault.json", "hosts/web1/ssh/vault.pub"}
    # Contents come as facts or module results, which Ansible does not render; neither do we.
    (project.state / "hosts/web1/rendered.json").write_text(json.dumps({"x": template}))
    (project.directory / "play.yml").write_text(
        """
- hosts: web1
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ lookup('holdfast.backup.state', 'web1', path=state_dir).rendered.x }}"
"""
    )
    shown = project.play()
    assert "ansible.builtin.pipe" in shown
    assert not marker.exists()


def test_the_lookup_and_odd_host_names(project: Project) -> None:
    for host in ("..", "fe80::1", "a/../../b", "web1.example.net"):
        project.deliver(host, rest("web1"))
    output = project.play()
    assert all(numbers["failed"] == 0 for numbers in recap(output).values()), output
    assert sorted(path.name for path in (project.state / "hosts").iterdir()) == [
        "%2E%2E",
        "a%2F%2E%2E%2F%2E%2E%2Fb",
        "fe80%3A%3A1",
        "web1.example.net",
    ]
    (project.directory / "play.yml").write_text(
        """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.assert:
        that:
          - found.rest.vault.user == 'web1--vault'
          - found.fleet_id | length == 32
          - found.escrow == {}
          - found.ca is none
      vars:
        found: "{{ lookup('holdfast.backup.state', inventory_hostname, path=state_dir) }}"
"""
    )
    output = project.play()
    assert all(numbers["ok"] == 1 for numbers in recap(output).values()), output


def test_never_inside_the_inventory(project: Project) -> None:
    inventory = project.directory / "inventory"
    inventory.mkdir()
    project.deliver("web1", rest("web1"))
    project.state = inventory / "holdfast-state"
    output = project.play("-i", "inventory")
    assert "inside the inventory directory" in output
    assert not project.state.exists()
