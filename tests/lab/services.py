"""What all labs of a machine share: the package cache and the release mirror, on one address.

The address lies on a bridge without ports; hosts reach it through the gateway of their own lab.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import network
from .archive import upstream_proxy
from .shell import LabError, wait_until
from .state import CACHE, CGROUP, MACHINE, Process, boot_id, write_atomic

CACHE_PORT, MIRROR_PORT = 3142, 8083
SERVICE4 = network.SERVICES.address4(1)
SERVICE6 = network.SERVICES.address6(1)
SERVICE_PROXY = f"http://{SERVICE4}:{CACHE_PORT}"
SERVICE_PROXY6 = f"http://[{SERVICE6}]:{CACHE_PORT}"
MIRROR_URL = f"http://{SERVICE4}:{MIRROR_PORT}/"
SERVICES_NAME = "lab-services"
MIRROR_NAME_URL = f"http://{SERVICES_NAME}:{MIRROR_PORT}/"
MIRROR_URL6 = f"http://[{SERVICE6}]:{MIRROR_PORT}/"


def start() -> None:
    """Bring up the shared network and services; called with the machine locked."""
    known = _load()
    if known["boot"] != boot_id():
        known = {
            "boot": boot_id(),
            "ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text().strip(),
            "processes": {},
        }
        _save(known)
    network.make_bridge(network.SERVICES)
    network.make_way_out()
    for name, prepare, port in (
        ("cache", _cache_command, CACHE_PORT),
        ("mirror", _mirror_command, MIRROR_PORT),
    ):
        old = known["processes"].get(name)
        if old is not None and Process(**old).alive:
            continue
        process = spawn(prepare(), MACHINE / f"{name}.log")
        known["processes"][name] = {"pid": process.pid, "start": process.start}
        _save(known)
        for address in (SERVICE4, SERVICE6):
            if not wait_until(partial(answers, address, port), timeout=15):
                raise LabError(
                    f"The lab's {name} does not listen on {address} port {port}; see {MACHINE / f'{name}.log'}."
                )


def stop() -> None:
    """End them; called with the machine locked and no lab left."""
    known = _load()
    if known["boot"] == boot_id():
        for data in known["processes"].values():
            end(Process(**data))
        network.remove_way_out(known["ip_forward"])
    network.remove_bridge(network.SERVICES)
    for path in Path("/sys/fs/cgroup").glob(f"*/{CGROUP}"):
        with contextlib.suppress(OSError):
            path.rmdir()
    (MACHINE / "machine.json").unlink(missing_ok=True)


def spawn(argv: Sequence[str], log: Path, env: dict[str, str] | None = None) -> Process:
    """Start a process of its own session that outlives this one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    program = shutil.which(argv[0])
    if program is None:
        raise LabError(f"{argv[0]} is not installed; run `lab doctor`.")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        program,
        list(argv),
        {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGPIPE, signal.SIGTERM],
    )
    return Process.of(pid)


def end(process: Process, timeout: float = 5) -> None:
    """Ask a process to end, then make it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not process.alive:
            break
        os.kill(process.pid, number)
        wait_until(lambda: not process.alive, timeout=timeout)
    reap(process)


def reap(process: Process) -> None:
    """Collect a dead child; it may be another program's."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


def answers(address: str, port: int, timeout: float = 1) -> bool:
    """Whether something accepts connections."""
    try:
        socket.create_connection((address, port), timeout=timeout).close()
    except OSError:
        return False
    return True


def _cache_command() -> list[str]:
    if shutil.which("apt-cacher-ng") is None:
        raise LabError("apt-cacher-ng is not installed; run `lab install`.")
    user = pwd.getpwnam("apt-cacher-ng")
    CACHE.mkdir(parents=True, exist_ok=True)
    config, logs = MACHINE / "apt-cacher-ng", MACHINE / "apt-cacher-ng-log"
    for directory in (config, logs, CACHE / "packages"):
        directory.mkdir(parents=True, exist_ok=True)
    for directory in (logs, CACHE / "packages"):
        os.chown(directory, user.pw_uid, user.pw_gid)
    proxy = upstream_proxy()
    settings = [
        f"CacheDir: {CACHE / 'packages'}",
        f"LogDir: {logs}",
        f"Port: {CACHE_PORT}",
        f"BindAddress: {SERVICE4} [{SERVICE6}]",
        "PassThroughPattern: .*",
        "ReportPage:",
        "VerboseLog: 0",
        "ForeGround: 1",
        *([f"Proxy: {proxy}"] if proxy else []),
    ]
    write_atomic(config / "acng.conf", "\n".join([*settings, ""]), 0o644)
    return [
        "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
        "apt-cacher-ng", "-c", str(config),
    ]  # fmt: skip


def _mirror_command() -> list[str]:
    root = CACHE / "mirror"
    root.mkdir(parents=True, exist_ok=True)
    server = Path(__file__).with_name("server.py")
    return [sys.executable, "-I", str(server), str(root), str(MIRROR_PORT), SERVICE4, SERVICE6]


def _load() -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads((MACHINE / "machine.json").read_text())
    except FileNotFoundError:
        return {"boot": None}
    return known


def _save(known: object) -> None:
    write_atomic(MACHINE / "machine.json", json.dumps(known))
