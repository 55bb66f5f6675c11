"""The hosts of a lab as testinfra sees them, over connections that are kept open."""

from __future__ import annotations

import atexit
import re
import tempfile
from pathlib import Path
from typing import Any

import testinfra

from tests.lab import Lab
from tests.lab.hosts import hang_up, ssh_options
from tests.lab.state import load

# Seconds that a connection is kept for the next command.
KEPT = 60


class Hosts:
    """One connection for each host and user, made when it is needed first."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._known: dict[tuple[str, str], Any] = {}
        # A socket has a short path only.
        self._place = tempfile.TemporaryDirectory(prefix="hf-", dir="/tmp", ignore_cleanup_errors=True)
        self.sockets = Path(self._place.name)
        atexit.register(self.forget)

    def on(self, name: str, user: str = "root") -> Any:
        """A host for testinfra."""
        if (name, user) not in self._known:
            self._known[name, user] = self._make(name, user)
        return self._known[name, user]

    def _make(self, name: str, user: str) -> Any:
        state = load(self._lab.name)
        assert state is not None
        # A host that does not answer any more ends the connection; two that make it at once say nothing of it.
        options = ["-F", "none", *ssh_options(state), "-o", "ServerAliveInterval=10", "-o", "LogLevel=FATAL"]
        address = self._lab.addresses(name)[0]
        return testinfra.get_host(
            f"ssh://{user}@{f'[{address}]' if ':' in address else address}?controlpersist={KEPT}",
            ssh_identity_file=str(state.directory / "id_ed25519"),
            ssh_extra_args=" ".join(options),
            controlpath=str(self.sockets / f"{user}-{name}"),
        )

    def forget(self) -> None:
        """End all connections, Ansible's in the same folder too: a host with a fresh disk is another one."""
        self._known.clear()
        for path in self.sockets.iterdir():
            hang_up(path)


def assert_exposure(host: Any, unit: str, most: float) -> None:
    """What systemd says of a unit in force: how exposed it is, from 0 to 10."""
    said = host.check_output("systemd-analyze security --no-pager %s", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= most, said
