# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tool of a run unit."""

from __future__ import annotations

import re

from .definition import Definition
from .host import Host


def restic_version(host: Host, definition: Definition) -> str | None:
    """The version of the unit's restic, None when it cannot say."""
    done = host.command([definition.binary, "version"], timeout=30)
    found = re.match(r"restic (\S+)", done.stdout)
    return found[1] if found else None
