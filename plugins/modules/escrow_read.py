#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: escrow_read
short_description: Opens the escrow of one host on the controller
version_added: 0.1.0
description:
  - Opens the newest escrow bundle of each repository with C(age) on the controller, and returns its secrets.
  - The client says when a bundle was made. One that says more than a day from now counts only where there is no other. Of that,
    and of bundles whose passwords no rotation leads to from each other, it warns, with their file names and times.
  - The task has to set C(no_log). Nothing is written.
options:
  path:
    description: The state directory, absolute.
    type: str
    required: true
  host:
    description: Inventory name of the host. Default is the host of the task.
    type: str
  backup_id:
    description: Name that the bundles have to be for. Those of another one count only where there is none of this one.
    type: str
  key:
    description: File on the controller with the secret key that C(age-keygen) made. Not needed for plaintext escrow.
    type: str
  bundles:
    description: File names of bundles to take instead of the newest ones, one of a repository at most.
    type: list
    elements: str
    default: []
  repositories:
    description:
      - Names of the repositories. One that the state directory has nothing of at all, neither a bundle nor a public half, is
        left out with a warning, as long as there is another.
    type: list
    elements: str
    required: true
extends_documentation_fragment: [holdfast.backup.attributes.controller]
author: holdfast contributors (@holdfast-backup)
"""

EXAMPLES = r"""
- name: Read the escrow
  holdfast.backup.escrow_read:
    path: /srv/fleet/holdfast-state
    key: /media/safe/backup-escrow.key
    repositories: [vault]
  register: bundles
  no_log: true
"""

RETURN = r"""
secrets:
  description:
    - For each repository C(password), and where there are such C(rest_password), C(ssh_key), C(borg_key) and C(environment).
    - C(made) tells when its bundle was made; of the next one it has to be later.
    - Where the password was being changed, C(next_password), or C(old_password) where it had been.
  type: dict
  returned: success
"""
