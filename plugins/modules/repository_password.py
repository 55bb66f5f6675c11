#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: repository_password
short_description: Change the passwords of backup repositories
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Takes a next password, made by the module M(holdfast.backup.identity), into use. restic gets another key with it, borg's one key
    is encrypted with it. That the next password alone opens the repository on record is seen before the files change.
  - The key that the old password opens is removed when no backup runs that may have begun with it.
  - What files there are beside O(repositories[].password_file) says how far a change is (C(<password_file>_next),
    C(<password_file>_old)), so a run that was cut off is gone on with by the next one.
  - Of a repository without such files nothing is looked at.
  - A repository that cannot be changed now does not fail the module, so that what was done to the others is known. Why it
    cannot is RV(repositories[].kept).
extends_documentation_fragment: [holdfast.backup.attributes.host]
attributes:
  check_mode:
    support: full
    description:
      - Says that each of O(repositories) gets its next password and, where O(phase) removes, loses its old key, since the real run
        comes here with a next password that check mode has not made.
  diff_mode:
    support: full
    description: Shows what is done to which repository.
options:
  repositories:
    description: The repositories, as for the module M(holdfast.backup.repository).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the repository.
        type: str
        required: true
      engine:
        description: The tool.
        type: str
        choices: [restic, borg]
        default: restic
      repository:
        description: Location as the tool takes it. Exactly one of this and O(repositories[].repository_file) is needed.
        type: str
      repository_file:
        description: File that holds the location, credentials included.
        type: path
      password_file:
        description: File that holds the current password.
        type: path
        required: true
      environment_file:
        description: File with the backend's credentials.
        type: path
      options:
        description: Extended options of restic.
        type: dict
        default: {}
      cacert:
        description: File with the certificates to trust instead of the system's.
        type: path
      proxy:
        description: URL of the proxy by which restic reaches the repository.
        type: str
      mount:
        description: Directory that must be a mount point.
        type: path
      binary:
        description: The program. By default it is named like the engine.
        type: str
      user:
        description: Account that a local repository belongs to.
        type: str
      cache_directory:
        description: Cache directory of restic.
        type: path
      encryption:
        description: Encryption of a borg repository.
        type: str
        choices: [repokey-blake2, keyfile-blake2]
      key_file:
        description: File that keeps what C(borg key export) prints; it is written anew. Needed for borg.
        type: path
      base_directory:
        description: Directory of borg's own state.
        type: path
      ssh_command:
        description: Command by which borg reaches a server.
        type: str
      record:
        description: The record of the module M(holdfast.backup.repository), which is brought up to date.
        type: path
      remove:
        description:
          - Who removes an old key of restic. With V(client) it is done here. With V(server), for repositories that the client
            cannot delete in, its id is RV(repositories[].old_key), for the module M(holdfast.backup.retired_keys).
        type: str
        choices: [client, server]
        default: client
  phase:
    description:
      - V(use) takes next passwords into use.
      - V(retire) removes old keys, and forgets the old password when its key was seen to be gone.
      - V(forget) is V(retire) after the server did its part; the two differ in check mode only.
    type: str
    choices: [use, retire, forget]
    default: use
  timeout:
    description: Seconds that each step on one repository may take.
    type: int
    default: 60
requirements:
  - systemd, which says what runs, and keeps backups with borg from starting while a passphrase changes
seealso:
  - module: holdfast.backup.identity
  - module: holdfast.backup.retired_keys
"""

EXAMPLES = r"""
- name: Take the next password into use
  holdfast.backup.repository_password:
    repositories:
      - name: vault
        repository_file: /etc/holdfast/secrets/vault.repository
        password_file: /etc/holdfast/secrets/vault.password
        remove: server

- name: Remove the key of the one before
  holdfast.backup.repository_password:
    phase: retire
    repositories:
      - name: disk
        repository_file: /etc/holdfast/secrets/disk.repository
        password_file: /etc/holdfast/secrets/disk.password
        user: holdfast
"""

RETURN = r"""
repositories:
  description: All repositories, in the order of O(repositories).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the repository.
      type: str
      returned: always
    action:
      description: V(use), V(remove) or V(none).
      type: str
      returned: always
      sample: use
    changed:
      description: Whether this one was changed.
      type: bool
      returned: always
    kept:
      description: Why the old password, or its key, stays for now, in words.
      type: str
      returned: always
    id:
      description: Id of the repository.
      type: str
      returned: always
    key:
      description: Id of the key that the current password opens. For borg, the SHA-256 of the exported key.
      type: str
      returned: always
    old_key:
      description: Id of the key that the server has to remove, null if there is none.
      type: str
      returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError
from ansible_collections.holdfast.backup.plugins.module_utils._location import redact
from ansible_collections.holdfast.backup.plugins.module_utils._rotate import rotate

# Only one run at a time on a host; the module repository has the same.
LOCK_DIRECTORY = "/run/holdfast-repository"

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "repositories": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "engine": {"type": "str", "choices": ["restic", "borg"], "default": "restic"},
            "repository": {"type": "str"},
            "repository_file": {"type": "path"},
            "password_file": {"type": "path", "required": True, "no_log": False},
            "environment_file": {"type": "path"},
            "options": {"type": "dict", "default": {}},
            "cacert": {"type": "path"},
            "proxy": {"type": "str"},
            "mount": {"type": "path"},
            "binary": {"type": "str"},
            "user": {"type": "str"},
            "cache_directory": {"type": "path"},
            "encryption": {"type": "str", "choices": ["repokey-blake2", "keyfile-blake2"]},
            "key_file": {"type": "path", "no_log": False},
            "base_directory": {"type": "path"},
            "ssh_command": {"type": "str"},
            "record": {"type": "path"},
            "remove": {"type": "str", "choices": ["client", "server"], "default": "client"},
        },
    },
    "phase": {"type": "str", "choices": ["use", "retire", "forget"], "default": "use"},
    "timeout": {"type": "int", "default": 60},
}


def _run(module: AnsibleModule, options: dict[str, Any]) -> dict[str, Any]:
    if options["timeout"] < 1:
        raise ValueError(f"timeout: {options['timeout']} is less than a second: give a positive number of seconds")
    with Tree() as tree:
        if not module.check_mode:
            if tree.directory_entry(LOCK_DIRECTORY) is None:
                tree.make_directory(LOCK_DIRECTORY, uid=0, gid=0, mode=0o700)
            tree.lock(LOCK_DIRECTORY, timeout=6 * options["timeout"] * len(options["repositories"]))
        done = [
            rotate(entry, options["phase"], check_mode=module.check_mode, timeout=options["timeout"])
            for entry in options["repositories"]
        ]
    result: dict[str, Any] = {
        "changed": any(each.changed for each in done),
        "repositories": [each.to_dict() for each in done],
    }
    if module._diff:
        after = "".join(f"{each.name}: {each.action}\n" for each in done if each.changed)
        result["diff"] = {"before": "", "after": after, "before_header": "passwords", "after_header": "passwords"}
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    options = dict(module.params)
    # What Ansible returns as the module's arguments.
    module.params["repositories"] = [
        {**entry, "repository": redact(entry["repository"]) if entry["repository"] else None}
        for entry in options["repositories"]
    ]
    try:
        result = _run(module, options)
    except (ValueError, UnsafePathError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
