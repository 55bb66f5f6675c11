# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the options of ``units`` and its manifest to a plan, and whether that plan is empty."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ._files import Tree, UnsafePathError, check_path
from ._run import run
from ._systemd import (
    Record,
    Request,
    Systemctl,
    SystemdError,
    UnitsPlan,
    UnitState,
    WantedUnit,
    check_name,
    digest,
    kind_of,
    make_plan,
    unit_files_changed,
)

_VERSION = 1
_NAMESPACE = re.compile(r"\A[a-z][a-z0-9_]*\Z")
_DEFAULTS: dict[str, Any] = {
    "enabled": True,
    "state": None,
    "masked": None,
    "restart": False,
    "reload": False,
    "restart_on": [],
    "reload_on": [],
}


@dataclass(frozen=True)
class Prepared:
    """What there is to do: the plan, what was asked for, and the manifest as it is, as it is to be while and after it is done."""

    plan: UnitsPlan
    request: Request
    own: dict[str, Record]
    union: dict[str, Record]
    final: dict[str, Record]


def prepare(tree: Tree, systemctl: Systemctl, params: Mapping[str, Any]) -> Prepared:
    """Compare the options of ``units`` with the host. Raises ValueError on bad ones, SystemdError where systemd does not answer."""
    path = manifest(params)
    directory = posixpath.dirname(path)
    own = _load(tree, path)
    others: set[str] = set()
    for name in tree.names(directory):
        if name.endswith(".json") and not name.startswith("."):
            others.update(_load(tree, posixpath.join(directory, name)))
    request = _request(params, own, others)
    states = _states(systemctl, request)
    request = replace(request, absent=_absent(request, states))
    # First every unit that is touched is remembered, so that a killed run leaves none behind.
    union = {**{unit.name: Record() for unit in request.units}, **own}
    final = {name: record for name, record in union.items() if name not in request.retire}
    final.update({unit.name: request.digests[unit.name] for unit in request.units})
    return Prepared(make_plan(request, states), request, own, union, final)


def manifest(params: Mapping[str, Any]) -> str:
    """Path of the manifest of the namespace. Raises ValueError on a bad one."""
    namespace = params["namespace"]
    if not _NAMESPACE.match(namespace):
        raise ValueError(f"namespace {namespace!r} must be lower case letters, digits and _, beginning with a letter")
    return posixpath.join(check_path(params["manifest_dir"], "manifest_dir"), f"{namespace}.json")


def settled(namespace: str, units: list[dict[str, Any]], directory: str) -> bool:
    """Whether ``units`` with these units, ``retire_absent`` and no changed file has nothing to do; False where it must look itself."""
    params = {
        "namespace": namespace,
        "units": [{**_DEFAULTS, **item} for item in units],
        "changed_files": [],
        "phase": "all",
        "retire": [],
        "retire_absent": True,
        "daemon_reload": "auto",
        "manifest_dir": directory,
    }
    systemctl = Systemctl()
    try:
        with Tree() as tree:
            if _as_it_was_left(tree, systemctl, params):
                return True
            found = prepare(tree, systemctl, params)
    except (OSError, ValueError, KeyError, TypeError, UnsafePathError, SystemdError):
        return False
    return not found.plan.changed and found.final == found.own


def _as_it_was_left(tree: Tree, systemctl: Systemctl, params: Mapping[str, Any]) -> bool:
    """Whether it is plain that there is nothing to do, by questions that systemd answers at once.

    Everything that ``prepare`` has to know takes systemd 3 ms for each unit and each unit that is started when that ends. False says nothing.
    """
    path = manifest(params)
    own = _load(tree, path)
    request = _request(params, own, ())
    if request.retire or own != request.digests or any(_asks_for_more(unit) for unit in request.units):
        return False
    names = [unit.name for unit in request.units]
    listed = systemctl.listed(names)
    return (
        all(listed.get(unit.name) == ("loaded", "active") for unit in request.units if unit.state == "started")
        and systemctl.enablement(names) == ["enabled"] * len(names)
        and unit_files_changed() < systemctl.loaded()
    )


def _asks_for_more(unit: WantedUnit) -> bool:
    return bool(
        not unit.enabled or unit.state == "stopped" or unit.masked or unit.restart or unit.reload or unit.reload_on
    )


def status(program: str, timeout: float) -> str | None:
    """What the host program says of all run units within `timeout` seconds; None where it cannot say anything."""
    try:
        done = run([program, "status", "--json"], timeout=timeout)
    except OSError:
        return None
    return done.stdout if done.stdout and not done.timed_out else None


def _load(tree: Tree, path: str) -> dict[str, Record]:
    value = tree.read_json(path)
    if value is None:
        return {}
    units = value.get("units")
    if value.get("version") != _VERSION or not isinstance(units, dict):
        raise ValueError(f"{path} is not a manifest of version {_VERSION}: restore it, or remove it to start anew")
    return {
        check_name(name, path): Record(record.get("restart_on", ""), record.get("reload_on", ""))
        for name, record in units.items()
    }


def save(tree: Tree, path: str, records: dict[str, Record]) -> None:
    """Write the manifest."""
    units = {name: {"restart_on": item.restart_on, "reload_on": item.reload_on} for name, item in records.items()}
    tree.write_json(path, {"version": _VERSION, "units": units}, mode=0o600)


def _parse_units(items: Iterable[dict[str, Any]]) -> tuple[WantedUnit, ...]:
    units: dict[str, WantedUnit] = {}
    for number, item in enumerate(items):
        name = check_name(item["name"], f"units[{number}]")
        if name in units:
            raise ValueError(f"{name} is declared twice in units: keep one of the entries")
        units[name] = WantedUnit(
            name=name,
            enabled=item["enabled"],
            state=item["state"],
            masked=item["masked"],
            restart=item["restart"],
            reload=item["reload"],
            restart_on=tuple(item["restart_on"]),
            reload_on=tuple(item["reload_on"]),
        )
    return tuple(units[name] for name in sorted(units))


def _request(params: Mapping[str, Any], own: dict[str, Record], others: Iterable[str]) -> Request:
    units = _parse_units(params["units"])
    declared = {unit.name for unit in units}
    retire = {check_name(name, "retire") for name in params["retire"]}
    both = sorted(declared & retire)
    if both:
        raise ValueError(f"{both[0]} is in units and in retire: keep it in one of them")
    if params["retire_absent"]:
        retire |= set(own) - declared
    return Request(
        units=() if params["phase"] == "retire" else units,
        retire=frozenset() if params["phase"] == "converge" else frozenset(retire),
        changed_files=frozenset(params["changed_files"]),
        known_timers=frozenset(name for name in {*own, *others, *declared} - retire if kind_of(name) == "timer"),
        daemon_reload=params["daemon_reload"],
        records=own,
        digests={unit.name: Record(digest(unit.restart_on), digest(unit.reload_on)) for unit in units},
    )


def _states(systemctl: Systemctl, request: Request) -> dict[str, UnitState]:
    """Return the states of all units in question, and of the units that their services call when they end."""
    states = systemctl.show(request.names())
    called = {name for state in states.values() for name in (*state.triggers, *state.references)}
    return {**systemctl.show(called - set(states)), **states}


def _absent(request: Request, states: dict[str, UnitState]) -> frozenset[str]:
    return frozenset(name for name in request.timers() if not os.path.exists(states[name].fragment))
