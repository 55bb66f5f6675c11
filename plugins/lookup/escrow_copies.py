# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Escrow bundles in the state directory that servers have no copies of."""

from __future__ import annotations

DOCUMENTATION = r"""
name: escrow_copies
short_description: Escrow bundles in the state directory that a server has no copies of
version_added: '0.1.0'
author: holdfast contributors (@holdfast-backup)
description:
  - What the module M(holdfast.backup.escrow_copies) has to add on a server, for the repositories that it holds. It is encrypted with age.
options:
  _terms:
    description: Inventory names of servers.
    type: list
    elements: str
    required: true
  path:
    description: The state directory, absolute.
    type: str
    required: true
  hosts:
    description: The C(hosts) of the model of the fleet, as M(holdfast.backup.preflight) returns them.
    type: dict
    required: true
  there:
    description: The copies that the server has of each repository, as M(holdfast.backup.host_info) returns them.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep copies of the escrow
  holdfast.backup.escrow_copies:
    bundles: "{{ lookup('holdfast.backup.escrow_copies', inventory_hostname, path=state_dir, hosts=model.hosts, there=seen.escrow_copies) }}"
"""

RETURN = r"""
_raw:
  description: Contents in base64 by C(<backup_id>--<repository>/<bundle name>), for each server. In check mode a content may be empty.
  type: list
  elements: dict
"""


import typing as t

from ansible.plugins.lookup import LookupBase
from ansible_collections.holdfast.backup.plugins.plugin_utils import _escrow_copies


class LookupModule(LookupBase):
    """`lookup('holdfast.backup.escrow_copies', server, path=directory, hosts=model, there=names)`."""

    def run(self, terms: list[str], variables: t.Any = None, **kwargs: t.Any) -> list[dict[str, str]]:
        """One dictionary for each server in `terms`."""
        self.set_options(var_options=variables, direct=kwargs)
        hosts, there, path = (self.get_option(name) for name in ("hosts", "there", "path"))
        known = variables or {}
        check_mode = bool(known.get("ansible_check_mode", False))
        found = []
        for server in terms:
            copies, damaged = _escrow_copies.missing(
                server, hosts, there, known.get("hostvars", {}), path, check_mode=check_mode
            )
            for words in damaged:
                self._display.warning(words)
            found.append(copies)
        return found
