"""What the machine lacks, and the line that cures it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .shell import LabError, run

# Program -> Debian package.
PROGRAMS: dict[str, str] = {
    "apt-cacher-ng": "apt-cacher-ng",
    "ip": "iproute2",
    "losetup": "mount",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
INSTANCES_ENOUGH = 8192
HOSTS_WITHOUT_MORE = 15


@dataclass(frozen=True)
class Problem:
    """Something that is missing."""

    what: str
    cure: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.cure}"


def examine(
    *,
    uid: int | None = None,
    which: Callable[[str], object] = shutil.which,
    root: Path = Path("/"),
) -> list[Problem]:
    """Everything that keeps the lab from working here."""
    problems = []
    if (os.geteuid() if uid is None else uid) != 0:
        problems.append(Problem("The lab needs root", "use sudo"))
    packages = missing_packages(which)
    if packages:
        problems.append(Problem("Programs are missing", f"apt-get install {' '.join(packages)} (or `lab install`)"))
    known = (root / "proc/filesystems").read_text().split()
    if "overlay" not in known:
        problems.append(Problem("The kernel has no overlay file system", "modprobe overlay"))
    if "cgroup2" not in (root / "proc/mounts").read_text():
        problems.append(Problem("No cgroup2 is mounted", "mount -t cgroup2 none /sys/fs/cgroup/unified"))
    if not (root / "dev/net/tun").exists() and not (root / "sys/class/net").exists():
        problems.append(Problem("There is no network to make bridges in", "use a machine with one"))
    if (root / "sys/fs/cgroup/memory").is_dir():
        problems.append(
            Problem(
                "Memory belongs to cgroup v1, so MemoryMax= of units inside hosts is not enforced",
                "boot the machine with systemd.unified_cgroup_hierarchy=1 where a test needs that",
                fatal=False,
            )
        )
    for device, option in (("dev/fuse", "fuse"), ("dev/loop-control", "btrfs= and disk=")):
        if not (root / device).exists():
            cure = f"modprobe {'fuse' if option == 'fuse' else 'loop'}"
            problems.append(Problem(f"/{device} is missing, so {option} of a host will not work", cure, fatal=False))
    return problems


def missing_packages(which: Callable[[str], object] = shutil.which) -> list[str]:
    """Debian packages whose programs are not there."""
    return sorted({package for program, package in PROGRAMS.items() if which(program) is None})


def require() -> None:
    """Stop with all problems in one message."""
    problems = [str(problem) for problem in examine() if problem.fatal]
    if problems:
        raise LabError("; ".join(problems))


def install() -> list[str]:
    """Install what is missing; services are not started."""
    packages = missing_packages()
    if packages:
        environment: Mapping[str, str] = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], timeout=300, env=environment)
        run(
            ["apt-get", "install", "--yes", "--no-install-recommends", *packages],
            timeout=600,
            env=environment,
        )
    return packages


def make_room_for(count: int) -> None:
    """Raise the kernel's limit on inotify instances when many hosts are to boot."""
    if count <= HOSTS_WITHOUT_MORE or int(INSTANCES.read_text()) >= INSTANCES_ENOUGH:
        return
    INSTANCES.write_text(str(INSTANCES_ENOUGH))
    print(f"lab: raised fs.inotify.max_user_instances to {INSTANCES_ENOUGH}", file=sys.stderr)
