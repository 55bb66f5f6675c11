# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about ansible-playbook's own process."""

from __future__ import annotations

import gc
import typing as t

from ansible_collections.holdfast.backup.plugins.plugin_utils import _templates, _unit_files


def keep_loaded(value: t.Any, units: bool = False) -> t.Any:
    """Return `value`; on the way, take all that is in memory now out of the reach of Python's garbage collector.

    Ansible forks a process for each task of each host. Each inherits a collector that is about to look at everything that
    was loaded, and what it looks at is copied by the kernel, page by page: the more a fleet has, the longer every task takes.
    With `units`, the templates of run units are compiled before, which each of these processes would do again.
    """
    if units:
        _templates.compile_all(_unit_files.TEMPLATES)
    gc.freeze()
    return value


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {"keep_loaded": keep_loaded}
