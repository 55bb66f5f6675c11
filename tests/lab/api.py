"""Labs for programs: pytest fixtures, benchmarks, molecule. The command line is a thin layer over this."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import bases, doctor, hosts, network, services
from .shell import LabError, run
from .spec import HostSpec, check_lab_name, parse_host
from .state import (
    CACHE,
    Busy,
    HostState,
    LabState,
    Process,
    boot_id,
    in_shared_use,
    lab_directory,
    lab_lock,
    load,
    load_all,
    machine_lock,
    shared_use,
)

PARALLEL = max(4, 3 * (os.cpu_count() or 1))
_T = TypeVar("_T")


@dataclass(frozen=True)
class Report:
    """How a host came up."""

    name: str
    suite: str
    addresses: tuple[str, ...]
    state: str
    seconds: float


class Lab:
    """A named set of test hosts on a network of their own."""

    def __init__(self, name: str) -> None:
        self.name = check_lab_name(name)

    # -- life ---------------------------------------------------------------

    def up(
        self,
        specs: Iterable[str | HostSpec],
        *,
        owner: int | None = None,
        timeout: float = 120,
        said: Callable[[Report], None] | None = None,
    ) -> list[Report]:
        """Boot the hosts that are not up yet; `owner` is a process that the lab ends with."""
        wanted = [parse_wanted(spec) for spec in specs]
        doctor.require()
        collect_garbage()
        with lab_lock(self.name):
            state = self._open(owner)
            fresh = self._declare(state, wanted)
            begun = {name: time.monotonic() for name in state.hosts}
            names = list(dict.fromkeys(spec.name for spec, _options in wanted)) or list(state.hosts)
            if not names:
                raise LabError(f"Name hosts to boot, say `lab up {self.name} web1=trixie`.")
            reports: list[Report] = []
            guard = threading.Lock()

            def boot(name: str) -> Report:
                host = state.hosts[name]
                begun[name] = time.monotonic()
                if name in fresh:
                    hosts.make_disk(state, host)
                if host.process is None or not host.process.alive:
                    with guard:
                        self._pin(state)
                    hosts.boot(state, host)
                    with guard:
                        state.save()
                text = hosts.wait_ready(state, host, timeout)
                report = Report(
                    name,
                    host.suite,
                    tuple(hosts.addresses(state, host)),
                    text,
                    time.monotonic() - begun[name],
                )
                with guard:
                    state.save()
                    reports.append(report)
                    if said is not None:
                        said(report)
                return report

            _each(boot, names)
            self._tell_all(state, without=fresh)
            return reports

    def down(self, names: Iterable[str] | None = None) -> None:
        """End hosts, or the whole lab, and everything that belongs to it."""
        with lab_lock(self.name):
            state = load(self.name)
            if state is None:
                shutil.rmtree(lab_directory(self.name), ignore_errors=True)
                _release_machine()
                return
            if names is None:
                _end(state)
                return
            chosen = [self._host(state, n).name for n in names]
            _remove(state, chosen)
            self._pin(state)

    def restart(self, name: str, *, timeout: float = 120) -> str:
        """Shut a host down in good order and boot it again from the same disk."""
        return self._again(name, timeout, hosts.stop)

    def wipe(self, name: str, *, timeout: float = 120) -> str:
        """Give a host a fresh disk, new keys and a new machine-id under the same name."""

        def remake(state: LabState, host: HostState) -> None:
            hosts.kill(state, host)
            host.lowers = [str(lower) for lower in bases.lowers_of(hosts.spec_of(host))]
            hosts.make_disk(state, host)
            self._pin(state)

        return self._again(name, timeout, remake)

    def kill(self, name: str) -> None:
        """SIGKILL everything on a host; `restart` or `up` boots it again."""
        with lab_lock(self.name):
            state = self._state()
            host = self._host(state, name)
            hosts.kill(state, host)
            hosts.ended(state, host).write_text("killed\n")
            state.save()

    # -- use ----------------------------------------------------------------

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        timeout: float = 120,
        input: bytes | None = None,
        user: str = "root",
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host over ssh."""
        state = self._state()
        done = hosts.ssh(state, self._host(state, name), argv, timeout=timeout, input=input, user=user, keep=True)
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            raise LabError(f"`{' '.join(argv)}` on {name} ended with {done.returncode}: {err or out}")
        return subprocess.CompletedProcess(list(argv), done.returncode, out, err)

    def put(self, name: str, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file on a host, in one piece."""
        script = 'set -e; umask 077; cat >"$1.lab"; chmod "$2" "$1.lab"; mv -fT "$1.lab" "$1"'
        argv = ["sh", "-c", script, "put", path, f"{mode:o}"]
        self.exec(name, argv, input=content, check=True)

    def get(self, name: str, path: str) -> bytes:
        """Read a file of a host."""
        state = self._state()
        done = hosts.ssh(state, self._host(state, name), ["cat", "--", path], keep=True)
        if done.returncode != 0:
            raise LabError(f"{name} does not give {path}: {done.stderr.decode().strip()}")
        return done.stdout

    def ssh_command(self, name: str, user: str = "root") -> list[str]:
        """The command line of an interactive session."""
        state = self._state()
        return hosts.ssh_command(state, self._host(state, name), user)

    def addresses(self, name: str) -> list[str]:
        """IPv4 (unless the host has none) and IPv6 address of a host."""
        state = self._state()
        return hosts.addresses(state, self._host(state, name))

    def inventory(self, groups: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """An Ansible inventory of the lab."""
        state = self._state()
        common = " ".join(hosts.ssh_options(state))
        result: dict[str, Any] = {
            "all": {
                "vars": {
                    "ansible_user": "root",
                    "ansible_ssh_private_key_file": str(state.directory / "id_ed25519"),
                    "ansible_ssh_common_args": f"-F none {common}",
                    "ansible_python_interpreter": "/usr/bin/python3",
                },
                "hosts": {
                    name: {"ansible_host": hosts.addresses(state, host)[0]} for name, host in state.hosts.items()
                },
            }
        }
        if groups:
            result["all"]["children"] = {
                group: {"hosts": {self._host(state, name).name: {} for name in members}}
                for group, members in groups.items()
            }
        return result

    # -- inside -------------------------------------------------------------

    def _state(self) -> LabState:
        state = load(self.name)
        if state is None:
            raise LabError(f"There is no lab {self.name}; start it with `lab up {self.name} …`.")
        return state

    def _host(self, state: LabState, name: str) -> HostState:
        if name not in state.hosts:
            raise LabError(f"The lab {self.name} has no host {name}, only {', '.join(state.hosts) or 'none'}.")
        return state.hosts[name]

    def _open(self, owner: int | None) -> LabState:
        """The lab's state, network and key; made when there is none."""
        with machine_lock():
            services.start()
            state = load(self.name)
            if state is None:
                index = network.free_index((other.index for other in load_all()), network.routed_networks())
                state = LabState(self.name, index, boot_id(), str(CACHE / "disks" / self.name))
                state.directory.mkdir(parents=True, exist_ok=True)
                state.directory.chmod(0o700)
                state.save()
            network.make_bridge(network.Subnet(state.index))
        _make_disks(Path(state.disks))
        key = state.directory / "id_ed25519"
        if not key.exists():
            comment = f"lab-{self.name}"
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key)])
        if owner is not None:
            state.owner = Process.of(owner)
            if state.watchdog is not None:
                services.end(state.watchdog)
            entry = Path(__file__).with_name("lab")
            state.watchdog = services.spawn(
                [str(entry), "_watch", self.name, str(owner), str(state.owner.start)],
                state.directory / "watchdog.log",
            )
        state.save()
        return state

    def _declare(self, state: LabState, wanted: Sequence[tuple[HostSpec, str]]) -> set[str]:
        """Add new hosts to the state; returns their names."""
        fresh: set[str] = set()
        lowers: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for spec, options in wanted:
            known = state.hosts.get(spec.name)
            if known is not None and hosts.spec_of(known) != spec:
                raise LabError(
                    f"{spec.name} exists as {known.suite}:{known.options}; "
                    f"end it first with `lab down {self.name} {spec.name}`."
                )
            if known is not None and hosts.disk(state, known).exists():
                continue
            key = (spec.suite, spec.packages)
            if key not in lowers:
                lowers[key] = [str(lower) for lower in bases.lowers_of(spec)]
            number = (
                known.number if known is not None else network.free_number(host.number for host in state.hosts.values())
            )
            state.hosts[spec.name] = HostState(spec.name, spec.suite, options, number, lowers[key])
            fresh.add(spec.name)
        doctor.make_room_for(sum(len(other.hosts) for other in load_all()) + len(fresh))
        state.save()
        return fresh

    def _pin(self, state: LabState) -> None:
        """Write known_hosts from the keys that the lab itself made."""
        lines = []
        for host in state.hosts.values():
            try:
                key = hosts.host_key(state, host)
            except FileNotFoundError:
                continue
            lines.append(f"{','.join([*hosts.addresses(state, host), host.name])} {key}\n")
        target = state.directory / "known_hosts"
        temporary = state.directory / "known_hosts.new"
        temporary.write_text("".join(lines))
        temporary.replace(target)

    def _tell_all(self, state: LabState, without: set[str]) -> None:
        names = [name for name, host in state.hosts.items() if host.ready and name not in without]
        _each(lambda name: self._tell_hosts(state, state.hosts[name]), names)

    def _tell_hosts(self, state: LabState, host: HostState) -> None:
        """Bring the lab's block of /etc/hosts up to date on a running host."""
        script = (
            'set -e; cat >/etc/hosts.lab; sed "/^$1/,/^$2/d" /etc/hosts | cat - /etc/hosts.lab '
            ">/etc/hosts.new; cat /etc/hosts.new >/etc/hosts; rm /etc/hosts.lab /etc/hosts.new"
        )
        argv = ["sh", "-c", script, "hosts", hosts.HOSTS_BEGIN, hosts.HOSTS_END]
        done = hosts.ssh(state, host, argv, input=hosts.hosts_block(state).encode())
        if done.returncode != 0:
            raise LabError(f"{host.name} refused its new /etc/hosts: {done.stderr.decode()}")

    def _again(self, name: str, timeout: float, end: Callable[[LabState, HostState], None]) -> str:
        doctor.require()
        with lab_lock(self.name):
            state = self._state()
            host = self._host(state, name)
            end(state, host)
            hosts.boot(state, host)
            state.save()
            text = hosts.wait_ready(state, host, timeout)
            state.save()
            self._tell_hosts(state, host)
            return text


