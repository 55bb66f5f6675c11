# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prepare a lab's hosts for the attacks over SSH, for a playbook: python -m tests.attack.prepare LAB FILE CLIENTS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.lab import Lab

from .ssh_side import Side


def main(name: str, path: str, clients: str) -> None:
    """Prepare the servers vault1 and vault2 and the client web1; write variables of the role with more clients."""
    lab = Lab(name)
    for server in ("vault1", "vault2"):
        side = Side(lab, server, "web1", Path(path))
        side.prepare()
    Path(path).write_text(json.dumps(side.variables(int(clients))))


if __name__ == "__main__":
    main(*sys.argv[1:])
