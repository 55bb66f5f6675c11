"""What the machine lacks, and the line that cures it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
# What a container may withhold and no host boots without (CAP_MKNOD: no base is built), with the number of each.
CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}
# Debian's package cache starts when it is installed, on all addresses and on the port of the lab's own.
CACHE_PACKAGE, CACHE_UNIT = "apt-cacher-ng", Path("/etc/systemd/system/apt-cacher-ng.service")
POLICY = Path("/usr/sbin/policy-rc.d")
# In this mount namespace alone, so that a kill leaves nothing of it. /tmp and /run may not allow programs.
WITHOUT_SERVICES = """
set -e
scratch=$1 policy=$2
shift 2
mount -t tmpfs -o mode=0755 lab "$scratch"
printf '#!/bin/sh\\nexit 101\\n' >"$scratch/policy"
chmod 0755 "$scratch/policy"
mount --bind "$scratch/policy" "$policy"
"$@"
"""
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
    load: Callable[[str], object] | None = None,
) -> list[Problem]:
    """Everything that keeps the lab from working here; what is a module of the kernel is loaded first."""
    if not (root / "proc/self").exists():
        return [Problem("/proc is not mounted", "mount -t proc proc /proc")]
    load = load or load_module
    problems = []
    if (os.geteuid() if uid is None else uid) != 0:
        problems.append(Problem("The lab needs root", "use sudo"))
    elif lacking := missing_capabilities((root / "proc/self/status").read_text()):
        cure = "start the container with all capabilities, say docker run --privileged"
        problems.append(Problem(f"This process lacks {' '.join(lacking)}", cure))
    if not _is_mount_point("/", (root / "proc/self/mountinfo").read_text()):
        cure = "mount --bind DIRECTORY DIRECTORY before you enter it"
        problems.append(Problem("The root directory is no mount point, as in a chroot", cure))
    if not _has_machine_id(root / "etc/machine-id"):
        problems.append(Problem("/etc/machine-id has no id", "systemd-machine-id-setup"))
    packages = missing_packages(which)
    if packages:
        problems.append(Problem("Programs are missing", f"apt-get install {' '.join(packages)} (or `lab install`)"))
    # The modules of bridges, nftables and file systems are loaded by the kernel itself when they are used.
    if not _has_overlay(root):
        load("overlay")
    if not _has_overlay(root):
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
    for device, module, option in (("dev/fuse", "fuse", "fuse"), ("dev/loop-control", "loop", "btrfs= and disk=")):
        if not (root / device).exists():
            load(module)
        if not (root / device).exists():
            what = f"/{device} is missing, so {option} of a host will not work"
            problems.append(Problem(what, f"modprobe {module}", fatal=False))
    return problems


def load_module(name: str) -> None:
    """Load a module of the kernel, if there is such a one."""
    if shutil.which("modprobe"):
        run(["modprobe", "--quiet", name], check=False)


def missing_capabilities(status: str) -> list[str]:
    """Names of the needed capabilities that a process does not have; `status` as in /proc/PID/status."""
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return [name for name, number in CAPABILITIES.items() if not effective >> number & 1]


def _is_mount_point(path: str, mountinfo: str) -> bool:
    return any(line.split()[4] == path for line in mountinfo.splitlines())


def _has_machine_id(path: Path) -> bool:
    """Whether systemd-nspawn finds the id of which it makes the hardware addresses of hosts."""
    return path.is_file() and re.fullmatch(r"[0-9a-f]{32}\n?", path.read_text()) is not None


def _has_overlay(root: Path) -> bool:
    return "overlay" in (root / "proc/filesystems").read_text().split()


def missing_packages(which: Callable[[str], object] = shutil.which) -> list[str]:
    """Debian packages whose programs are not there."""
    return sorted({package for program, package in PROGRAMS.items() if which(program) is None})


def require() -> None:
    """Stop with all problems in one message."""
    problems = [str(problem) for problem in examine() if problem.fatal]
    if problems:
        raise LabError("; ".join(problems))


def install() -> list[str]:
    """Install what is missing; services are not started, now or when the machine boots."""
    packages = missing_packages()
    if packages:
        environment: Mapping[str, str] = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], timeout=300, env=environment)
        if CACHE_PACKAGE in packages and not os.path.lexists(CACHE_UNIT):
            CACHE_UNIT.parent.mkdir(parents=True, exist_ok=True)
            CACHE_UNIT.symlink_to("/dev/null")
        without_services(
            ["apt-get", "install", "--yes", "--no-install-recommends", *packages],
            timeout=600,
            env=environment,
        )
    return packages


def without_services(
    argv: Sequence[str], *, timeout: float = 30, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that installs packages, and let none of them start a service."""
    if run(["unshare", "--mount", "true"], check=False).returncode != 0:
        # While an image is built, say: there is no init that would keep a service.
        return run(argv, timeout=timeout, env=env)
    if not POLICY.exists():
        # Something to mount over; whoever asks it looks first whether it is a program.
        POLICY.touch(mode=0o644)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            words = ["unshare", "--mount", "sh", "-c", WITHOUT_SERVICES, "install", scratch, str(POLICY), *argv]
            return run(words, timeout=timeout, env=env)
    finally:
        if POLICY.read_bytes() == b"":
            POLICY.unlink()


def make_room_for(count: int) -> None:
    """Raise the kernel's limit on inotify instances when many hosts are to boot."""
    if count <= HOSTS_WITHOUT_MORE or int(INSTANCES.read_text()) >= INSTANCES_ENOUGH:
        return
    INSTANCES.write_text(str(INSTANCES_ENOUGH))
    print(f"lab: raised fs.inotify.max_user_instances to {INSTANCES_ENOUGH}", file=sys.stderr)