def parse_wanted(spec: str | HostSpec) -> tuple[HostSpec, str]:
    """A host and its options as text."""
    if isinstance(spec, HostSpec):
        raise LabError("Describe hosts as text, say 'web1=trixie:fuse'.")
    return parse_host(spec), spec.partition("=")[2].partition(":")[2]


def prepare(spec: HostSpec) -> None:
    """Build what a host would lie on."""
    with shared_use():
        with machine_lock():
            services.start()
        bases.lowers_of(spec)
    _release_machine()


def collect_garbage() -> list[str]:
    """End labs that nobody owns any more or whose processes are gone; returns their names."""
    removed = []
    for state in load_all():
        try:
            with lab_lock(state.name, timeout=0):
                current = load(state.name)
                if current is None or not is_garbage(current):
                    continue
                _end(current)
        except Busy:
            continue
        removed.append(state.name)
    if not load_all():
        _release_machine()
    _remove_stray_disks()
    bases.collect(lower for state in load_all() for host in state.hosts.values() for lower in host.lowers)
    return removed


def _remove_stray_disks() -> None:
    """Remove the disks of labs that the machine forgot when it was switched off."""
    for path in (CACHE / "disks").glob("*"):
        with contextlib.suppress(Busy), lab_lock(path.name, timeout=0):
            if load(path.name) is None:
                shutil.rmtree(path, ignore_errors=True)


