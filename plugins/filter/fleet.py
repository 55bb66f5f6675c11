# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that compute the model of the fleet."""

from __future__ import annotations

import typing as t

from ansible_collections.holdfast.backup.plugins.plugin_utils import _fleet, _limit


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {
            "fleet": _fleet.fleet,
            "repository_secrets": _fleet.repository_secrets,
            "rest_rendered": _limit.rendered,
            "ssh_rendered": _limit.ssh_rendered,
        }
