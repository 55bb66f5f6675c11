"""A fleet of lab hosts as its user has it: an inventory, playbooks that run on it, and what they did.

For scenarios with many steps: change what the inventory says, run the playbook site in check mode, for real and again,
and compare. State is read from the hosts, through testinfra.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import ansible_commands
from tests.hosts import Hosts
from tests.lab import Lab, mirror

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 600


@dataclass(frozen=True)
class Run:
    """What one run of a playbook did; `events` are the lines of callback_plugins/events.py, `executions` what ran on each host."""

    code: int
    output: str
    events: list[dict[str, Any]] = field(repr=False)
    executions: dict[str, list[str]] = field(repr=False)

    @property
    def changed(self) -> set[tuple[str, str]]:
        """Host and task of every change."""
        return {(event["host"], event["task"]) for event in self.events if event["changed"]}

    @property
    def failed(self) -> dict[str, str]:
        """The message of each host that failed or did not answer."""
        return {each["host"]: each["message"] for each in self.events if each["what"] in ("failed", "unreachable")}

    @property
    def text(self) -> str:
        """The output without line breaks, in which warnings and messages can be looked for."""
        return re.sub(r"\s+", " ", self.output)

    def results(self, key: str) -> dict[str, Any]:
        """A value that a task returned, by host; the last one counts."""
        return {event["host"]: event["result"][key] for event in self.events if key in event["result"]}


class Fleet:
    """One inventory in a folder of its own, with the state directory beside it."""

    def __init__(self, lab: str, folder: Path, groups: Mapping[str, Sequence[str]]) -> None:
        self.lab = Lab(lab)
        self.folder = folder
        self.groups = {group: list(hosts) for group, hosts in groups.items()}
        self.variables: dict[str, Any] = {}
        self.host_variables: dict[str, dict[str, Any]] = {}
        # Where Ansible finds the collection.
        self.collections = ROOT / ".collections"
        self._hosts = Hosts(self.lab)
        self._environment = {
            **os.environ,
            "ANSIBLE_CALLBACK_PLUGINS": f"{Path(__file__).parent}/callback_plugins:{ROOT}/tests/benchmark/callback_plugins",
            "ANSIBLE_CALLBACKS_ENABLED": "events,executions",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
            # Nobody else's settings.
            "ANSIBLE_CONFIG": str(Path(__file__).with_name("ansible.cfg")),
            "ANSIBLE_FORKS": "10",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._hosts.sockets),
        }

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.folder / "holdfast-state"

    def on(self, name: str, user: str = "root") -> Any:
        """A host for testinfra."""
        return self._hosts.on(name, user)

    def inventory(self) -> Path:
        """Write the inventory as it is now."""
        content = self.lab.inventory(self.groups)
        declared = {host for hosts in self.groups.values() for host in hosts}
        content["all"]["vars"].update(self.variables)
        content["all"]["hosts"] = {
            host: {**variables, **self.host_variables.get(host, {})}
            for host, variables in content["all"]["hosts"].items()
            if host in declared
        }
        path = self.folder / "inventory.json"
        path.write_text(json.dumps(content, indent=1))
        return path

    def run(self, playbook: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Run:
        """Run a playbook of the collection, or a file, on the inventory as it is now."""
        inventory = self.inventory()
        events = self.folder / "events.jsonl"
        events.write_text("")
        executions = self.folder / "executions.json"
        executions.write_text("{}")
        done = ansible_commands.run(
            "ansible-playbook",
            ["-i", str(inventory), playbook if "/" in playbook else f"holdfast.backup.{playbook}", *arguments],
            cwd=self.folder,
            environment={
                **self._environment,
                "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
                "HOLDFAST_EVENTS": str(events),
                "EXECUTIONS_FILE": str(executions),
                **(environment or {}),
            },
            timeout=TIMEOUT,
        )
        told = [json.loads(line) for line in events.read_text().splitlines()]
        return Run(done.returncode, done.stdout, told, json.loads(executions.read_text()))

    def good(self, playbook: str, *arguments: str) -> Run:
        """Run a playbook that has to end well."""
        done = self.run(playbook, *arguments)
        assert done.code == 0, f"{done.failed}\n{done.output}"
        return done

    def refused(self, playbook: str, *arguments: str) -> Run:
        """Run a playbook that has to fail before it changes anything."""
        done = self.run(playbook, *arguments)
        assert done.code != 0, done.output
        assert not done.changed, f"{done.changed}\n{done.output}"
        return done

    def converge(self, *arguments: str) -> Run:
        """Run site in check mode, for real, and again; the first tells the truth about the second, the third is idle.

        Returns the real run.
        """
        announced = self.good("site", "--check", "--diff", *arguments)
        real = self.good("site", *arguments)
        assert announced.changed == real.changed, (
            f"only announced: {sorted(announced.changed - real.changed)}\n"
            f"only done: {sorted(real.changed - announced.changed)}\n{announced.output}\n{real.output}"
        )
        # What a run was asked to do once, it is not asked again.
        limits = [part for number, part in enumerate(arguments) if "--limit" in (part, arguments[number - 1])]
        again = self.good("site", *limits)
        assert not again.changed, f"{again.changed}\n{again.output}"
        return real

    def forget_connections(self) -> None:
        """End what is kept open to hosts: one with a fresh disk is another one."""
        self._hosts.forget()

    def with_groups(self, groups: Mapping[str, Sequence[str]]) -> Fleet:
        """The same fleet, folder and state directory with other groups."""
        other = copy.copy(self)
        other.groups = {group: list(hosts) for group, hosts in groups.items()}
        return other


def escrow_key(folder: Path) -> tuple[Path, str]:
    """A new key of age: the file with the secret key, and the public key."""
    path = folder / "backup-escrow.key"
    subprocess.run(["age-keygen", "-o", str(path)], check=True, capture_output=True, timeout=30)
    done = subprocess.run(["age-keygen", "-y", str(path)], check=True, capture_output=True, text=True, timeout=30)
    return path, done.stdout.strip()


def released_restic(suite: str = "sid") -> dict[str, Any]:
    """Variables of a host whose distribution's restic is too old: a pinned release from the lab's mirror."""
    described: dict[str, Any] = mirror.describe()
    release = next(each for each in described["releases"] if each["tool"] == "restic" and each["suite"] == suite)
    return {
        "restic_install": "release",
        "restic_release_version": release["version"],
        "restic_release_mirror": f"{described['url_by_name']}restic",
        "restic_release_sha256": {"x86_64": release["sha256"]},
    }
