#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a documentation stub; the action plugin of the same name does the work on the controller.

DOCUMENTATION = r"""
module: state
short_description: Keep what hosts deliver in the state directory on the controller
version_added: '0.1.0'
author: holdfast contributors (@holdfast-backup)
description:
  - Writes files of one host to the state directory, atomically, as the user who runs Ansible, with mode C(0600) in
    directories of mode C(0700). Nothing runs on the host, and C(become) has no effect.
  - Contents are checked before anything is written, because hosts deliver them.
  - Escrow bundles are add-only. One that is there is never overwritten or removed.
  - Two controllers that write at once wait for each other.
options:
  path:
    description: The state directory, absolute. It is made when it is missing.
    type: str
    required: true
  host:
    description: Inventory name of the host that the files belong to. Default is the host of the task.
    type: str
  write:
    description:
      - Contents by path below the host's directory. A content is a string, a dictionary that is kept as JSON, or a dictionary with
        the one key C(b64) that holds it in base64.
      - Paths are C(rest/<repository>.json) with C(user), C(hash) and C(next_hash), C(ssh/<repository>.pub) with one or two lines
        C(ssh-ed25519 BASE64), C(escrow/<repository>/<bundle name>), C(ca.pem), C(identity.json) with a C(backup_id) by
        repository in C(repositories), C(ssh_host_keys) with lines C(TYPE BASE64), C(rendered.json),
        C(ssh_rendered.json), C(decommissioned.json) and C(handed_over.json).
      - In check mode the value C(<made in the first real run>) stands for what is not born yet.
    type: dict
    default: {}
  remove:
    description: Paths below the host's directory that are to be absent. Escrow bundles are refused.
    type: list
    elements: str
    default: []
  make_fleet_id:
    description: Make the fleet's id if there is none.
    type: bool
    default: false
  fleet_id:
    description: The id that the fleet has already, for a state directory that was lost. It never replaces another one.
    type: str
attributes:
  check_mode:
    description: Compares and writes nothing.
    support: full
  diff_mode:
    description: Shows which files change, not their contents.
    support: full
  platform:
    description: Runs on the controller.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Keep the public halves of a client's secrets
  holdfast.backup.state:
    path: /srv/fleet/holdfast-state
    write:
      rest/vault.json:
        user: web1--vault
        hash: "{{ identity.repositories.vault.rest_hash }}"
        next_hash: "{{ identity.repositories.vault.rest_next_hash }}"

- name: Make the fleet's id once
  holdfast.backup.state:
    path: /srv/fleet/holdfast-state
    make_fleet_id: true
  run_once: true
"""

RETURN = r"""
written:
  description: Paths below the state directory that were written.
  returned: success
  type: list
  elements: str
  sample: [hosts/web1/rest/vault.json]
removed:
  description: Paths below the state directory that were removed.
  returned: success
  type: list
  elements: str
  sample: []
fleet_id:
  description: The fleet's id, null if there is none. C(<made in the first real run>) where check mode cannot know.
  returned: success
  type: str
  sample: 6f1c1f0e9a3b4d536f1c1f0e9a3b4d53
"""
