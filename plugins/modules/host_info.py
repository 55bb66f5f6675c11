#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Read what a host offers to backups, in one execution
version_added: '0.1.0'
author: holdfast contributors (@holdfast-backup)
description:
  - Reads versions, what apt offers, calendars, address resolution, files, mounts and what the collection keeps on the host.
  - It changes nothing. What cannot be known is null. It fails for who is not root.
options:
  packages:
    description: Names of packages of which to tell the installed and the candidate version, and all versions that apt knows.
    type: list
    elements: str
    default: []
  package_releases:
    description: By name of a package the release that apt is to prefer for its candidate, as C(apt -t) does.
    type: dict
    default: {}
  binaries:
    description: Names or paths of programs that are to be asked for their version.
    type: list
    elements: str
    default: []
  calendars:
    description: Calendar expressions that the host's C(systemd-analyze) is to check.
    type: list
    elements: str
    default: []
  resolve:
    description: Addresses that the host is to resolve, as strings or as dictionaries with C(address) and C(variable).
    type: list
    elements: raw
    default: []
  accounts:
    description: Names of accounts of which to tell whether the host has them.
    type: list
    elements: str
    default: []
  files:
    description: Paths of files of which to tell the SHA-256.
    type: list
    elements: path
    default: []
  interpreters:
    description: Paths of programs of which to tell the Python that their first line names.
    type: list
    elements: path
    default: []
  mounts:
    description: Paths of which to tell whether something is mounted there.
    type: list
    elements: path
    default: []
  file_systems:
    description: Paths of which to tell the type of the file system, of the nearest directory above where a path is missing.
    type: list
    elements: path
    default: []
  subvolumes:
    description: Directories of repositories that are to get a quota, of which to tell what is there.
    type: list
    elements: path
    default: []
  places:
    description: Directories that are to hold repositories, of which to tell what others would lose by it.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The directory.
        type: path
        required: true
      account:
        description: Account that is to have it.
        type: str
        required: true
      private:
        description: Whether nobody else may use it then.
        type: bool
        default: true
  trees:
    description: Namespaces of M(holdfast.backup.file_tree) of which to tell what that module would find.
    type: list
    elements: str
    default: []
  units:
    description:
      - By namespace of M(holdfast.backup.units) the units as its option O(holdfast.backup.units#module:units) takes them. It is told whether that module
        would find anything to do with them and O(holdfast.backup.units#module:retire_absent=true).
    type: dict
    default: {}
  status_program:
    description: Program that is asked with C(status --json).
    type: path
  running:
    description: Patterns of units of which to list the active ones.
    type: list
    elements: str
    default: []
  sandbox_probe:
    description: Start a short transient unit to see whether the sandbox of the run units works on this host.
    type: bool
    default: false
  server_sandbox_probe:
    description: The same for the sandbox of rest-server.
    type: bool
    default: false
  timeout:
    description: How long anything may take that waits for something else, in seconds.
    type: float
    default: 120
attributes:
  check_mode:
    description: Reads the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Linux.
    support: full
    platforms: linux
"""

EXAMPLES = r"""
- name: Look at a host
  holdfast.backup.host_info:
    packages: [restic, age]
    calendars: [daily, "Mon..Fri 02:30 Europe/Berlin"]
    resolve: [vault1.example.net]
    running: ["holdfast-*.service"]
  register: host
"""

RETURN = r"""
packages:
  description: C(installed) and C(candidate) version by name, null where apt knows none, and C(versions), those that it could install or has.
  returned: always
  type: dict
  sample: {restic: {installed: null, candidate: 0.18.0-1+b4, versions: [0.18.0-1+b4]}}
apt:
  description:
    - Whether the host has apt, null where no packages were asked for. Where it has none, the C(installed) version of a package is C(by hand)
      if the host has its program, and null if not.
  returned: always
  type: bool
  sample: true
apt_lists:
  description:
    - Whether apt has any package lists, which a host has not where C(apt update) never ran. Null where apt knows all packages that
      were asked for, and where there is no apt.
  returned: always
  type: bool
  sample: null
binaries:
  description: Version by name or path, null where the program is missing or tells none.
  returned: always
  type: dict
  sample: {restic: 0.18.0}
calendars:
  description: C(valid), C(error) and C(never), whether its time never comes again, by expression. C(valid) is null without C(systemd-analyze).
  returned: always
  type: dict
  sample: {daily: {valid: true, error: null, never: false}}
resolve:
  description: C(addresses), C(error) and C(variable) by address.
  returned: always
  type: dict
  sample: {vault1.example.net: {addresses: [192.0.2.10], error: null, variable: null}}
accounts:
  description: Whether the host has the account, by name.
  returned: always
  type: dict
  sample: {holdfast: true}
files:
  description: SHA-256 by path, null where there is no readable regular file.
  returned: always
  type: dict
  sample: {/usr/local/bin/holdfast: null}
interpreters:
  description: By path the Python that runs a program, empty for one that is no program of Python's, null where there is none.
  returned: always
  type: dict
  sample: {/usr/bin/borg: /usr/bin/python3}
mounts:
  description: Whether something is mounted on a path, null where that cannot be known in time.
  returned: always
  type: dict
  sample: {/srv/backup: true}
file_systems:
  description: Type of the file system by path, as C(stat --file-system) names it, null where that cannot be known in time.
  returned: always
  type: dict
  sample: {/srv/holdfast: btrfs}
subvolumes:
  description:
    - By path C(absent), C(empty) (a directory without anything in it), C(subvolume) (of btrfs) or C(other), null where that cannot be known.
  returned: always
  type: dict
  sample: {/srv/holdfast/web1--vault: subvolume}
places:
  description:
    - By path the C(owner) of a directory that is to be another account's place of repositories, and as C(foreign) the
      name of something in it that is no repository. Null where nobody would lose anything, or that cannot be known.
  returned: always
  type: dict
  sample: {/srv/holdfast: null, /mnt/usb: {owner: olga, foreign: photos}}
running:
  description: Names of active, starting and stopping units that match the patterns, null without systemd.
  returned: always
  type: list
  elements: str
  sample: [holdfast-system--vault.service]
manifests:
  description: What the modules M(holdfast.backup.file_tree) (paths) and M(holdfast.backup.units) (names) keep, by namespace.
  returned: always
  type: dict
  sample: {file_tree: {jobs: [/etc/holdfast/escrow.json]}, units: {jobs: [holdfast-system--vault.timer]}}
trees:
  description:
    - C(files) and C(directories) of the manifest of a namespace, and as C(entries) what is at each of these paths, as a list of kind,
      owner, group, mode and SHA-256. Null where M(holdfast.backup.file_tree) has to look itself. The filter
      P(holdfast.backup.tree_differs#filter) compares it with what is wanted.
  returned: always
  type: dict
  sample: {jobs: {files: [/etc/x], directories: {/etc: false}, entries: {/etc: [directory, root, root, '0755', '']}}}
settled:
  description: The namespaces of O(units) with which M(holdfast.backup.units) has nothing to do.
  returned: always
  type: list
  elements: str
  sample: [jobs]
status:
  description: What C(status --json) of O(status_program) said, null where it is not there or fails.
  returned: always
  type: str
  sample: '{"units": []}'
records:
  description: What was learnt of repositories that were initialised, by repository.
  returned: always
  type: dict
  sample: {vault: {HOLDFAST_REPOSITORY_ID: 0123456789abcdef, RESTIC_KEY_HINT: 89abcdef}}
htpasswd:
  description:
    - C(fleet_id) of the fleet that this host serves repositories to, and its C(users) with the C(backup_id) that each belongs to, as the
      module M(holdfast.backup.htpasswd) keeps them. Null where it serves none.
  returned: always
  type: dict
  sample: {fleet_id: 6f1c1f0e9a3b4d536f1c1f0e9a3b4d53, users: {web1--vault: web1}}
ssh_accounts:
  description:
    - C(fleet_id) of the fleet whose clients this host serves over SSH, and the C(accounts) that have access, with the C(backup_id) that each
      belongs to and the C(repositories) that it has keys of, as the module M(holdfast.backup.ssh_accounts) keeps them. Null where it
      serves none.
  returned: always
  type: dict
  sample: {fleet_id: 6f1c1f0e9a3b4d536f1c1f0e9a3b4d53, accounts: {bk-web1: {backup_id: web1, repositories: [offsite]}}}
foreign_accounts:
  description: Accounts in C(/etc/passwd) whose name begins with C(bk-), and that the module M(holdfast.backup.ssh_accounts) did not make.
  returned: always
  type: list
  elements: str
  sample: [bk-olga]
escrow_copies:
  description:
    - Names of the escrow bundles that the module M(holdfast.backup.escrow_copies) keeps here, by C(<backup_id>--<repository>), the
      first 1000 of each.
  returned: always
  type: dict
  sample: {web1--vault: [0123456789abcdef0123456789abcdef-0123456789abcdef.age]}
ssh_host_keys:
  description: Public host keys of the SSH server of this host, as C(TYPE BASE64), read from C(/etc/ssh/ssh_host_*_key.pub).
  returned: always
  type: list
  elements: str
  sample: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4aVo0w1Rb3Ck4Nq4o2j5w6d1xk7f1u9XU8r8C3dB0a]
sandbox:
  description: C(works) and C(error) of the probe, null where it was not asked for, there is no systemd, or nothing was heard in time.
  returned: always
  type: dict
  sample: {works: true, error: null}
server_sandbox:
  description: The same of O(server_sandbox_probe).
  returned: always
  type: dict
  sample: null
reads_everything:
  description:
    - Whether a process of this host can have C(CAP_DAC_READ_SEARCH), by the bounding set of PID 1, which a container's manager
      may have made smaller. Null where that cannot be read.
  returned: always
  type: bool
  sample: true
systemd:
  description: Version of systemd, null where it is not PID 1.
  returned: always
  type: int
  sample: 257
selinux:
  description: C(enforcing), C(permissive) or C(disabled), null where there is no SELinux.
  returned: always
  type: str
  sample: null
virtualization:
  description: What C(systemd-detect-virt) says, C(none) on bare metal.
  returned: always
  type: str
  sample: kvm
python:
  description: Version of the Python that ran the module.
  returned: always
  type: str
  sample: 3.13.5
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import platform
import pwd
import re
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.backup.plugins.module_utils import (
    _location,
    _place_seen,
    _run,
    _serve,
    _ssh,
    _tree_seen,
    _unit_requests,
)
from ansible_collections.holdfast.backup.plugins.module_utils._btrfs import Storage
from ansible_collections.holdfast.backup.plugins.module_utils._escrow import BUNDLE_NAME, COPIES
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError
from ansible_collections.holdfast.backup.plugins.module_utils._htpasswd import parse_manifest
from ansible_collections.holdfast.backup.plugins.module_utils._ssh_accounts import PREFIX, comment_of
from ansible_collections.holdfast.backup.plugins.module_utils._ssh_accounts import parse_manifest as parse_accounts

STATE = "/var/lib/holdfast"
HTPASSWD = "/var/lib/holdfast/htpasswd.json"
SSH_ACCOUNTS = "/var/lib/holdfast/ssh_accounts.json"
ACCOUNTS = "/etc/passwd"
ESCROW = "/var/lib/holdfast/escrow"
# They are never removed. Those that are not named are only brought again.
MOST_COPIES = 1000
_COPIES = re.compile(rf"\A{COPIES}\Z")
SSH = "/etc/ssh"
# What the unit template of a job sets, apart from its account and capability.
SANDBOX = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateDevices=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectControlGroups=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelTunables=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RemoveIPC=yes",
    "PrivateMounts=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources open_by_handle_at",
    "SystemCallErrorNumber=EPERM",
    "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
)
# What the unit template of rest-server leaves out of a reduced sandbox, apart from its path.
SERVER_SANDBOX = (
    "PrivateNetwork=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateUsers=yes",
    "PrivateIPC=yes",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectControlGroups=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "DevicePolicy=closed",
)
_BOOTED = "/run/systemd/system"
_INIT_STATUS = "/proc/1/status"
# Its number in capabilities(7).
_CAP_DAC_READ_SEARCH = 2
_SELINUX = "/sys/fs/selinux/enforce"
_SELINUX_CONFIGURATION = "/etc/selinux/config"
_RUNNING_STATES = "active,activating,deactivating,reloading"

# What is used of a package, where that has another name than the package; each is looked for where there is no apt.
_PROGRAMS = {
    "borgbackup": "borg",
    "btrfs-progs": "btrfs",
    "libcap2-bin": "capsh",
    "openssh-client": "ssh",
    "openssh-server": "sshd",
}
_MORE_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
BY_HAND = "by hand"

_PACKAGE = re.compile(r"\A[a-z0-9][a-z0-9+.:-]*\Z")
_VERSION = re.compile(r"\bv?(\d+(?:\.\d+)+[0-9A-Za-z.+~-]*)")
# A version in the table of `apt-cache policy`; where it comes from is further right.
_TABLE = re.compile(r"\A(?: {5}| \*\*\* )(\S+) ")
_RECORD_LINE = re.compile(r"\A([A-Z_]+)=([0-9A-Za-z-]*)\Z")

ARGUMENT_SPEC: dict[str, Any] = {
    "packages": {"type": "list", "elements": "str", "default": []},
    "package_releases": {"type": "dict", "default": {}},
    "binaries": {"type": "list", "elements": "str", "default": []},
    "calendars": {"type": "list", "elements": "str", "default": []},
    "resolve": {"type": "list", "elements": "raw", "default": []},
    "accounts": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "path", "default": []},
    "interpreters": {"type": "list", "elements": "path", "default": []},
    "mounts": {"type": "list", "elements": "path", "default": []},
    "file_systems": {"type": "list", "elements": "path", "default": []},
    "subvolumes": {"type": "list", "elements": "path", "default": []},
    "places": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "account": {"type": "str", "required": True},
            "private": {"type": "bool", "default": True},
        },
    },
    "trees": {"type": "list", "elements": "str", "default": []},
    "units": {"type": "dict", "default": {}},
    "status_program": {"type": "path"},
    "running": {"type": "list", "elements": "str", "default": []},
    "sandbox_probe": {"type": "bool", "default": False},
    "server_sandbox_probe": {"type": "bool", "default": False},
    "timeout": {"type": "float", "default": 120},
}


