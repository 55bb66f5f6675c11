# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tool of a run unit."""

from __future__ import annotations

import re

from .definition import Definition
from .host import Host


def tool_versions(host: Host, definition: Definition) -> dict[str, str | None]:
    """The versions of the unit's tools by name, None for one that cannot say."""
    if definition.borg is None:
        return {"restic": restic_version(host, definition)}
    asked = host.command([definition.binary, "--version"], timeout=30)
    own = re.match(r"(\d\S*)", asked.stdout)
    return {"borg": borg_version(host, definition.borg.binary), "borgmatic": own[1] if own else None}


def borg_version(host: Host, binary: str) -> str | None:
    """The version of a borg, None when it cannot say."""
    done = host.command([binary, "--version"], timeout=30)
    found = re.match(r"borg (\S+)", done.stdout)
    return found[1] if found else None


def restic_version(host: Host, definition: Definition) -> str | None:
    """The version of the unit's restic, None when it cannot say."""
    done = host.command([definition.binary, "version"], timeout=30)
    found = re.match(r"restic (\S+)", done.stdout)
    return found[1] if found else None
