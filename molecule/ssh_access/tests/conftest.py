# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scenario's servers are attacked by its client; `make attack` does more of it, on both releases."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attack.ssh_side import Side
from tests.lab import Lab

pytest.register_assert_rewrite("tests.attack.test_ssh")
CLIENTS = 500


@pytest.fixture(scope="session")
def vaults() -> dict[str, Side]:
    """Both servers, each with the client."""
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"])
    lab = Lab(os.environ["MOLECULE_SCENARIO_NAME"])
    sides = {name: Side(lab, name, "web1", inventory) for name in ("vault1", "vault2")}
    for side in sides.values():
        side.read_keys()
        side.fill()
    return sides


@pytest.fixture
def side(vaults: dict[str, Side]) -> Side:
    """The older release, whose sshd knows less."""
    return vaults["vault2"]


@pytest.fixture
def everybody(side: Side) -> Callable[..., dict[str, Any]]:
    """Variables of the role for all clients."""

    def variables(**keys: Any) -> dict[str, Any]:
        return side.variables(CLIENTS, **keys)

    return variables
