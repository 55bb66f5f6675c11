"""What a user asks for: `vault1=trixie:ipv6only,disk=/srv:64M`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .shell import LabError

SUITES = ("bookworm", "trixie")

# Package sets on top of a base. `layer=restic+databases` combines them into one.
LAYERS: dict[str, tuple[str, ...]] = {
    "restic": ("restic", "age"),
    "server": ("restic", "age", "rclone", "restic-rest-server"),
    "borg": ("borgbackup", "borgmatic"),
    "databases": ("postgresql", "mariadb-server", "sqlite3"),
    "monitoring": ("prometheus-node-exporter",),
}
# What a suite does not have is left out of its layers.
NOT_IN_SUITE: dict[str, frozenset[str]] = {"bookworm": frozenset({"restic-rest-server"})}

_NAME = re.compile(r"\A[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_LAB = re.compile(r"\A[a-z][a-z0-9_-]{0,40}\Z")
_CAPABILITY = re.compile(r"\ACAP_[A-Z_]+\Z")
_SIZE = re.compile(r"\A([1-9][0-9]*)([KMG]?)\Z")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
OPTIONS = "ipv6only, fuse, nosystemd, nobind, btrfs=/path, btrfsquota, disk=/path:SIZE, memory=SIZE, layer=NAME, without=CAP_NAME"


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """One host as it was asked for."""

    name: str
    suite: str
    ipv6only: bool = False
    fuse: bool = False
    nosystemd: bool = False
    nobind: bool = False
    btrfs: str | None = None
    btrfsquota: bool = False
    memory: int | None = None
    without: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    disks: tuple[tuple[str, int], ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """What the host's layer adds to the base."""
        wanted = {package for layer in self.layers for package in LAYERS[layer]}
        return tuple(sorted(wanted - NOT_IN_SUITE.get(self.suite, frozenset())))


def check_lab_name(name: str) -> str:
    """Return the name of a lab or refuse it."""
    if not _LAB.match(name):
        raise LabError(f"'{name}' is no name for a lab: use a-z, 0-9, - and _, starting with a letter.")
    return name


def parse_size(text: str) -> int:
    """`64M` in bytes."""
    match = _SIZE.match(text)
    if match is None:
        raise LabError(f"'{text}' is no size: write a number and K, M or G, say 64M.")
    return int(match[1]) * _UNITS[match[2]]


def parse_host(text: str) -> HostSpec:
    """Parse `HOST=SUITE[:option,…]`."""
    name, equals, rest = text.partition("=")
    suite, _colon, options = rest.partition(":")
    if not equals:
        raise LabError(f"'{text}' names no suite: write {name or 'host'}=trixie.")
    return make_host(name, suite, options)


def make_host(name: str, suite: str, options: str = "") -> HostSpec:
    """Build a host from its name, its suite and its comma separated options."""
    if not _NAME.match(name) or len(name) > 40:
        raise LabError(f"'{name}' is no host name: use a-z, 0-9 and single hyphens.")
    if suite not in SUITES:
        raise LabError(f"'{suite}' is no suite of the lab: choose {' or '.join(SUITES)}.")
    flags: set[str] = set()
    btrfs: str | None = None
    memory: int | None = None
    layers: list[str] = []
    without: list[str] = []
    disks: list[tuple[str, int]] = []
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if key in {"ipv6only", "fuse", "nosystemd", "nobind", "btrfsquota"} and not equals:
            flags.add(key)
        elif key == "btrfs" and _is_path(value):
            btrfs = value
        elif key == "memory":
            memory = parse_size(value)
        elif key == "without" and _CAPABILITY.match(value):
            without.append(value)
        elif key == "layer" and value:
            layers += value.split("+")
        elif key == "disk" and _is_path(value.partition(":")[0]):
            path, _colon, size = value.partition(":")
            disks.append((path, parse_size(size)))
        else:
            raise LabError(f"'{option}' is no option of a host: there are {OPTIONS}.")
    for layer in layers:
        if layer not in LAYERS:
            raise LabError(f"'{layer}' is no layer: there are {', '.join(sorted(LAYERS))}.")
    if "btrfsquota" in flags and btrfs is None:
        raise LabError(f"btrfsquota of {name} needs btrfs=/path beside it.")
    return HostSpec(
        name=name,
        suite=suite,
        ipv6only="ipv6only" in flags,
        fuse="fuse" in flags,
        nosystemd="nosystemd" in flags,
        nobind="nobind" in flags,
        btrfs=btrfs,
        btrfsquota="btrfsquota" in flags,
        memory=memory,
        without=tuple(without),
        layers=tuple(sorted(set(layers))),
        disks=tuple(disks),
    )


def _is_path(value: str) -> bool:
    return value.startswith("/") and value != "/" and ".." not in value.split("/")
