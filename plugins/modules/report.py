#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: report
short_description: Shows the state of the whole fleet
version_added: 0.1.0
description:
  - Shows what the clients answered as one table, as JSON, or as the answer to a JMESPath query.
  - Runs on the controller only and changes nothing but O(output). Use it with C(run_once).
options:
  hosts:
    description: The model of the fleet, as M(holdfast.backup.preflight) returns it.
    type: dict
    required: true
  answers:
    description: The standard output of C(holdfast status --json) by inventory name, null where a client gave none.
    type: dict
    required: true
  stale:
    description: Repositories by inventory name that a client has secrets of and does not declare, where that was looked at.
    type: dict
    default: {}
  format:
    description: What is printed.
    type: str
    choices: [table, json]
    default: table
  query:
    description:
      - A JMESPath expression over the fleet's state; its answer is printed as JSON. Needs C(jmespath) on the controller.
      - Default is what C(-e query=…) of the command line says.
    type: str
  output:
    description:
      - A file on the controller for the fleet's state, or the answer to O(query), as JSON and nothing else. Only its owner may read it.
      - Check mode does not write it.
    type: path
extends_documentation_fragment: [holdfast.backup.attributes.controller]
author: holdfast contributors (@holdfast-backup)
"""

EXAMPLES = r"""
- name: Show every run that is not ok
  holdfast.backup.report:
    hosts: "{{ holdfast_preflight.hosts }}"
    answers: "{{ answers }}"
    query: "hosts.*.units[?outcome != 'ok'][]"
  run_once: true
"""

RETURN = r"""
state:
  description: The fleet's state, C(hosts) by inventory name with C(units) and C(notes).
  type: dict
  returned: success
answer:
  description: The answer to the query.
  type: raw
  returned: when O(query) is given
"""
