# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup `program`: the host program, built in memory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: program
short_description: The host program of the collection, built in memory
version_added: '0.1.0'
author: holdfast contributors (@holdfast-backup)
description:
  - Builds the program C(holdfast), which prepares, records and shows backups on a host, out of the collection's own
    Python sources. It is one file that needs nothing but Python 3.9 or newer and its standard library.
  - The same sources give the same bytes on every controller, so a host gets it only when it has changed.
notes:
  - It takes no terms. Nothing is written on the controller.
options: {}
"""

EXAMPLES = r"""
- name: Show what would be installed
  ansible.builtin.debug:
    msg: "{{ lookup('holdfast.backup.program').sha256 }}"
"""

RETURN = r"""
_raw:
  description: The program.
  type: list
  elements: dict
  contains:
    sha256:
      description: SHA-256 of the program, in hexadecimal digits.
      type: str
      sample: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
    content_base64:
      description: The program in Base64.
      type: str
      sample: IyEvdXNyL2Jpbi9weXRob24zIC1JUwo=
"""

import base64
import hashlib
import typing as t
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.holdfast.backup.plugins.plugin_utils import _zipapp


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(
        self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any
    ) -> list[dict[str, str]]:
        """The program as a list of one dictionary. Raises AnsibleError for terms, and if the sources are damaged."""
        if terms or kwargs:
            raise AnsibleError("the lookup holdfast.backup.program takes no terms and no options")
        try:
            content = _zipapp.build(Path(__file__).resolve().parents[2])
        except (OSError, ValueError, SyntaxError) as error:
            raise AnsibleError(f"the host program cannot be built: {error}") from error
        return [
            {
                "sha256": hashlib.sha256(content).hexdigest(),
                "content_base64": base64.b64encode(content).decode("ascii"),
            }
        ]
