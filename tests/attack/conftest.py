# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Labs of their own for the attacks: servers of SSH of each release with one client, and a whole fleet."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab

from . import fleet_side
from .fleet_side import Protected
from .mutants import ALL, EDITS, FLEET_MUTANTS, MUTANTS, mutated
from .ssh_side import ROOT, Side

SERVERS = {"vault1": "trixie", "vault2": "bookworm"}


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Booted hosts; they end with this process at the latest, unless HOLDFAST_LAB names a lab to be used and kept."""
    kept = os.environ.get("HOLDFAST_LAB")
    made = Lab(kept or f"attack-{os.getpid()}")
    try:
        servers = [f"{name}={suite}:layer=server+borg" for name, suite in SERVERS.items()]
        made.up([*servers, "web1=trixie"], owner=None if kept else os.getpid())
        yield made
    finally:
        if not kept:
            made.down()


def pytest_configure() -> None:
    """A mutant that there is not would seem to have survived."""
    mutant = os.environ.get("HOLDFAST_MUTANT")
    if mutant and mutant not in ALL:
        pytest.exit(f"HOLDFAST_MUTANT={mutant}: there is none of that name in tests/attack/mutants.py", 2)


@pytest.fixture(scope="session", params=list(SERVERS))
def side(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    """A server with the role on it; with HOLDFAST_MUTANT, with something taken away from it."""
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.json"
    inventory.write_text(json.dumps(lab.inventory()))
    made = Side(lab, request.param, "web1", Path(inventory))
    made.prepare()
    made.deploy(made.variables())
    made.fill()
    mutant = os.environ.get("HOLDFAST_MUTANT")
    if mutant in EDITS:
        made.collections = EDITS[mutant].apply(tmp_path_factory.mktemp("mutant"))
    with mutated(made.on_server, MUTANTS[mutant]) if mutant in MUTANTS else contextlib.nullcontext():
        yield made


@pytest.fixture
def everybody(side: Side) -> Callable[..., dict[str, Any]]:
    """Variables of the role for all clients of the server."""
    return side.variables


@pytest.fixture(scope="session")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    """A fleet as the playbook makes it; with HOLDFAST_MUTANT, with something taken away from it."""
    kept = os.environ.get("HOLDFAST_LAB")
    made = Lab(f"{kept or f'attack-{os.getpid()}'}-fleet")
    # The state directory and the escrow key have to be those that the hosts were made with.
    folder = ROOT / ".cache/attack" / made.name if kept else tmp_path_factory.mktemp("fleet")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made.up([f"{name}={spec}" for name, spec in fleet_side.HOSTS.items()], owner=None if kept else os.getpid())
        fleet = fleet_side.declared(made.name, folder)
        fleet.good("site")
        found = Protected(fleet)
        found.prepare()
        mutant = os.environ.get("HOLDFAST_MUTANT")
        with contextlib.ExitStack() as stack:
            if mutant in FLEET_MUTANTS:
                wanted = FLEET_MUTANTS[mutant]
                stack.enter_context(mutated(functools.partial(found.sh, wanted.host), wanted))
            yield found
    finally:
        if not kept:
            made.down()
