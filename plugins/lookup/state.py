# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the state directory on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: state
short_description: What the state directory on the controller has of a host
version_added: '0.1.0'
author: holdfast contributors (@holdfast-backup)
description:
  - Reads the state directory that M(holdfast.backup.state) writes. What is missing is empty or null.
options:
  _terms:
    description: Inventory names of hosts.
    type: list
    elements: str
    required: true
  path:
    description: The state directory, absolute.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the REST hash of a client
  ansible.builtin.debug:
    msg: "{{ lookup('holdfast.backup.state', 'web1', path='/srv/fleet/holdfast-state').rest.vault.hash }}"
"""

RETURN = r"""
_raw:
  description:
    - One dictionary for each host, with C(fleet_id), C(rest) (C(user), C(hash), C(next_hash) by repository), C(ssh) (C(key),
      C(next_key) by repository), C(escrow) (names of bundles by repository), C(identities) (C(backup_id) by repository), C(ca), C(ssh_host_keys), C(rendered),
      C(ssh_rendered) and C(decommissioned).
  type: list
  elements: dict
"""


import os
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.holdfast.backup.plugins.plugin_utils import _state


class LookupModule(LookupBase):
    """`lookup('holdfast.backup.state', host, path=directory)`."""

    def run(self, terms: list[str], variables: t.Any = None, **kwargs: t.Any) -> list[dict[str, t.Any]]:
        """One dictionary for each host in `terms`."""
        self.set_options(var_options=variables, direct=kwargs)
        path = self.get_option("path")
        if not os.path.isabs(path):
            raise AnsibleLookupError(f"path: {path!r} is not absolute")
        try:
            fleet_id = _state.read_fleet_id(path)
            return [{"fleet_id": fleet_id, **_state.read_host(path, host)} for host in terms]
        except ValueError as error:
            raise AnsibleLookupError(str(error)) from None