def is_garbage(state: LabState) -> bool:
    """Whether a lab has outlived its owner, the machine's boot or all of its hosts."""
    if state.boot != boot_id():
        return True
    if state.owner is not None and not state.owner.alive:
        return True
    return not any(
        (host.process is not None and host.process.alive) or hosts.ended(state, host).exists()
        for host in state.hosts.values()
    )


def _remove(state: LabState, names: Sequence[str]) -> None:
    """End hosts and forget them; what could not be ended stays in the state."""

    def remove(name: str) -> None:
        host = state.hosts[name]
        hosts.kill(state, host)
        shutil.rmtree(hosts.disk(state, host), ignore_errors=True)
        shutil.rmtree(state.directory / "hosts" / name, ignore_errors=True)
        gone.append(name)

    gone: list[str] = []
    try:
        _each(remove, names)
    finally:
        for name in gone:
            del state.hosts[name]
        state.save()


def _end(state: LabState) -> None:
    """End a lab; called with the lab locked."""
    if state.boot != boot_id():
        # Its processes ended with that boot; their numbers mean others now.
        state.watchdog = None
        for host in state.hosts.values():
            host.process = None
    if state.watchdog is not None and state.watchdog.pid != os.getpid():
        services.end(state.watchdog)
    _remove(state, list(state.hosts))
    with machine_lock():
        network.remove_bridge(network.Subnet(state.index))
        if Path(state.disks).is_mount():
            run(["umount", "--lazy", state.disks])
        shutil.rmtree(state.disks, ignore_errors=True)
        shutil.rmtree(state.directory)
    _release_machine()


def _release_machine() -> None:
    """End the shared services after the last lab."""
    with machine_lock():
        if not load_all() and not in_shared_use():
            services.stop()


def _make_disks(directory: Path) -> None:
    """The place for what hosts write; memory where the cache lies on an overlay itself."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.parent.chmod(0o700)
    kind = run(["stat", "--file-system", "--format=%T", str(directory)]).stdout.strip()
    if kind == "overlayfs":
        run(["mount", "-t", "tmpfs", "-o", "mode=0700,size=75%", "lab", str(directory)])


def _each(function: Callable[[str], _T], names: Iterable[str]) -> list[_T]:
    """Call for all names side by side; every call ends before the first error is raised."""
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        futures = [pool.submit(function, name) for name in names]
    return [future.result() for future in futures]
