# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab of its own for the attacks: a server of each release and one client."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab

from .mutants import MUTANTS
from .ssh_side import Side

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


@pytest.fixture(scope="session", params=list(SERVERS))
def side(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Side:
    """A server with the role on it; with HOLDFAST_MUTANT, with something taken away from it."""
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.json"
    inventory.write_text(json.dumps(lab.inventory()))
    made = Side(lab, request.param, "web1", Path(inventory))
    made.prepare()
    made.deploy(made.variables())
    mutant = os.environ.get("HOLDFAST_MUTANT")
    if mutant:
        made.on_server(MUTANTS[mutant])
    return made


@pytest.fixture
def everybody(side: Side) -> Callable[..., dict[str, Any]]:
    """Variables of the role for all clients of the server."""
    return side.variables
