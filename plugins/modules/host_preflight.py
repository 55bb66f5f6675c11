#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: host_preflight
short_description: Looks at a host, and judges what it delivers
version_added: 0.1.0
description:
  - Runs M(holdfast.backup.host_info) on the host, and compares what it saw with what the host's jobs and its server need.
  - What is wrong with this host fails its task, with one message for each problem. What is wrong with the inventory is returned, so that
    a following task can stop every host. With O(revoke_only) it fails this task, too.
options:
  look:
    description:
      - Options of M(holdfast.backup.host_info). C(calendars), C(resolve) and C(mounts) come from the client's side of the model,
        as M(holdfast.backup.preflight) returned it, registered as C(__holdfast_preflight), and C(places) from that,
        O(tool) and O(server).
    type: dict
    required: true
  tool:
    description: How its restic is installed, and as C(account) whose its local repositories are to be.
    type: dict
  server:
    description: What is asked of it as a server.
    type: dict
  revoke_only:
    description: Whether access is only taken away. No other host has to wait then for what is wrong, and nothing is asked of this one as a client.
    type: bool
    default: false
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Linux.
    platforms: linux
    support: full
author: holdfast contributors (@holdfast-backup)
"""

EXAMPLES = r"""
- name: Look at this host
  holdfast.backup.host_preflight:
    look:
      packages: [restic]
    tool: {install: package, package: restic, binary: /usr/bin/restic}
  register: host
"""

RETURN = r"""
inventory_problems:
  description: Messages about the inventory that only this host could tell. Beside them everything that M(holdfast.backup.host_info) returns.
  type: list
  elements: str
  returned: success
"""
