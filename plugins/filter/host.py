# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over what hosts delivered."""

from __future__ import annotations

import typing as t

from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered, _sources, _tree


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {
            "rest_accounts": _delivered.rest_accounts,
            "shared_sources": _sources.shared_sources,
            "ssh_accounts": _delivered.ssh_accounts,
            "ssh_host_keys": _delivered.ssh_host_keys,
            "tree_differs": _tree.tree_differs,
        }
