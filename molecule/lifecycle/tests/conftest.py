"""The fleet of this scenario, as its user has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fleet import Fleet, released_restic


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """A server and two clients; web3 is up, and not in the inventory."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    # The keys and the mirror are those of molecule/shared/create.yml.
    fleet = Fleet("lifecycle", folder, {"backup_servers": ["vault1"], "backup_clients": ["web1", "web2"]})
    fleet.variables = {
        "backup_escrow": {"recipients": [(folder / "escrow.pub").read_text().strip()]},
        "backup_repositories": {"vault": {"server": "vault1"}},
        "backup_jobs": {"system": {"paths": ["/home"], "schedule": {"calendar": "Mon *-*-1..7 04:00", "spread": 0}}},
    }
    fleet.host_variables["web2"] = released_restic()
    return fleet
