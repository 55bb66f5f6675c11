# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""States of systemd units, and the plan of ``units``: what to stop, enable, reload and start, in which order.

A timer that is started or reloaded looks for its last trigger: of a running timer systemd remembers it, of one with
``Persistent=true`` it is the time of a stamp file. A calendar time between that and now makes it fire at once. So timers
whose files changed are stopped before ``daemon-reload``, and every timer that we start gets a stamp of now first.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import posixpath
import re
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

STAMPS = "/var/lib/systemd/timers"
_UNIT_DIRECTORY = re.compile(r"\A(/etc|/run|/usr/lib|/usr/local/lib|/lib)/systemd/system(\.control|\.attached)?/")
_UNIT_DIRECTORIES = tuple(f"{each}/systemd/system" for each in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))
# Set at boot and by a reload, and what is touched then.
_LOADED = "UnitsLoadTimestampMonotonic,UnitsLoadStartTimestampMonotonic"
_LOADED_FILE = "/run/systemd/systemd-units-load"
_NAME = re.compile(r"\A[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.(service|socket|timer|path|target|mount)\Z")
_PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,NeedDaemonReload,Type,RemainAfterExit,"
    "CanReload,Triggers,OnSuccess,OnFailure"
)
_RUNNING = ("active", "activating", "deactivating", "reloading", "refreshing")
_ENABLED = ("enabled", "alias")
_NOT_INSTALLABLE = ("static", "generated", "transient")
_ENABLED_NOW = ("enabled", "enabled-runtime")
_TRIGGERS = ("timer", "path", "socket")
_TIMEOUT = 300
_JOURNAL_LINES = 15


class SystemdError(Exception):
    """systemd refused something; the message says what and why."""


@dataclass(frozen=True)
class UnitState:
    """What ``systemctl show`` says about a unit; ``enabled`` is its unit file state, empty when there is no file."""

    name: str
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    enabled: str = ""
    fragment: str = ""
    stale: bool = False
    kind: str = ""
    remains: bool = False
    can_reload: bool = False
    triggers: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        """Whether the unit is up, comes up or goes down."""
        return self.active in _RUNNING

    @property
    def ends_by_itself(self) -> bool:
        """Whether it is a service that does its work and ends: it is waited for, never stopped."""
        return self.kind == "oneshot" and not self.remains

    @property
    def works(self) -> bool:
        """Whether a service is doing its work now."""
        return self.running and not (self.remains and self.sub == "exited")

    @property
    def healthy(self) -> bool:
        """Whether it is up, as a started unit should be."""
        return self.active in ("active", "reloading", "refreshing") or (
            self.active == "activating" and self.sub != "auto-restart"
        )


@dataclass(frozen=True)
class WantedUnit:
    """A declared unit."""

    name: str
    enabled: bool = True
    state: str | None = None
    masked: bool | None = None
    restart: bool = False
    reload: bool = False
    restart_on: tuple[str, ...] = ()
    reload_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """What the manifest remembers of a unit: hashes of what it was last started and reloaded with."""

    restart_on: str = ""
    reload_on: str = ""


@dataclass(frozen=True)
class UnitsPlan:
    """What has to be done, in the order of the fields down to ``start``, and what it means for the units."""

    stop: tuple[str, ...] = ()
    wait_for: tuple[str, ...] = ()
    stop_later: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    unmask: tuple[str, ...] = ()
    enable: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    daemon_reload: bool = False
    reset: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything is to be done."""
        return self != UnitsPlan()

    def result(self) -> dict[str, Any]:
        """Return the lists that the module returns."""
        return {
            "changed": self.changed,
            "started": list(self.started),
            "stopped": list(self.stopped),
            "restarted": list(self.restarted),
            "reloaded": list(self.reload),
            "enabled": list(self.enable),
            "disabled": list(self.disable),
            "masked": list(self.mask),
            "unmasked": list(self.unmask),
            "retired": list(self.retired),
            "waited_for": list(self.wait_for),
            "daemon_reload": self.daemon_reload,
        }


@dataclass(frozen=True)
class Request:
    """Everything that one execution of ``units`` asks for.

    ``known_timers`` are those of other namespaces, ``absent`` units whose file is gone; ``records`` say with which
    contents of ``restart_on`` and ``reload_on`` units were started, ``digests`` what these are now.
    """

    units: tuple[WantedUnit, ...] = ()
    retire: frozenset[str] = frozenset()
    changed_files: frozenset[str] = frozenset()
    known_timers: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    daemon_reload: str = "auto"
    records: Mapping[str, Record] = field(default_factory=dict)
    digests: Mapping[str, Record] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the units whose state the plan needs: those named, and the services they trigger."""
        names = {unit.name for unit in self.units} | self.retire | self.timers()
        return sorted(names | {service_of(name) for name in names if kind_of(name) in _TRIGGERS})

    def timers(self) -> frozenset[str]:
        """Return timers that we do not declare but must not wake by a reload."""
        changed = {posixpath.basename(path) for path in self.changed_files if _UNIT_DIRECTORY.match(path)}
        timers = {name for name in changed if name.endswith(".timer") and _NAME.match(name)} | self.known_timers
        return frozenset(timers - {unit.name for unit in self.units} - self.retire)


