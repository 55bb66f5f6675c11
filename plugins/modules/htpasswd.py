#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: htpasswd
short_description: The whole htpasswd of a rest-server
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Writes the whole htpasswd of a rest-server in one execution, atomically, sorted and without duplicates.
  - Revokes only users that the manifest on the server says this fleet put there. Declared users whose hash is not known
    now keep the line that the server has.
  - Warns of what it removes that was not its own, and of users whose hash is refused or not known.
extends_documentation_fragment: [holdfast.backup.attributes.host]
attributes:
  check_mode:
    support: full
    description: An owner or group that does not exist yet is listed in RV(not_checked).
  diff_mode:
    support: full
    description: Shows names of users, never hashes.
options:
  path:
    description: The htpasswd.
    type: path
    required: true
  owner:
    description: Name or number of its owner.
    type: str
    default: root
  group:
    description: Name or number of its group.
    type: str
    default: root
  mode:
    description: Its mode as three or four octal digits in quotes. A number is an error.
    type: raw
    default: '0640'
  manifest:
    description: JSON file on the server that says which user belongs to which fleet and host.
    type: path
    default: /var/lib/holdfast/htpasswd.json
  fleet_id:
    description: Id of the fleet. A server that serves another one is an error.
    type: str
    required: true
  users:
    description: Users whose hash is known.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      hash:
        description:
          - bcrypt hash of the password. A hash of another form or cost is refused, and the user keeps the line that the
            server has.
          - In check mode it may be C(<made in the first real run>).
        type: str
        required: true
      backup_id:
        description: The host that the user belongs to. Not given for users that are no hosts.
        type: str
      next_hash:
        description: Hash of the password that the client will use next. See O(switch).
        type: str
      busy:
        description: Whether the client runs a backup now, so that its password must not be switched. Unknown counts as busy.
        type: bool
        default: true
      heard:
        description:
          - Whether the client said the hash itself in this run. A hash that is only remembered, and that this server replaced or revoked
            before, is of an old state directory, and lets nobody in again. The user keeps the line that this module gave it since, and
            has none where there is none.
        type: bool
        default: true
  repositories:
    description:
      - Directory of the repositories. A user is busy, too, while its repository holds a lock of the last 30 minutes. That is
        a backup that began after its client was asked.
    type: path
  keep:
    description: Names of declared users whose hash is not known now.
    type: list
    elements: str
    default: []
  adopt_foreign:
    description: What to do with lines of users that are neither declared nor in the manifest.
    type: str
    choices: [remove, keep]
    default: remove
  cost:
    description: Cost that every bcrypt hash must have.
    type: int
    default: 12
  revoke_max:
    description: Revoking users of more hosts than this is an error before any change. Not given, there is no limit.
    type: int
  switch:
    description: Whether users that are not busy get their O(users[].next_hash). Once switched a user is never switched back.
    type: bool
    default: false
  switch_busy:
    description:
      - Whether O(switch) holds for busy users, too. For a password that is in somebody else's hands, who can always look busy - a lock is a file
        that whoever has the password may write. What runs with the old password is cut off.
    type: bool
    default: false
  phase:
    description:
      - V(all) makes the file what is declared.
      - V(revoke) only removes the lines of users that are not declared. It is for a server where V(all) cannot follow. Nobody gets a line or
        another hash.
    type: str
    choices: [all, revoke]
    default: all
"""

EXAMPLES = r"""
- name: Render the htpasswd of the server
  holdfast.backup.htpasswd:
    path: /etc/rest-server/htpasswd
    group: rest-server
    fleet_id: "{{ fleet_id }}"
    users:
      - name: web1--vault
        backup_id: web1
        hash: "{{ web1_hash }}"
    keep: [db1--vault]
    revoke_max: 1
"""

RETURN = r"""
created:
  description: Users that had no line.
  returned: success
  type: list
  elements: str
  sample: [web1--vault]
changed_users:
  description: Users whose line changed, duplicates removed among them.
  returned: success
  type: list
  elements: str
revoked:
  description: Users of this fleet that are not declared any more and lost their line.
  returned: success
  type: list
  elements: str
kept:
  description: Users of O(keep), and those whose hash was replaced before, that keep the line the server has. See O(users[].heard).
  returned: success
  type: list
  elements: str
missing:
  description: The same for which the server has no line.
  returned: success
  type: list
  elements: str
refused:
  description: Users whose hash has another form or cost. Their line stays as it is.
  returned: success
  type: list
  elements: str
foreign:
  description: Users (or line numbers) of unknown origin, removed unless O(adopt_foreign=keep).
  returned: success
  type: list
  elements: str
switched:
  description: Users that have their next hash now, got in this run or in an earlier one that ended before their client knew.
  returned: success
  type: list
  elements: str
deferred:
  description: Users that are busy and will be switched by a later run.
  returned: success
  type: list
  elements: str
not_checked:
  description: In check mode, the owner or group that does not exist yet.
  returned: success
  type: list
  elements: str