def together(tasks: dict[str, Callable[[], Any]], timeout: float) -> dict[str, Any]:
    """Call all functions at the same time; None for those that fail or have not ended after `timeout` seconds.

    A thread that hangs (in a name server, on a dead mount) is left behind and ends with the process.
    """
    results: dict[str, Any] = dict.fromkeys(tasks)

    def call(name: str, function: Callable[[], Any]) -> None:
        try:
            value = function()
        except (OSError, ValueError):
            return
        results[name] = value

    threads = [threading.Thread(target=call, args=item, daemon=True) for item in tasks.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(results)


def _unknown() -> dict[str, Any]:
    """A package that apt does not know."""
    return {"installed": None, "candidate": None, "versions": []}


def parse_policy(text: str) -> dict[str, dict[str, Any]]:
    """Installed and candidate version by package, and all versions, from `apt-cache policy`."""
    found: dict[str, dict[str, Any]] = {}
    current = _unknown()
    for line in text.splitlines():
        if line and not line[0].isspace():
            current = found.setdefault(line.rstrip(":"), _unknown())
        key, _colon, value = line.strip().partition(": ")
        if key in ("Installed", "Candidate") and value != "(none)":
            current[key.lower()] = value
        version = _TABLE.match(line)
        if version:
            current["versions"].append(version.group(1))
    return found


def parse_calendars(text: str) -> list[bool]:
    """Whether the time of each expression in the output of `systemd-analyze calendar` never comes."""
    never: list[bool] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("Normalized form:"):
            never.append(False)
        elif line == "Next elapse: never" and never:
            never[-1] = True
    return never


def parse_record(text: str) -> dict[str, str]:
    """The NAME=value lines of a record."""
    return {found.group(1): found.group(2) for found in map(_RECORD_LINE.match, text.splitlines()) if found}


def version_argv(binary: str) -> list[str]:
    """How to ask a program for its version. rest-server must never get anything that could start it."""
    name = os.path.basename(binary)
    return [binary, "version" if name.startswith("restic") and "server" not in name else "--version"]


def _by_hand(package: str) -> dict[str, Any]:
    """What is there of a package that apt cannot tell of."""
    if package == "python3-venv":
        there = importlib.util.find_spec("ensurepip") is not None
    else:
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_MORE_PATHS))
        there = shutil.which(_PROGRAMS.get(package, package), path=path) is not None
    return {**_unknown(), "installed": BY_HAND if there else None}


