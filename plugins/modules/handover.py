#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a documentation stub; the action plugin of the same name does the work on the controller.

DOCUMENTATION = r"""
module: handover
short_description: Write and read hand-over files, for clients and servers with different administrators
version_added: 0.1.0
description:
  - A client may be managed by one controller and the server of its repositories by another, with no login between the two. Each
    exports a file for the other and imports the other's.
  - The file of a client's administrator holds the bcrypt hashes and public SSH keys of the client's repositories. The file of
    the server's operator holds where they are served, the server's CA certificates and its SSH host keys. Neither holds a secret.
  - A file is checked as a whole before anything of it is kept. It can speak only for hosts of the groups C(backup_clients_elsewhere)
    and C(backup_servers_elsewhere) that the run is limited to, and only for repositories that the inventory declares.
  - Runs on the controller only. Use it with C(run_once).
options:
  path:
    description: The state directory, absolute.
    type: str
    required: true
  hosts:
    description: The model of the fleet, RV(holdfast.backup.preflight#module:hosts).
    type: dict
    required: true
  export_to:
    description:
      - The file to write, about the clients in the limit of the run.
      - Of clients of C(backup_clients) it says what servers of C(backup_servers_elsewhere) have to know, of clients of
        C(backup_clients_elsewhere) where servers of C(backup_servers) serve them.
    type: path
  import_from:
    description: The file to read. The run has to be limited to the hosts that it may speak for.
    type: path
attributes:
  check_mode:
    description: Compares and writes nothing.
    support: full
  diff_mode:
    description: Shows what the file says, with fingerprints. Hashes of passwords are not shown.
    support: full
  platform:
    description: Runs on the controller.
    support: full
    platforms: posix
author: holdfast contributors (@holdfast-backup)
"""

EXAMPLES = r"""
- name: Write what the operator of the server has to know
  holdfast.backup.handover:
    path: "{{ __holdfast_preflight.state_dir }}"
    hosts: "{{ __holdfast_preflight.hosts }}"
    export_to: /tmp/web1.json
  run_once: true
"""

RETURN = r""" # """
