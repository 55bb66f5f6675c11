"""The hosts of a lab as testinfra sees them, over connections that are kept open."""

from __future__ import annotations

import atexit
import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
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


@contextlib.contextmanager
def frozen(host: Any, unit: str, server: Any, lock: str) -> Iterator[None]:
    """A run of a unit that stands still while it holds its lock, which is a file of the server; it has ended well afterwards."""
    service = f"holdfast-{unit}.service"
    held = f"ls {lock} >/dev/null 2>&1"
    # Another one would be taken for it.
    assert server.run(held).rc != 0, lock
    host.check_output(
        f"rm -f /run/ended; (holdfast run {unit} --wait; echo $? >/run/ended) </dev/null >/dev/null 2>&1 &"
    )
    try:
        # Not what comes before, a dump say, which has a lock of its own.
        host.check_output(_until(f'[ "$(systemctl show -P MainPID {service})" -gt 0 ]'))
        for _try in range(20):
            server.check_output(_until(held))
            host.check_output(f"systemctl kill --signal=STOP {service}")
            if server.run(held).rc == 0:
                break
            host.check_output(f"systemctl kill --signal=CONT {service}")
        yield
        assert server.run(held).rc == 0, "it did not stand still"
        assert host.run(f"systemctl is-active {service}").stdout == "activating\n"
    finally:
        host.run(f"systemctl kill --signal=CONT {service}")
    assert host.check_output(f"{_until('[ -s /run/ended ]')}; cat /run/ended") == "0"


def _until(condition: str) -> str:
    """A script that waits half a minute for a condition."""
    return f"n=0; until {condition}; do n=$((n+1)); [ $n -lt 1500 ] || exit 1; sleep 0.02; done"


def look(host: Any, unit: str, script: str) -> str:
    """What a script prints that looks into the snapshots of a unit, which are mounted in /mnt."""
    return str(
        host.check_output(
            f"""
            holdfast mount {unit} /mnt </dev/null >/run/look 2>&1 & pid=$!
            for each in $(seq 600); do mountpoint -q /mnt && break; sleep 0.1; done
            set -e
            {script}
            kill -INT $pid
            wait $pid
            ! mountpoint -q /mnt
            """
        )
    )


def assert_usable_meanwhile(host: Any, unit: str, server: Any, lock: str, path: str, content: str) -> None:
    """While a run goes on: people list, restore and mount, and the second newest snapshot has a file with the content of another."""

    def snapshots() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(host.check_output(f"holdfast snapshots {unit} --json"))["snapshots"]
        return [each for each in found if each["dump"] is None]

    before = snapshots()
    with frozen(host, unit, server, lock):
        assert snapshots() == before
        older = before[-2]
        target = f"/root/meanwhile-{unit}"
        host.check_output(f"holdfast restore {unit} --snapshot {older['id'][:8]} --target {target}")
        host.check_output(f"cmp {content} {target}{path} && ! cmp -s {content} {path}")
        # Borg has a name for each, restic an id.
        assert look(host, unit, f"cmp {content} /mnt/{older.get('name') or 'ids/' + older['id'][:8]}{path}; ls /mnt")
    after = snapshots()
    assert [each["id"] for each in after[:-1]] == [each["id"] for each in before]
    outcome = json.loads(host.file(f"/var/lib/holdfast/outcomes/{unit}.json").content_string)
    assert (outcome["outcome"], outcome["snapshot"]) == ("ok", after[-1]["id"])
    host.check_output(f"rm -r {target}")