def _packages(names: list[str], releases: dict[str, Any], timeout: float) -> tuple[bool, dict[str, dict[str, Any]]]:
    """Whether there is an apt, and what is known of each package."""
    unknown = {name: _unknown() for name in names}
    suites: dict[str, list[str]] = {}
    for name in names:
        if _PACKAGE.match(name):
            suites.setdefault(releases.get(name) or "", []).append(name)
    found: dict[str, dict[str, Any]] = {}
    for release, known in suites.items():
        argv = ["apt-cache", *(["-o", f"APT::Default-Release={release}"] if release else []), "policy", *known]
        try:
            done = _run.run(argv, timeout=timeout)
        except FileNotFoundError:
            return False, {name: _by_hand(name) for name in names}
        if done.timed_out:
            raise TimeoutError
        found.update(parse_policy(done.stdout))
    return True, {name: found.get(name, nothing) for name, nothing in unknown.items()}


def _apt_lists(timeout: float) -> bool | None:
    """Whether apt knows of packages from elsewhere than dpkg."""
    try:
        done = _run.run(["apt-cache", "policy"], timeout=timeout)
    except FileNotFoundError:
        return None
    return any(line.endswith(" Packages") for line in done.stdout.splitlines()) if done.code == 0 else None


def _version(binary: str, timeout: float) -> str | None:
    done = _run.run(version_argv(binary), timeout=timeout)
    found = _VERSION.search(done.stdout or done.stderr)
    return found.group(1) if found else None


