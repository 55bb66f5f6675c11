# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attacks over SSH on servers of both releases."""

from __future__ import annotations

from .ssh_cases import *  # noqa: F403 - the tests are there
