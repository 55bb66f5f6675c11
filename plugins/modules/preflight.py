#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: preflight
short_description: Checks the whole inventory once, before anything is changed
version_added: 0.1.0
description:
  - Computes the merged and validated model of all hosts from their variables with the filter P(holdfast.backup.fleet#filter),
    and stops on the first sight of bad input, with one message for each problem that names the variable, its value and the cure.
  - Runs on the controller only and writes nothing. Use it with C(run_once) and register its result for every host of the play.
options:
  state_dir:
    description: The state directory on the controller, absolute or beside the one inventory directory.
    type: str
    default: holdfast-state
  limit:
    description: Inventory names of the hosts that this run may change. Default are the hosts of the play.
    type: list
    elements: str
  mode:
    description:
      - V(site) also checks what the run would have to change outside its limit, V(read) does not.
      - With V(read) what only goes wrong with what a run makes is a warning, several state directories too; it keeps no client its access.
    type: str
    choices: [site, read]
    default: site
  revoke:
    description: Inventory name of a client that is to have no access; it stops where a server that lets the client in is outside the limit.
    type: str
  fleet_id:
    description: The fleet's id if the user gives it. Read here, since a fact of the same name outranks the inventory later.
    type: str
extends_documentation_fragment: [holdfast.backup.attributes.controller]
author: holdfast contributors (@holdfast-backup)
"""

EXAMPLES = r"""
- name: Check the inventory of the whole fleet
  holdfast.backup.preflight:
    state_dir: "{{ backup_state_dir | default('holdfast-state') }}"
  run_once: true
  register: holdfast_preflight
"""

RETURN = r"""
hosts:
  description: The model, by inventory name; C(client) and C(server) are null where a host is not one.
  type: dict
  returned: success
state_dir:
  description: The absolute path of the state directory.
  type: str
  returned: success
fleet_id:
  description: The fleet's id, null before the first run.
  type: str
  returned: success
wanted_fleet_id:
  description: The fleet's id that the user gave, null if none.
  type: str
  returned: success
known:
  description: What the state directory has for each host.
  type: dict
  returned: success
lets_in:
  description: By server that is managed from here, over what (C(rest), C(ssh)) it lets the client in that O(revoke) names.
  type: dict
  returned: success, with O(revoke)
program_sha256:
  description: SHA-256 of the host program as this collection builds it.
  type: str
  returned: success, with O(mode=site)
"""