def _calendars(expressions: list[str], timeout: float) -> dict[str, dict[str, Any]]:
    done = _run.run(["systemd-analyze", "calendar", "--", *expressions], timeout=timeout)
    found = parse_calendars(done.stdout)
    if done.code == 0 and len(found) == len(expressions):
        return {each: {"valid": True, "error": None, "never": never} for each, never in zip(expressions, found)}
    if len(expressions) > 1:
        # The output does not tell which of them are bad: ask for each.
        return {each: _calendars([each], timeout)[each] for each in expressions}
    lines = done.stderr.strip().splitlines() or ["no output"]
    return {expressions[0]: {"valid": None if done.timed_out else False, "error": lines[0], "never": None}}


def _resolve(address: str) -> dict[str, Any]:
    host = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return {"addresses": [], "error": getattr(error, "strerror", None) or str(error)}
    return {"addresses": sorted({str(each[4][0]) for each in found}), "error": None}


def _sha256(path: str) -> str | None:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return None
        digest = hashlib.sha256()
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
        return digest.hexdigest()


def _is_mounted(path: str) -> bool:
    return _location.mount_problem(path, os.path.normpath(path)) is None


def _file_system(path: str, timeout: float) -> str | None:
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    done = _run.run(["stat", "--file-system", "--format=%T", "--", path], timeout=timeout)
    return done.stdout.strip() or None if done.code == 0 else None