def check_name(name: str, where: str) -> str:
    """Return a full unit name, else raise ValueError."""
    if not _NAME.match(name) or len(name) > 255:
        raise ValueError(
            f"{where}: {name!r} is not the full name of a unit (like holdfast-system--vault.timer, no template)"
        )
    return name


def kind_of(name: str) -> str:
    """Return the suffix of a unit name: timer, service, …."""
    return name.rsplit(".", 1)[1]


def service_of(name: str) -> str:
    """Return the service that a timer, socket or path triggers unless it names another."""
    return f"{name.rsplit('.', 1)[0]}.service"


def parse_show(text: str, names: Sequence[str]) -> dict[str, UnitState]:
    """Parse ``systemctl show`` of ``names`` (one block a unit, in their order). Raises SystemdError on another shape."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    blocks = [block for block in blocks if block]
    if len(blocks) != len(names):
        raise SystemdError(f"systemctl show answered for {len(blocks)} of {len(names)} units: {', '.join(names)}")
    return {name: _parse_block(name, block) for name, block in zip(names, blocks)}


def _parse_block(name: str, block: Mapping[str, str]) -> UnitState:
    return UnitState(
        name=name,
        load=block.get("LoadState", ""),
        active=block.get("ActiveState", ""),
        sub=block.get("SubState", ""),
        enabled=block.get("UnitFileState", ""),
        fragment=block.get("FragmentPath", ""),
        stale=block.get("NeedDaemonReload") == "yes",
        kind=block.get("Type", ""),
        remains=block.get("RemainAfterExit") == "yes",
        can_reload=block.get("CanReload") == "yes",
        triggers=tuple(block.get("Triggers", "").split()),
        references=tuple(f"{block.get('OnSuccess', '')} {block.get('OnFailure', '')}".split()),
    )


@dataclass
class _Steps:
    """A plan while it is being made."""

    stop: set[str] = field(default_factory=set)
    wait_for: set[str] = field(default_factory=set)
    stop_later: set[str] = field(default_factory=set)
    disable: set[str] = field(default_factory=set)
    unmask: set[str] = field(default_factory=set)
    enable: set[str] = field(default_factory=set)
    mask: set[str] = field(default_factory=set)
    restart: set[str] = field(default_factory=set)
    reload: set[str] = field(default_factory=set)
    start: set[str] = field(default_factory=set)
    recycled: set[str] = field(default_factory=set)
    retired: set[str] = field(default_factory=set)

    def stop_unit(self, state: UnitState) -> None:
        """Stop a unit that runs: what triggers others first; a oneshot service is waited for, never stopped."""
        if not state.running:
            return
        if state.ends_by_itself:
            self.wait_for.add(state.name)
        elif kind_of(state.name) in _TRIGGERS:
            self.stop.add(state.name)
        else:
            self.stop_later.add(state.name)

    def recycle_unit(self, state: UnitState, states: Mapping[str, UnitState]) -> None:
        """Stop a unit before and start it after the reload, or restart it after the reload."""
        self.recycled.add(state.name)
        if kind_of(state.name) not in _TRIGGERS:
            self.restart.add(state.name)
            return
        self.stop.add(state.name)
        self.start_unit(state, states)

    def start_unit(self, state: UnitState, states: Mapping[str, UnitState]) -> None:
        """Start a unit; a socket cannot be bound while its service runs, so that is stopped before and started after."""
        self.start.add(state.name)
        if kind_of(state.name) == "socket":
            services = state.triggers or (service_of(state.name),)
            held = {name for name in services if name in states and states[name].running}
            self.stop_later.update(held)
            self.start.update(held)


def make_plan(request: Request, states: Mapping[str, UnitState]) -> UnitsPlan:
    """Compare what is asked for with what systemd says. Raises ValueError for what cannot be done."""
    steps = _Steps()
    changed_units = _unit_files(request.changed_files)
    for unit in request.units:
        state = states[unit.name]
        _check(unit, state)
        _plan_enablement(unit, state, steps)
        changed = unit.restart or _differs(unit, request, "restart_on")
        if kind_of(unit.name) == "timer":
            changed = changed or state.stale or bool(_files_of(unit.name) & changed_units)
        if unit.state == "stopped":
            steps.stop_unit(state)
        elif unit.state == "started" and not state.healthy:
            steps.start_unit(state, states)
        elif state.healthy and changed:
            steps.recycle_unit(state, states)
        elif state.healthy and (unit.reload or _differs(unit, request, "reload_on")):
            steps.reload.add(unit.name)
    for name in request.timers():
        state = states[name]
        if state.running and (state.stale or _files_of(name) & changed_units):
            if name in request.absent:
                steps.stop_unit(state)
            else:
                steps.recycle_unit(state, states)
    _plan_retirement(request, states, steps)
    restart = steps.restart - steps.start
    restarted = steps.recycled | (steps.stop | steps.stop_later) & steps.start
    failed = _gone(request, states) | steps.start
    return UnitsPlan(
        stop=_sorted(steps.stop),
        wait_for=_sorted(steps.wait_for),
        stop_later=_sorted(steps.stop_later),
        disable=_sorted(steps.disable),
        unmask=_sorted(steps.unmask),
        enable=_sorted(steps.enable),
        mask=_sorted(steps.mask),
        daemon_reload=_needs_reload(request, states, steps),
        reset=_sorted(name for name in failed if states[name].active == "failed"),
        restart=_sorted(restart),
        reload=_sorted(steps.reload - restart - steps.start),
        start=_sorted(steps.start),
        retired=_sorted(steps.retired),
        started=_sorted(steps.start - restarted),
        stopped=_sorted((steps.stop | steps.stop_later) - steps.start),
        restarted=_sorted(restarted),
    )


def _needs_reload(request: Request, states: Mapping[str, UnitState], steps: _Steps) -> bool:
    if request.daemon_reload != "auto":
        return request.daemon_reload == "always"
    return bool(
        steps.enable
        or steps.disable
        or steps.mask
        or steps.unmask
        or _unit_files(request.changed_files)
        or any(state.stale for state in states.values())
    )


def _plan_enablement(unit: WantedUnit, state: UnitState, steps: _Steps) -> None:
    if unit.masked and state.load != "masked":
        steps.mask.add(unit.name)
    if unit.masked is False and state.load == "masked":
        steps.unmask.add(unit.name)
    if unit.enabled and not unit.masked and state.enabled not in _ENABLED:
        steps.enable.add(unit.name)
    if not unit.enabled and state.enabled in _ENABLED_NOW:
        steps.disable.add(unit.name)


def _check(unit: WantedUnit, state: UnitState) -> None:
    if unit.masked and unit.state == "started":
        raise ValueError(f"{unit.name} is declared masked and started: choose one")
    if unit.masked is None and state.load == "masked" and (unit.state == "started" or unit.enabled):
        raise ValueError(f"{unit.name} is masked on the host: declare it with masked: false, or unmask it")
    if unit.enabled and not unit.masked and state.enabled in _NOT_INSTALLABLE:
        raise ValueError(f"{unit.name} has no [Install] section ({state.enabled}): declare it with enabled: false")
    if unit.state == "started" and state.ends_by_itself:
        raise ValueError(f"{unit.name} is a oneshot service, which ends by itself: declare its timer instead")
    if (unit.reload or unit.reload_on) and state.healthy and not state.can_reload:
        raise ValueError(f"{unit.name} cannot be reloaded (no ExecReload=): declare restart instead")


def _differs(unit: WantedUnit, request: Request, option: str) -> bool:
    """Tell whether files a unit reads changed since it last read them."""
    paths = getattr(unit, option)
    if not paths:
        return False
    recorded = request.records.get(unit.name, Record())
    now = request.digests.get(unit.name, Record())
    return bool(request.changed_files.intersection(paths)) or getattr(recorded, option) != getattr(now, option)


def _unit_files(paths: Iterable[str]) -> set[str]:
    """Return names of unit files among paths: the base name, of a drop-in that of its directory."""
    names = set()
    for path in paths:
        if _UNIT_DIRECTORY.match(path):
            parent = posixpath.basename(posixpath.dirname(path))
            names.add(parent[: -len(".d")] if parent.endswith(".d") else posixpath.basename(path))
    return names


def _files_of(name: str) -> set[str]:
    """Return the names of the unit files of a unit: its own, and its template's."""
    if "@" not in name:
        return {name}
    return {name, f"{name.split('@', 1)[0]}@.{kind_of(name)}"}


