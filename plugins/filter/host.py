# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that judge what a host delivers."""

from __future__ import annotations

import typing as t

from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered, _host, _tree


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {
            "host_problems": _host.host_problems,
            "inventory_problems": _host.inventory_problems,
            "rest_accounts": _delivered.rest_accounts,
            "ssh_accounts": _delivered.ssh_accounts,
            "ssh_host_keys": _delivered.ssh_host_keys,
            "tree_differs": _tree.tree_differs,
        }
