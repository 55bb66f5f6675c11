"""Molecule's view of a lab: platforms in, instance config and known_hosts out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import hosts
from .api import Lab
from .shell import LabError
from .state import load, write_atomic

# Whoever runs molecule from create to destroy names itself here: molecule's own processes tell nobody which they are.
OWNER = "HOLDFAST_LAB_OWNER"


def wanted(platforms: Sequence[Mapping[str, Any]]) -> list[str]:
    """A scenario's platforms as `lab up` writes them."""
    found = []
    for platform in platforms:
        if "name" not in platform or "suite" not in platform:
            raise LabError(f"A platform needs name and suite, say {{name: web1, suite: trixie}}, not {dict(platform)}.")
        options = platform.get("options") or []
        text = options if isinstance(options, str) else ",".join(options)
        found.append(f"{platform['name']}={platform['suite']}" + (f":{text}" if text else ""))
    return found


def owner(environment: Mapping[str, str]) -> int | None:
    """The process that a scenario's hosts end with; without one they wait for `molecule destroy`, as molecule means it."""
    text = environment.get(OWNER, "")
    if text and not text.isdecimal():
        raise LabError(f"{OWNER} is the number of a process, not '{text}'.")
    return int(text) if text else None


def create(name: str, platforms: Sequence[Mapping[str, Any]], instance_config: Path) -> list[str]:
    """Boot a scenario's hosts and tell molecule where they are; returns a line for each."""
    lab = Lab(name)
    reports = lab.up(wanted(platforms), owner=owner(os.environ))
    state = load(name)
    assert state is not None
    # JSON is YAML.
    instances = [
        {
            "instance": host.name,
            "address": hosts.addresses(state, host)[0],
            "user": "root",
            "port": 22,
            "identity_file": str(state.directory / "id_ed25519"),
        }
        for host in state.hosts.values()
    ]
    write_atomic(instance_config, json.dumps(instances, indent=1))
    known = instance_config.with_name("known_hosts")
    known.unlink(missing_ok=True)
    known.symlink_to(state.directory / "known_hosts")
    return [f"{report.name} {' '.join(report.addresses)} {report.state}" for report in reports]