def _gone(request: Request, states: Mapping[str, UnitState]) -> set[str]:
    """Return the retired units, with the services of retired timers that are not declared themselves."""
    declared = {unit.name for unit in request.units}
    gone = set(request.retire)
    for name in request.retire:
        if kind_of(name) == "timer":
            state = states[name]
            gone.update(state.triggers or (service_of(name),))
    return {name for name in gone - declared if name in states}


def _plan_retirement(request: Request, states: Mapping[str, UnitState], steps: _Steps) -> None:
    for name in _gone(request, states):
        state = states[name]
        if name not in request.retire:
            if state.works:
                steps.wait_for.add(name)
            continue
        steps.stop_unit(state)
        if state.enabled in _ENABLED_NOW:
            steps.disable.add(name)
        if state.running or state.active == "failed" or name in steps.disable:
            steps.retired.add(name)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def digest(paths: Sequence[str]) -> str:
    """Return a hash of the files' contents, empty for no paths; a missing file counts as such."""
    if not paths:
        return ""
    total = hashlib.sha256()
    for path in sorted(paths):
        try:
            with open(path, "rb", opener=_open_regular) as stream:
                content = hashlib.sha256(stream.read()).hexdigest()
        except OSError:
            content = "absent"
        total.update(f"{path}\0{content}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def unit_files_changed() -> float:
    """When a unit file, a drop-in, or a directory with some last changed, in seconds since 1970.

    Of packages' directories only names and drop-ins: their units are not ours, and they reload systemd themselves.
    """
    latest = 0.0
    for directory in _UNIT_DIRECTORIES:
        if not os.path.isdir(directory):
            continue
        try:
            latest = max(latest, _changed(directory))
            for name in os.listdir(directory):
                path = f"{directory}/{name}"
                drop_ins = (
                    [f"{path}/{each}" for each in os.listdir(path)]
                    if name.endswith(".d") and os.path.isdir(path)
                    else []
                )
                if not directory.startswith("/usr/lib/") or name.endswith(".d"):
                    latest = max([latest, _changed(path), *(_changed(each) for each in drop_ins)])
        except FileNotFoundError:
            # It went in this moment.
            return math.inf
    return latest


def _changed(path: str) -> float:
    """When a file, or that which a link leads to, last changed."""
    latest = os.lstat(path).st_ctime
    return max(latest, os.stat(path).st_ctime) if os.path.isfile(path) or os.path.isdir(path) else latest


def _open_regular(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


class Systemctl:
    """The subcommands of ``systemctl`` that we use, one method each."""

    def _run(self, *argv: str) -> tuple[int, str, str]:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
            "SYSTEMD_PAGER": "",
            "SYSTEMD_COLORS": "0",
        }
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function # no AnsibleModule here
                argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise SystemdError(f"{' '.join(argv)}: no answer within {_TIMEOUT} s") from None
        except FileNotFoundError:
            raise SystemdError(f"{argv[0]} is not installed: this host has no systemd") from None
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    def _do(self, *argv: str) -> None:
        code, _output, errors = self._run("systemctl", "--no-ask-password", *argv)
        if code != 0:
            raise SystemdError(f"systemctl {' '.join(argv)} failed (status {code}): {errors.strip()}")

    def show(self, names: Collection[str]) -> dict[str, UnitState]:
        """Return the states of units in one call, with their enablement as it is on disk."""
        asked = sorted(names)
        if not asked:
            return {}
        code, output, errors = self._run("systemctl", "show", "--property", _PROPERTIES, "--", *asked)
        if code != 0:
            raise SystemdError(f"systemctl show failed (status {code}): {errors.strip()}")
        states = parse_show(output, asked)
        # systemd remembers the enablement it once read.
        present = [name for name in asked if states[name].load not in ("not-found", "masked")]
        enablement = self.enablement(present)
        if len(enablement) == len(present):
            states.update({name: replace(states[name], enabled=now) for name, now in zip(present, enablement)})
        return states

    def enablement(self, names: Sequence[str]) -> list[str]:
        """Return what is-enabled says, which reads the disk: a word for each unit, fewer where a unit is not there."""
        return self._run("systemctl", "is-enabled", "--", *names)[1].split() if names else []

    def listed(self, names: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return load state and active state of those units that are in memory, in one question; none where there is no answer."""
        output = self._run("systemctl", "list-units", "--all", "--output=json", "--", *names)[1] if names else "[]"
        try:
            return {each["unit"]: (each["load"], each["active"]) for each in json.loads(output)}
        except (ValueError, KeyError, TypeError):
            return {}

    def loaded(self) -> float:
        """Return when systemd last read all unit files, in seconds since 1970; 0 where it does not say.

        It says so on a clock that stands still while the host sleeps, and by a file on one that may be set: the earlier counts.
        """
        output = self._run("systemctl", "show", "--property", _LOADED)[1]
        microseconds = [int(found) for found in re.findall(r"^UnitsLoad\w*=([0-9]+)$", output, re.MULTILINE)]
        try:
            touched = os.stat(_LOADED_FILE).st_mtime
        except OSError:
            return 0.0
        latest = max(microseconds, default=0)
        return min(touched, time.time() - time.monotonic() + latest / 1e6) if latest else 0.0

    def stop(self, names: Sequence[str]) -> None:
        """Stop units."""
        self._do("stop", "--", *names)

    def enable(self, names: Sequence[str]) -> None:
        """Enable units; without the reload that systemctl would do by itself."""
        self._do("enable", "--no-reload", "--", *names)

    def disable(self, names: Sequence[str]) -> None:
        """Disable units without a reload."""
        self._do("disable", "--no-reload", "--", *names)

    def mask(self, names: Sequence[str]) -> None:
        """Mask units without a reload."""
        self._do("mask", "--no-reload", "--", *names)

    def unmask(self, names: Sequence[str]) -> None:
        """Unmask units without a reload."""
        self._do("unmask", "--no-reload", "--", *names)

    def daemon_reload(self) -> None:
        """Make systemd read its unit files."""
        self._do("daemon-reload")

    def start(self, names: Sequence[str]) -> str:
        """Start units; return what systemctl said against it (the units' states are the proof)."""
        return self._run("systemctl", "--no-ask-password", "start", "--", *names)[2].strip()

    def restart(self, names: Sequence[str]) -> str:
        """Restart units; return what systemctl said against it."""
        return self._run("systemctl", "--no-ask-password", "restart", "--", *names)[2].strip()

    def reload(self, names: Sequence[str]) -> None:
        """Make units read their configuration."""
        self._do("reload", "--", *names)

    def reset_failed(self, names: Sequence[str]) -> None:
        """Forget the failures of units."""
        self._do("reset-failed", "--", *names)

    def journal(self, name: str) -> str:
        """Return the last lines of a unit's journal."""
        argv = (
            "journalctl",
            "--no-pager",
            "--quiet",
            "--output=short-iso",
            f"--lines={_JOURNAL_LINES}",
            "--unit",
            name,
        )
        return self._run(*argv)[1].strip()