def _subvolumes(paths: list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    with Tree() as tree:
        for path in paths:
            found[path] = None
            directory, name = os.path.split(path)
            with contextlib.suppress(OSError, UnsafePathError):
                tree.trust([directory])
                found[path] = Storage(tree, directory).find(name).kind
    return found


def _running(patterns: list[str], timeout: float) -> list[str] | None:
    argv = ["systemctl", "list-units", "--plain", "--no-legend", "--no-pager", "--full", f"--state={_RUNNING_STATES}"]
    done = _run.run([*argv, "--", *patterns], timeout=timeout)
    return sorted(line.split()[0] for line in done.stdout.splitlines() if line.strip()) if done.code == 0 else None


def _systemd(timeout: float) -> int | None:
    if not os.path.isdir(_BOOTED):
        return None
    found = re.match(r"systemd (\d+)", _run.run(["systemctl", "--version"], timeout=timeout).stdout)
    return int(found.group(1)) if found else None


def _virtualization(timeout: float) -> str | None:
    return _run.run(["systemd-detect-virt"], timeout=timeout).stdout.strip() or None


def _sandbox(properties: tuple[str, ...], timeout: float) -> dict[str, Any] | None:
    if not os.path.isdir(_BOOTED):
        return None
    argv = ["systemd-run", "--wait", "--pipe", "--quiet", "--collect"]
    for value in properties:
        argv += ["--property", value]
    done = _run.run([*argv, "--", "/bin/true"], timeout=timeout)
    if done.code == 0:
        return {"works": True, "error": None}
    if done.timed_out:
        # It is slow, or busy: that says nothing of its sandbox.
        return None
    lines = done.stderr.strip().splitlines()
    return {"works": False, "error": lines[0] if lines else f"exit status {done.code}"}


def _reads_everything() -> bool | None:
    try:
        with open(_INIT_STATUS, encoding="ascii", errors="replace") as stream:
            bounds = next(line for line in stream if line.startswith("CapBnd:"))
        return bool(int(bounds.split()[1], 16) >> _CAP_DAC_READ_SEARCH & 1)
    except (OSError, ValueError, StopIteration, IndexError):
        return None


def _selinux() -> str | None:
    try:
        with open(_SELINUX, encoding="ascii") as stream:
            return "enforcing" if stream.read().strip() == "1" else "permissive"
    except OSError:
        return "disabled" if os.path.exists(_SELINUX_CONFIGURATION) else None


def _texts(directory: str, suffix: str) -> dict[str, str]:
    texts = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        if name.endswith(suffix) and not name.startswith("."):
            with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as stream:
                texts[name[: -len(suffix)]] = stream.read()
    return texts


def _manifest(directory: str, key: str) -> dict[str, list[str]]:
    found = {}
    for namespace, text in _texts(directory, ".json").items():
        try:
            content = json.loads(text)
        except ValueError:
            # The module that owns it says what is wrong with it, when it comes to that.
            continue
        if isinstance(content, dict):
            found[namespace] = sorted(content.get(key) or ())
    return found


def _has_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _account_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "somebody"


def _htpasswd() -> dict[str, Any] | None:
    try:
        manifest = parse_manifest(json.loads(_texts(STATE, ".json").get("htpasswd", "null")), HTPASSWD)
    except ValueError:
        # The module that owns it says what is wrong with it.
        return None
    return None if manifest is None else {"fleet_id": manifest.fleet_id, "users": dict(manifest.users)}


def _ssh_accounts() -> dict[str, Any] | None:
    try:
        manifest = parse_accounts(json.loads(_texts(STATE, ".json").get("ssh_accounts", "null")), SSH_ACCOUNTS)
    except ValueError:
        # The module that owns it says what is wrong with it.
        return None
    if manifest is None:
        return None
    return {
        "fleet_id": manifest.fleet_id,
        "accounts": {
            name: {"backup_id": each.backup_id, "repositories": sorted(each.keys)}
            for name, each in manifest.accounts.items()
            if not each.locked
        },
    }


def _foreign_accounts() -> list[str]:
    found = []
    with open(ACCOUNTS, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _password, uid, _gid, comment, *_rest = [*line.rstrip("\n").split(":"), *[""] * 5]
            if name.startswith(PREFIX) and (comment != comment_of(name[len(PREFIX) :]) or uid == "0"):
                found.append(name)
    return sorted(found)


def _escrow_copies() -> dict[str, list[str]]:
    found = {}
    with contextlib.suppress(OSError):
        for repository in filter(_COPIES.match, sorted(os.listdir(ESCROW))):
            with contextlib.suppress(OSError):
                names = sorted(filter(BUNDLE_NAME.match, os.listdir(f"{ESCROW}/{repository}")))
                found.update({repository: names[:MOST_COPIES]} if names else {})
    return found


def _ssh_host_keys() -> list[str]:
    """The host keys without their comments; what is none is left out, as a server's other files may be anything."""
    found = set()
    for name, text in _texts(SSH, "_key.pub").items():
        if name.startswith("ssh_host_"):
            with contextlib.suppress(_ssh.SshError):
                found.add(_ssh.host_key(" ".join(text.split()[:2])))
    return sorted(found)


def _addresses(items: list[Any]) -> dict[str, str | None]:
    wanted = {}
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("address"), str):
            wanted[item["address"]] = item.get("variable")
        elif isinstance(item, str):
            wanted[item] = None
        else:
            raise ValueError(f"`resolve`: {item!r} is neither a string nor a dictionary with `address`")
    return wanted


def collect(params: dict[str, Any]) -> dict[str, Any]:
    """Everything that was asked for; see RETURN. Raises ValueError for bad options."""
    timeout = params["timeout"]
    wanted = _addresses(params["resolve"])
    tasks: dict[str, Callable[[], Any]] = {
        "systemd": lambda: _systemd(timeout),
        "virtualization": lambda: _virtualization(timeout),
    }
    if params["packages"]:
        tasks["packages"] = lambda: _packages(params["packages"], params["package_releases"], timeout)
    if params["calendars"]:
        tasks["calendars"] = lambda: _calendars(list(dict.fromkeys(params["calendars"])), timeout)
    if params["running"]:
        tasks["running"] = lambda: _running(params["running"], timeout)
    if params["sandbox_probe"]:
        tasks["sandbox"] = lambda: _sandbox(SANDBOX, timeout)
    if params["server_sandbox_probe"]:
        tasks["server_sandbox"] = lambda: _sandbox(SERVER_SANDBOX, timeout)
    for name in params["binaries"]:
        tasks[f"binary {name}"] = functools.partial(_version, name, timeout)
    for address in wanted:
        tasks[f"address {address}"] = functools.partial(_resolve, address)
    for path in params["interpreters"]:
        tasks[f"interpreter {path}"] = functools.partial(_serve.interpreter, path)
    for path in params["mounts"]:
        tasks[f"mount {path}"] = functools.partial(_is_mounted, path)
    for path in params["file_systems"]:
        tasks[f"file system {path}"] = functools.partial(_file_system, path, timeout)
    if params["subvolumes"]:
        tasks["subvolumes"] = lambda: _subvolumes(params["subvolumes"])
    for each in params["places"]:
        look = functools.partial(_place_seen.look, each["path"], each["account"], each["private"])
        tasks[f"place {each['path']}"] = look
    for namespace in params["trees"]:
        tasks[f"tree {namespace}"] = functools.partial(_tree_seen.look, namespace, f"{STATE}/file_tree")
    for namespace, units in params["units"].items():
        tasks[f"units {namespace}"] = functools.partial(_unit_requests.settled, namespace, units, f"{STATE}/units")
    if params["status_program"]:
        tasks["status"] = functools.partial(_unit_requests.status, params["status_program"], timeout)
    for path in params["files"]:
        tasks[f"file {path}"] = functools.partial(_sha256, path)
    # A program has the same limit of its own, and says what it knows when it is reached.
    done = together(tasks, timeout + 1)
    if params["packages"] and done["packages"] is None:
        # No answer is not the answer that there is no such package.
        raise ValueError(f"apt-cache policy: no answer within {timeout:g} s; run again when this host is less busy")
    apt, packages = done.get("packages") or (None, {})
    strange = any(not each["candidate"] and not each["installed"] for each in packages.values())
    late = {"addresses": [], "error": f"no answer within {timeout:g} s"}
    nothing = {"valid": None, "error": None, "never": None}
    return {
        "packages": packages,
        "apt": apt,
        "apt_lists": _apt_lists(timeout) if strange else None,
        "binaries": {name: done[f"binary {name}"] for name in params["binaries"]},
        "calendars": done.get("calendars") or dict.fromkeys(params["calendars"], nothing),
        "resolve": {
            address: dict(done[f"address {address}"] or late, variable=variable) for address, variable in wanted.items()
        },
        "accounts": {name: _has_account(name) for name in params["accounts"]},
        "files": {path: done[f"file {path}"] for path in params["files"]},
        "interpreters": {path: done[f"interpreter {path}"] for path in params["interpreters"]},
        "mounts": {path: done[f"mount {path}"] for path in params["mounts"]},
        "file_systems": {path: done[f"file system {path}"] for path in params["file_systems"]},
        "subvolumes": done.get("subvolumes") or dict.fromkeys(params["subvolumes"]),
        "places": {each["path"]: done[f"place {each['path']}"] for each in params["places"]},
        "running": done.get("running"),
        "manifests": {
            "file_tree": _manifest(f"{STATE}/file_tree", "files"),
            "units": _manifest(f"{STATE}/units", "units"),
        },
        "trees": {namespace: done[f"tree {namespace}"] for namespace in params["trees"]},
        "settled": sorted(namespace for namespace in params["units"] if done[f"units {namespace}"]),
        "status": done.get("status"),
        "records": {name: parse_record(text) for name, text in _texts(f"{STATE}/repositories", ".env").items()},
        "htpasswd": _htpasswd(),
        "ssh_accounts": _ssh_accounts(),
        "foreign_accounts": _foreign_accounts(),
        "escrow_copies": _escrow_copies(),
        "ssh_host_keys": _ssh_host_keys(),
        "sandbox": done.get("sandbox"),
        "server_sandbox": done.get("server_sandbox"),
        "reads_everything": _reads_everything(),
        "systemd": done["systemd"],
        "selinux": _selinux(),
        "virtualization": done["virtualization"],
        "python": platform.python_version(),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    uid = os.geteuid()
    if uid != 0:
        # Before anything is looked at: what only root sees would be missing, and no sandbox start.
        module.fail_json(
            msg=f"ansible_become: Ansible is {_account_of(uid)!r} on this host (uid {uid}), and not root. Set ansible_become:"
            " true for it, or log in as root"
        )
    try:
        result = collect(module.params)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
