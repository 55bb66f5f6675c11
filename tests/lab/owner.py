"""The watchdog: a lab ends with its owner, however that ends."""

from __future__ import annotations

import os
import select

from .api import Lab
from .state import Process


def watch(name: str, owner: Process) -> None:
    """Wait for the end of a process, then end the lab."""
    if owner.alive:
        try:
            descriptor = os.pidfd_open(owner.pid)
        except ProcessLookupError:
            pass
        else:
            # The number may have changed hands before the descriptor was open.
            if owner.alive:
                select.select([descriptor], [], [])
            os.close(descriptor)
    Lab(name).down()
