"""For the tests of a molecule scenario: run playbooks on its hosts, and read through testinfra what they did."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hosts import Hosts
from tests.lab import Lab

_CHANGE = re.compile(r"^(?:PLAY \[(.*)\] \*+|TASK \[(.*)\] \*+|changed: \[([^\]]+)\].*)$", re.MULTILINE)
_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Played:
    """What a run of ansible-playbook did: exit code, output, and per host how much changed or failed."""

    code: int
    output: str

    def _recap(self, field: int) -> dict[str, int]:
        return {found[1]: int(found[field]) for found in _RECAP.finditer(self.output)}

    @property
    def changed(self) -> dict[str, int]:
        """Tasks that changed something, by host."""
        return self._recap(3)

    @property
    def changes(self) -> set[tuple[str, str]]:
        """Host and task of every change, as Fleet has them."""
        found, play, task = set(), "", ""
        for line in _CHANGE.finditer(self.output):
            play, task = line[1] or play, line[2] or task
            if line[3]:
                found.add((line[3], f"{play} / {task}"))
        return found

    @property
    def failed(self) -> set[str]:
        """Hosts that failed or were unreachable."""
        return {host for field in (4, 5) for host, count in self._recap(field).items() if count}


class Scenario:
    """The scenario that molecule verifies; `folder` is its own place on the controller."""

    def __init__(self) -> None:
        self.name = os.environ["MOLECULE_SCENARIO_NAME"]
        self.folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
        self.project = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
        self.state = self.folder / "state"
        self.lab = Lab(self.name)
        self._hosts = Hosts(self.lab)

    def host(self, name: str, user: str = "root") -> Any:
        """A host for testinfra."""
        return self._hosts.on(name, user)

    def playbook(self, name: str, *arguments: str, fails: bool = False, timeout: float = 600) -> Played:
        """Run a playbook of the collection, or a file; asserts that it ends well, or (fails) that it does not."""
        program = Path(sys.executable).with_name("ansible-playbook")
        playbook = name if "/" in name else f"holdfast.backup.{name}"
        command = [str(program), "-i", os.environ["MOLECULE_INVENTORY_FILE"], playbook, *arguments]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.project / ".collections"),
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
            "ANSIBLE_FORCE_COLOR": "0",
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return Played(done.returncode, done.stdout)

    def first_run(self) -> None:
        """The playbook site on hosts that it has not seen: check mode tells the truth about it, and then nothing is left to do."""
        assert not self.state.exists()
        announced = self.playbook("site", "--check", "--diff", timeout=1200)
        assert not self.state.exists()
        real = self.playbook("site", timeout=1200)
        assert announced.changes == real.changes, (
            f"only announced: {sorted(announced.changes - real.changes)}\n"
            f"only done: {sorted(real.changes - announced.changes)}\n{announced.output}\n{real.output}"
        )
        assert real.changes
        again = self.playbook("site", timeout=1200)
        assert not again.changes, again.output

    def on(
        self, host: str, script: str, *, timeout: float = 120, user: str = "root", stdin: bytes | None = None
    ) -> str:
        """Run a shell script on a host; asserts that it ends with 0, and returns what it printed."""
        done = self.run(host, script, timeout=timeout, user=user, stdin=stdin)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run(
        self, host: str, script: str, *, timeout: float = 120, user: str = "root", stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script on a host, however it ends."""
        if stdin is not None:
            # testinfra has no standard input to give.
            place = f"/run/{uuid.uuid4()}"
            self.lab.put(host, place, stdin, mode=0o600)
            script = f"exec <{place}; rm {place}; {script}"
        done = self.host(host, user).run("timeout --kill-after=5 %s sh -c %s", str(timeout), script)
        return subprocess.CompletedProcess(script, done.rc, done.stdout, done.stderr)
