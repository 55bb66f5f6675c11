"""Where the lab remembers things, and how it knows a process again."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .shell import LabError

RUN = Path(os.environ.get("HOLDFAST_LAB_RUN", "/run/holdfast-lab"))
CACHE = Path(os.environ.get("HOLDFAST_LAB_CACHE", "/var/cache/holdfast-lab"))
MACHINE = RUN / ".machine"
CGROUP = "holdfast-lab"


@dataclass(frozen=True)
class Process:
    """A process that a reused number cannot be mistaken for."""

    pid: int
    start: int

    @staticmethod
    def of(pid: int) -> Process:
        """Remember a running process."""
        start = _start_time(pid)
        if start is None:
            raise LabError(f"There is no process {pid}.")
        return Process(pid, start)

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return _start_time(self.pid) == self.start


def _start_time(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass
class HostState:
    """One host of a lab."""

    name: str
    suite: str
    options: str
    number: int
    lowers: list[str] = field(default_factory=list)
    process: Process | None = None
    ready: bool = False


@dataclass
class LabState:
    """One lab; what is in its lab.json."""

    name: str
    index: int
    boot: str
    disks: str
    owner: Process | None = None
    watchdog: Process | None = None
    hosts: dict[str, HostState] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Keys, consoles and mount points."""
        return lab_directory(self.name)

    def save(self) -> None:
        """Write lab.json in one piece."""
        write_atomic(self.directory / "lab.json", json.dumps(asdict(self), indent=1))


def lab_directory(name: str) -> Path:
    """Where a lab keeps its state."""
    return RUN / name


def load(name: str) -> LabState | None:
    """Read a lab, or None when there is none of that name."""
    try:
        data: dict[str, Any] = json.loads((lab_directory(name) / "lab.json").read_text())
    except FileNotFoundError:
        return None
    hosts = {
        key: HostState(**{**value, "process": _process(value["process"])}) for key, value in data.pop("hosts").items()
    }
    owner, watchdog = _process(data.pop("owner")), _process(data.pop("watchdog"))
    return LabState(**data, owner=owner, watchdog=watchdog, hosts=hosts)


def load_all() -> list[LabState]:
    """Every lab of this machine, by name."""
    found = (load(path.parent.name) for path in sorted(RUN.glob("[a-z]*/lab.json")))
    return [state for state in found if state is not None]


def boot_id() -> str:
    """Which boot of the machine this is; state of an earlier one is void."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_atomic(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as stream:
        os.fchmod(descriptor, mode)
        stream.write(text)
    os.replace(temporary, path)


@contextlib.contextmanager
def locked(path: Path, *, timeout: float, what: str) -> Iterator[None]:
    """Hold an exclusive lock, which the kernel drops with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with path.open("w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy(f"Another lab command still holds {what}; try again.") from None
                time.sleep(0.1)
        yield


@contextlib.contextmanager
def shared_use() -> Iterator[None]:
    """Keep the shared services up without having a lab."""
    MACHINE.mkdir(parents=True, exist_ok=True)
    with (MACHINE / "users.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield


def in_shared_use() -> bool:
    """Whether somebody is inside shared_use; called with the machine locked."""
    MACHINE.mkdir(parents=True, exist_ok=True)
    with (MACHINE / "users.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Busy(LabError):
    """Somebody else works on the same thing."""


def machine_lock(timeout: float = 60) -> contextlib.AbstractContextManager[None]:
    """What labs share: subnets, bridges, services."""
    return locked(MACHINE / "lock", timeout=timeout, what="the machine")


def lab_lock(name: str, timeout: float = 900) -> contextlib.AbstractContextManager[None]:
    """One lab."""
    return locked(MACHINE / f"lab-{name}.lock", timeout=timeout, what=f"the lab {name}")


def _process(data: dict[str, int] | None) -> Process | None:
    return None if data is None else Process(**data)
