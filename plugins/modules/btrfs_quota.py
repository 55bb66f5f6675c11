#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: btrfs_quota
short_description: Quotas of repositories, as limits of btrfs qgroups
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Makes each repository with a quota a btrfs subvolume of its own, before anybody writes to it, and limits its qgroup.
    Whoever fills a repository then stops only that one.
  - All repositories of a server in one execution. Limits that a former run set and that are not declared any more are
    lifted; limits that somebody else set are left alone.
  - Quotas of the file system are enabled when the first repository has one.
attributes:
  check_mode:
    support: full
    description: While the program C(btrfs) is not installed, present limits are listed in RV(not_checked).
  diff_mode:
    support: full
    description: Shows each limit before and after.
  platform:
    support: full
    platforms: posix
    description: Needs a Linux host with btrfs-progs and runs as root.
options:
  path:
    description: Directory of the repositories. It has to lie on btrfs if a repository has a quota.
    type: path
    required: true
  repositories:
    description: Repositories with a quota.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the directory below O(path).
        type: str
        required: true
      quota:
        description: The most that may be stored, in bytes or with K, M, G or T (powers of 1024).
        type: str
        required: true
  owner:
    description: Account that the repositories belong to.
    type: str
    required: true
  group:
    description: Its group.
    type: str
    required: true
  manifest:
    description: JSON file on the server that says which repositories this module limited.
    type: path
    default: /var/lib/holdfast/btrfs_quota.json
"""

EXAMPLES = r"""
- name: Limit what a client may store
  holdfast.backup.btrfs_quota:
    path: /srv/holdfast
    owner: holdfast-rest
    group: holdfast-rest
    repositories:
      - name: web1--vault
        quota: 200G
"""

RETURN = r"""
created:
  description: Repositories whose subvolume was made.
  returned: success
  type: list
  elements: str
  sample: [web1--vault]
limited:
  description: Repositories whose limit was set.
  returned: success
  type: list
  elements: str
lifted:
  description: Repositories whose limit was lifted.
  returned: success
  type: list
  elements: str
used:
  description: Bytes that each repository with a quota refers to, where that is known.
  returned: success
  type: dict
  sample: {web1--vault: 1048576}
not_checked:
  description: In check mode, repositories whose limit cannot be read yet, and the owner or group that does not exist yet.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._btrfs import ABSENT, FORMAT, BtrfsError, Found, Groups, Plan, Storage, parse_size, plan
from ..module_utils._failures import told
from ..module_utils._files import Tree, check_path, group_id, user_id

_NO_ID = -1


def _wanted(repositories: list[dict[str, str]]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for repository in repositories:
        name = repository["name"]
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise ValueError(f"repositories: {name!r} is not the name of a directory")
        if name in wanted:
            raise ValueError(f"repositories: {name!r} is there twice")
        try:
            wanted[name] = parse_size(repository["quota"])
        except ValueError as error:
            raise ValueError(f"repositories[{name}].quota: {error}") from error
    return wanted


def _owner(module: AnsibleModule) -> tuple[tuple[int, int], list[str]]:
    uid, gid = user_id(module.params["owner"]), group_id(module.params["group"])
    missing = [f"owner {module.params['owner']}"] if uid is None else []
    missing += [f"group {module.params['group']}"] if gid is None else []
    if missing and not module.check_mode:
        raise ValueError(f"{' and '.join(missing)}: does not exist, make the account first")
    return (_NO_ID if uid is None else uid, _NO_ID if gid is None else gid), missing


def _limited(tree: Tree, manifest: str) -> list[str]:
    """Names that a former run limited."""
    content = tree.read_json(manifest)
    if content is None:
        return []
    names = content.get("limited")
    if (
        content.get("format") != FORMAT
        or not isinstance(names, list)
        or not all(isinstance(each, str) for each in names)
    ):
        raise ValueError(f"{manifest} is damaged: remove it, and look at the limits with 'btrfs qgroup show'")
    return names


def _run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    path, manifest = check_path(params["path"], "path"), check_path(params["manifest"], "manifest")
    wanted = _wanted(params["repositories"])
    owner, missing = _owner(module)
    with Tree() as tree:
        tree.trust([path])
        limited = _limited(tree, manifest)
        storage = Storage(tree, path)
        there = storage.on_btrfs() and tree.directory_entry(path) is not None
        if wanted and not storage.on_btrfs():
            raise BtrfsError(
                f"{path} does not lie on btrfs, which a quota needs ({', '.join(sorted(wanted))}): put rest_server_path on a"
                " btrfs file system, or remove `quota` of the repositories"
            )
        found = {name: storage.find(name) if there else Found(ABSENT) for name in {*wanted, *limited}}
        groups = storage.groups() if there else Groups(None, {}, {})
        todo = plan(wanted, limited, found, groups, owner)
        if not module.check_mode:
            # The manifest knows of a limit before it is set, and until it is lifted.
            _remember(tree, manifest, limited, {*wanted, *limited})
            storage.apply(todo, wanted, owner)
            _remember(tree, manifest, [*wanted, *limited], set(wanted))
        ids = {name: each.id for name, each in found.items() if each.id is not None and name in wanted}
        used = {name: groups.used[number] for name, number in ids.items() if number in groups.used}
        before = {name: groups.limits.get(number) for name, number in ids.items()}
        return _result(todo, used, {**dict.fromkeys(wanted), **before}, missing, wanted)


def _remember(tree: Tree, manifest: str, before: list[str], names: set[str]) -> None:
    if set(before) == names:
        return
    if names:
        tree.write_json(manifest, {"format": FORMAT, "limited": sorted(names)}, mode=0o600)
    else:
        tree.unlink(manifest)


def _result(
    todo: Plan,
    used: dict[str, int],
    before: dict[str, int | None],
    missing: list[str],
    wanted: dict[str, int] | None = None,
) -> dict[str, Any]:
    after = {**before, **(wanted or {}), **dict.fromkeys(todo.lift, None)}
    return {
        "changed": todo.changes,
        "created": list(todo.create),
        "limited": list(todo.limit),
        "lifted": list(todo.lift),
        "used": used,
        "not_checked": [*todo.unchecked, *missing],
        "diff": {"before": _shown(before, todo, old=True), "after": _shown(after, todo, old=False)},
    }


def _shown(limits: dict[str, int | None], todo: Plan, *, old: bool) -> str:
    lines = []
    for name in sorted({*todo.create, *todo.own, *todo.limit, *todo.lift}):
        limit = limits.get(name)
        kind = "no subvolume" if old and name in todo.create else "subvolume"
        known = "limited" if old and name in todo.lift else f"limit {limit} bytes" if limit is not None else "no limit"
        lines.append(f"{name}: {kind}, {known}\n")
    if todo.enable:
        lines.append(f"quotas of the file system: {'off' if old else 'on'}\n")
    return "".join(lines)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "repositories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "quota": {"type": "str", "required": True},
                },
            },
            "owner": {"type": "str", "required": True},
            "group": {"type": "str", "required": True},
            "manifest": {"type": "path", "default": "/var/lib/holdfast/btrfs_quota.json"},
        },
        supports_check_mode=True,
    )
    with told(module, BtrfsError, place=module.params["path"]):
        result = _run(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
