"""Two clients with restic_privilege: setcap, one with Debian's restic and one with a release."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fleet import Fleet, released_restic


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """Their repositories are local: what may be read is the question here, not where it goes."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    fleet = Fleet("setcap", folder, {"backup_clients": ["web1", "web2"]})
    fleet.variables = {
        "restic_privilege": "setcap",
        "backup_jobs": {
            "system": {
                "paths": ["/home", "/srv/data", "/var/spool/odd"],
                "schedule": {"calendar": "Mon *-*-1..7 04:00"},
            }
        },
    }
    fleet.host_variables["web2"] = released_restic("trixie")
    return fleet
