#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: delivered
short_description: Checks what the modules of this collection bring back from a host
version_added: 0.1.0
description:
  - The action plugin through which the modules of this collection that run on hosts are started; C(meta/runtime.yml) leads there.
    It is no module to be called itself.
  - A host may say anything. The result of a module is compared with the types and patterns that it has, and what is something else
    fails the task of that host. Nothing of it is rendered, and no facts are taken from it.
attributes:
  check_mode:
    description: As the module that is started.
    support: full
  diff_mode:
    description: As the module that is started.
    support: full
  platform:
    description: Runs on the controller, then on the host.
    platforms: linux
    support: full
author: holdfast contributors (@holdfast-backup)
"""

EXAMPLES = r"""
- name: Started through it, like every module of this collection
  holdfast.backup.host_info:
    calendars: [daily]
"""

RETURN = r""" # """