"""

import dataclasses
import functools
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._bcrypt import COST
from ..module_utils._failures import told
from ..module_utils._files import Entry, Tree, check_path, group_id, parse_mode, user_id
from ..module_utils._htpasswd import (
    Manifest,
    Policy,
    check_fleet,
    make_diff,
    make_warnings,
    parse_htpasswd,
    parse_manifest,
    parse_users,
    plan_htpasswd,
    render_manifest,
    unite,
)

_NO_ID = -1
# What restic itself calls a stale lock.
_LOCK_SECONDS = 30 * 60
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def _accounts(module: AnsibleModule, path: str) -> tuple[int, int, list[str]]:
    owner, group = module.params["owner"], module.params["group"]
    uid, gid = user_id(owner), group_id(group)
    missing = [f"{path}: its owner {owner} does not exist"] if uid is None else []
    missing += [f"{path}: its group {group} does not exist"] if gid is None else []
    if missing and not module.check_mode:
        raise ValueError("; ".join(missing) + ": make the account first")
    return _NO_ID if uid is None else uid, _NO_ID if gid is None else gid, missing


def _made(directory: int, name: str) -> float:
    """When a file was written, in seconds since 1970; 0 for one that went while we looked."""
    try:
        return os.lstat(name, dir_fd=directory).st_mtime
    except FileNotFoundError:
        return 0.0


def _locked(repositories: str, name: str) -> bool:
    """Whether somebody works in the repository of a user: restic makes its lock anew every five minutes."""
    descriptors = []
    try:
        descriptors.append(os.open(repositories, _DIRECTORY))
        for part in (name, "locks"):
            descriptors.append(os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptors[-1]))
        now = time.time()
        # One from the far future is of a clock that was wrong, and would never be old; a file system of another host may be ahead.
        return any(
            abs(now - made) < _LOCK_SECONDS
            for made in map(functools.partial(_made, descriptors[-1]), os.listdir(descriptors[-1]))
        )
    except FileNotFoundError:
        # Nothing was ever stored.
        return False
    except OSError:
        return True
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    path, manifest_path = check_path(params["path"], "path"), check_path(params["manifest"], "manifest")
    mode = parse_mode(params["mode"], "mode")
    users = parse_users(params["users"], params["keep"])
    if params["repositories"] is not None:
        users = tuple(
            dataclasses.replace(user, busy=user.busy or _locked(params["repositories"], user.name)) for user in users
        )
    uid, gid, not_checked = _accounts(module, path)
    policy = Policy(
        fleet_id=params["fleet_id"],
        cost=params["cost"],
        revoke_max=params["revoke_max"],
        keep_foreign=params["adopt_foreign"] == "keep",
        switch=params["switch"],
        switch_busy=params["switch_busy"],
        check_mode=module.check_mode,
        revoke_only=params["phase"] == "revoke",
    )
    with Tree() as tree:
        manifest = parse_manifest(tree.read_json(manifest_path), manifest_path)
        check_fleet(manifest, policy.fleet_id, manifest_path)
        entry = tree.entry(path)
        if entry is not None and entry.kind not in ("file", "link"):
            raise ValueError(f"{path} is not a file: remove it, or give another path")
        text = "" if entry is None else entry.content.decode("utf-8", "surrogateescape")
        current, odd = parse_htpasswd(text)
        outcome = plan_htpasswd(users, current, odd, manifest, policy)
        content = outcome.text().encode("utf-8", "surrogateescape")
        wanted = Entry("file", uid, gid, mode, content)
        known = dict(manifest.users) if manifest is not None else {}
        final = {
            user.name: user.backup_id if user.hash is not None else known.get(user.name)
            for user in users
            if user.name in outcome.lines
        }
        if not module.check_mode:
            # The manifest knows a user before the server does, and until the server has forgotten it.
            after = Manifest(policy.fleet_id, final, outcome.hashes)
            union = unite(manifest, after)
            if union != manifest:
                tree.write_json(manifest_path, render_manifest(union), mode=0o600)
            if entry != wanted:
                tree.make_parents(path)
                tree.write(path, content, uid=uid, gid=gid, mode=mode)
            if union != after:
                tree.write_json(manifest_path, render_manifest(after), mode=0o600)
    for warning in make_warnings(path, current, odd, outcome, policy.cost):
        module.warn(warning)
    return {
        "changed": entry != wanted,
        "diff": make_diff(path, current, outcome),
        "not_checked": not_checked,
        **outcome.report(),
    }


def main() -> None:
    """Run the module."""
    user = {
        "name": {"type": "str", "required": True},
        "hash": {"type": "str", "required": True, "no_log": True},
        "backup_id": {"type": "str"},
        "next_hash": {"type": "str", "no_log": True},
        "busy": {"type": "bool", "default": True},
        "heard": {"type": "bool", "default": True},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "raw", "default": "0640"},
            "manifest": {"type": "path", "default": "/var/lib/holdfast/htpasswd.json"},
            "fleet_id": {"type": "str", "required": True},
            "users": {"type": "list", "elements": "dict", "default": [], "options": user},
            "repositories": {"type": "path"},
            "keep": {"type": "list", "elements": "str", "default": []},
            "adopt_foreign": {"type": "str", "choices": ["remove", "keep"], "default": "remove"},
            "cost": {"type": "int", "default": COST},
            "revoke_max": {"type": "int"},
            "switch": {"type": "bool", "default": False},
            "switch_busy": {"type": "bool", "default": False},
            "phase": {"type": "str", "choices": ["all", "revoke"], "default": "all"},
        },
        supports_check_mode=True,
    )
    with told(module):
        result = _run(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
