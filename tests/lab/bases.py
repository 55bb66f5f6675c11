"""Base systems and package layers, built once and kept under the cache directory.

Each is a directory `<key>-<recipe>-<time>` that never changes once it has its name: hosts mount it as a lower
layer. A newer generation gets a new name; `collect` removes those that nobody uses.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .archive import Archive, find_archive, kept_settings
from .services import SERVICE_PROXY
from .shell import LabError, run
from .spec import HostSpec
from .state import CACHE, locked

DAY = 86400
BASE_AGE, LISTS_AGE = 7 * DAY, DAY
PACKAGES = (
    "acl", "attr", "ca-certificates", "dbus", "iproute2", "libcap2-bin", "openssh-server",
    "procps", "python3", "python3-apt", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
# Run in the finished base.
CUSTOMIZE = """
set -e
rm -f /etc/ssh/ssh_host_*
useradd --create-home --shell /bin/bash ops
echo 'ops ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops
chmod 0440 /etc/sudoers.d/ops
systemctl enable systemd-networkd.service
systemctl disable console-getty.service
systemctl mask apt-daily.timer apt-daily-upgrade.timer
: >/etc/machine-id
echo LANG=C.UTF-8 >/etc/default/locale
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /etc/hostname /etc/resolv.conf
"""
# Run apt-get over what lies below and leave the difference in a directory; nothing starts, nothing stays mounted.
LAYER = """
set -e
result=$1 lower=$2
shift 2
scratch=$result.scratch
mkdir "$scratch"
[ "$(stat -f -c %T "$scratch")" != overlayfs ] || mount -t tmpfs tmpfs "$scratch"
settings=etc/apt/apt.conf.d/99lab
mkdir -p "$scratch/upper/${settings%/*}" "$scratch/work" "$scratch/root"
printf %s "$LAB_APT" >"$scratch/upper/$settings"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
mount -t proc proc "$scratch/root/proc"
mount --rbind /dev "$scratch/root/dev"
mount -t sysfs -o ro sysfs "$scratch/root/sys"
printf '#!/bin/sh\nexit 101\n' >"$scratch/root/usr/sbin/policy-rc.d"
chmod 0755 "$scratch/root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$scratch/root" apt-get -q -y -o DPkg::Options::=--force-unsafe-io "$@"
chroot "$scratch/root" apt-get clean
rm "$scratch/root/usr/sbin/policy-rc.d" "$scratch/root/$settings"
cp -a "$scratch/upper/." "$result"
"""
# The build dies with the lab that asked for it and takes its mounts along.
_CONTAINED = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
)  # fmt: skip


def lowers_of(spec: HostSpec) -> list[Path]:
    """The layers below a host's own disk, topmost first; builds what is missing."""
    archive = find_archive()
    base = _base(spec.suite, archive)
    lists = _lists(spec.suite, base)
    if not spec.packages:
        return [lists, base]
    return [lists, _layer(spec.suite, spec.packages, lists, base), base]


def collect(used: Iterable[str]) -> None:
    """Remove what was replaced or expired a day ago and lies under no host."""
    kept = set(used)
    found = [path for path in _root().glob("*-*-*-*") if path.name.rpartition("-")[2].isdecimal()]
    newest: dict[str, int] = {}
    for path in found:
        for key in _names(path):
            newest[key] = max(newest.get(key, 0), _built(path))
    for path in found:
        kind, exact = _names(path)
        rival = newest[exact if path.name.startswith("layer-") else kind]
        expired = rival if rival > _built(path) else _built(path) + BASE_AGE
        last = rival == _built(path) and not path.name.startswith("layer-")
        if str(path) not in kept and not last and time.time() > expired + DAY:
            shutil.rmtree(path, ignore_errors=True)


def _names(path: Path) -> tuple[str, str]:
    """`base-trixie` and `base-trixie-<recipe>`."""
    exact = path.name.rpartition("-")[0]
    return exact.rpartition("-")[0], exact


