# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that several modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """`holdfast.backup.attributes.host` and `holdfast.backup.attributes.controller`."""

    # Changes files of a managed host.
    HOST = r"""
attributes:
  platform:
    support: full
    platforms: posix
    description: Needs a Linux host and runs as root.
"""

    # Reads and answers on the controller.
    CONTROLLER = r"""
attributes:
  check_mode:
    support: full
    description: Works the same in check mode.
  diff_mode:
    support: none
    description: Changes nothing.
  platform:
    support: full
    platforms: posix
    description: Runs on the controller.
"""