def _built(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def apt_settings(proxy: str) -> str:
    """The apt.conf of a guest."""
    lines = [f'Acquire::http::Proxy "{proxy}";', 'Acquire::Languages "none";', *kept_settings()]
    return "\n".join([*lines, ""])


def _root() -> Path:
    return CACHE / "bases"


def _generations(key: str) -> list[Path]:
    found = _root().glob(f"{key}-*")
    return sorted((path for path in found if path.name[len(key) + 1 :].isdecimal()), key=_built)


def _cached(key: str, recipe: object, max_age: float, build: Callable[[Path], None]) -> Path:
    """The current generation of something, built when there is none that is fresh."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    key = f"{key}-{digest}"
    _root().mkdir(parents=True, exist_ok=True)
    _root().chmod(0o700)
    with locked(_root() / f".{key}.lock", timeout=900, what=f"the build of {key}"):
        known = _generations(key)
        if known and time.time() - _built(known[-1]) < max_age:
            return known[-1]
        building = _root() / f".building-{key}"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        begun = time.monotonic()
        try:
            build(building)
        except LabError as error:
            shutil.rmtree(building, ignore_errors=True)
            if not known:
                raise
            print(f"lab: {key} could not be renewed, the old one serves: {error}", file=sys.stderr)
            return known[-1]
        finished = _root() / f"{key}-{int(time.time())}"
        building.rename(finished)
        print(f"lab: built {key} in {time.monotonic() - begun:.1f} s", file=sys.stderr)
        return finished


def _base(suite: str, archive: Archive) -> Path:
    sources = archive.sources(suite)

    def build(target: Path) -> None:
        arguments = [
            "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            "--skip=cleanup/apt/lists",
            "--dpkgopt=force-unsafe-io",
            *(f"--aptopt={line}" for line in apt_settings(SERVICE_PROXY).splitlines()),
            '--customize-hook=chroot "$1" sh -c "$LAB_CUSTOMIZE"',
            suite, str(target), *sources,
        ]  # fmt: skip
        run([*_CONTAINED, *arguments], timeout=600, env={"LAB_CUSTOMIZE": CUSTOMIZE})
        (target / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)

    return _cached(f"base-{suite}", [sources, PACKAGES, CUSTOMIZE, 1], BASE_AGE, build)


def _lists(suite: str, base: Path) -> Path:
    """Today's package lists, so that `apt-get install` works without an update before it."""

    def build(target: Path) -> None:
        _install(target, [base], ["update"])
        for path in _all_but(target, ["var/lib/apt/lists"]):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    return _cached(f"lists-{suite}", [base.name, 1], LISTS_AGE, build)


def _layer(suite: str, packages: tuple[str, ...], lists: Path, base: Path) -> Path:
    def build(target: Path) -> None:
        _install(target, [lists, base], ["install", "--no-install-recommends", *packages])
        shutil.rmtree(target / "var/lib/apt/lists", ignore_errors=True)

    return _cached(f"layer-{suite}", [base.name, packages, 1], BASE_AGE, build)


def _install(target: Path, lowers: list[Path], command: list[str]) -> None:
    """Run apt-get over some layers and leave the difference in `target`."""
    scratch = target.with_name(f"{target.name}.scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    below = ":".join(map(str, lowers))
    try:
        run(
            [*_CONTAINED, "sh", "-c", LAYER, "layer", str(target), below, *command],
            timeout=600,
            env={"LAB_APT": apt_settings(SERVICE_PROXY)},
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _all_but(root: Path, kept: list[str]) -> list[Path]:
    """The highest paths below `root` that neither are, hold nor lie below one of the kept."""
    found = []
    pending = [root]
    keep = [root / name for name in kept]
    while pending:
        for path in pending.pop().iterdir():
            if path in keep:
                continue
            if any(other.is_relative_to(path) for other in keep):
                pending.append(path)
            else:
                found.append(path)
    return found
