#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_tree
short_description: Exact set of files of one namespace
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Makes all files and directories of one namespace exactly what is declared, in one execution.
  - Files that the namespace once wrote and that are not declared any more are removed, then the directories it made, if
    they are empty. A manifest on the host knows what belongs to whom.
  - Everything is validated before the first change. Files are replaced atomically. When a run is killed at any moment,
    the next run converges.
  - Never follows a symbolic link that somebody other than root can have made, and refuses directories that others can
    write to, unless they are declared in O(directories).
extends_documentation_fragment: [holdfast.backup.attributes.host]
attributes:
  check_mode:
    support: full
    description: Reports what the real run would do. What cannot be checked yet is listed in RV(not_checked).
  diff_mode:
    support: full
    description: Of O(secret_files) it only says that they would change.
options:
  namespace:
    description:
      - Name of the owner of this set of files. Lower case letters, digits and C(_), beginning with a letter.
      - A file belongs to one namespace only.
    type: str
    required: true
  files:
    description:
      - Files that may be shown in a diff. A file that exists already is taken over.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      content:
        description:
          - Text of the file. Must be a string.
          - Exactly one of O(files[].content), O(files[].content_base64) and O(files[].sha256) is needed.
        type: raw
      content_base64:
        description: Content of the file in base64.
        type: str
      sha256:
        description:
          - SHA-256 of the content that the installed file has already, in hex. Owner and mode are still set.
          - Meant for large files that need not be sent when they are the same. Another content is an error.
        type: str
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      mode:
        description: Mode as three or four octal digits in quotes. A number is an error.
        type: raw
        default: '0644'
      validate:
        description:
          - Command that checks the content before anything is changed. C(%s) is replaced by the name of a copy. No shell
            is used.
          - V(systemd-unit) verifies all unit files of this execution that have it together, with C(systemd-analyze
            verify). Unknown keys and sections are errors.
          - Only runs when the content changes.
        type: str
  secret_files:
    description:
      - Files whose content is never shown. The suboptions are those of O(files).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      content:
        description: Text of the file. Must be a string.
        type: raw
      content_base64:
        description: Content of the file in base64.
        type: str
      sha256:
        description: SHA-256 of the content that the installed file has already, in hex.
        type: str
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      mode:
        description: Mode as three or four octal digits in quotes. A number is an error.
        type: raw
        default: '0600'
      validate:
        description: As for O(files), but what the command prints is not shown.
        type: str
  directories:
    description:
      - Directories with owner and mode. Missing parents are made as root with mode 0755.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      mode:
        description: Mode as three or four octal digits in quotes. A number is an error.
        type: raw
        default: '0755'
  manifest_dir:
    description: Directory of the manifests on the host.
    type: path
    default: /var/lib/holdfast/file_tree
  prune:
    description: Whether to remove what the namespace wrote earlier and what is not declared any more.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Write units and environment in one execution
  holdfast.backup.file_tree:
    namespace: jobs
    directories:
      - path: /etc/holdfast/secrets
        mode: '0700'
    files:
      - path: /etc/systemd/system/holdfast-system--vault.timer
        content: "{{ lookup('ansible.builtin.template', 'job.timer.j2') }}"
        validate: systemd-unit
    secret_files:
      - path: /etc/holdfast/secrets/offsite.environment
        content: "{{ environment_text }}"
        mode: '0400'

- name: Remove all files of a namespace
  holdfast.backup.file_tree:
    namespace: jobs
"""

RETURN = r"""
created:
  description: Files that did not exist.
  returned: success
  type: list
  elements: str
  sample: [/etc/systemd/system/holdfast-system--vault.timer]
changed_files:
  description: Files whose content, owner, group or mode changed.
  returned: success
  type: list
  elements: str
removed:
  description: Files that were removed.
  returned: success
  type: list
  elements: str
directories_created:
  description: Directories that did not exist, missing parents included.
  returned: success
  type: list
  elements: str
directories_changed:
  description: Directories whose owner, group or mode changed.
  returned: success
  type: list
  elements: str
directories_removed:
  description: Directories that the namespace had made and that were empty.
  returned: success
  type: list
  elements: str
not_checked:
  description:
    - What only the real run can check, each with the path and the reason, for instance an owner or a validator that
      does not exist yet. Outside check mode this is an error, except for drop-ins of units that are not declared here.
  returned: success
  type: list
  elements: str
"""

import os
import re
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._failures import told
from ..module_utils._file_tree import (
    NO_ID,
    Current,
    Plan,
    Wanted,
    make_diff,
    make_plan,
    parse_wanted,
    paths_to_read,
    read_ids,
)
from ..module_utils._files import Tree, check_path, group_id, user_id
from ..module_utils._manifest import Manifest, claims, load_manifest, save_manifest
from ..module_utils._quiet import QuietModule
from ..module_utils._validate import UNIT, validate_command, validate_units

_NAMESPACE = re.compile(r"\A[a-z][a-z0-9_]*\Z")
_LOCK_TIMEOUT = 60.0


def _attributes(mode: str) -> dict[str, Any]:
    return {
        "path": {"type": "str", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "raw", "default": mode},
    }


def _file_options(mode: str, *, secret: bool) -> dict[str, Any]:
    return {
        **_attributes(mode),
        "content": {"type": "raw", "no_log": secret},
        "content_base64": {"type": "str", "no_log": secret},
        "sha256": {"type": "str"},
        "validate": {"type": "str"},
    }


def _read(tree: Tree, wanted: Wanted, manifest: Manifest) -> Current:
    files, directories = paths_to_read(wanted, manifest)
    entries = {path: tree.directory_entry(path) for path in sorted(directories)}
    entries.update({path: tree.entry(path) for path in files})
    leftovers = re.compile(r"\A\.holdfast-[0-9a-f]{16}\.tmp\Z")
    names = {
        path: frozenset(name for name in tree.names(path) if not leftovers.match(name))
        for path, made in manifest.directories.items()
        if made
    }
    return Current(entries, names)


def _validate(plan: Plan, wanted: Wanted, scratch: str) -> tuple[list[str], list[str]]:
    """Run the validators of all files whose content changes; return errors and what could not be checked."""
    verdicts = []
    changing = {
        write.wanted.path for write in plan.writes if write.before is None or write.before.content != write.content
    }
    for write in plan.writes:
        item = write.wanted
        if item.path in changing and item.validate not in (None, UNIT):
            verdicts.append(validate_command(item.path, write.content, item.validate, scratch, secret=item.secret))
    units = {item.path: item.content for item in wanted.files if item.validate == UNIT and item.content is not None}
    if changing & set(units):
        directory = os.path.join(scratch, "units")
        os.mkdir(directory, 0o700)
        verdicts.append(validate_units(units, [item.path for item in wanted.files], directory))
    errors = [error for verdict in verdicts for error in verdict.errors]
    return errors, [reason for verdict in verdicts for reason in verdict.not_checked]


def _missing_accounts(wanted: Wanted, uids: dict[str, int], gids: dict[str, int]) -> list[str]:
    missing = []
    for item in wanted.items():
        if uids[item.owner] == NO_ID:
            missing.append(f"{item.path}: its owner {item.owner} does not exist")
        if gids[item.group] == NO_ID:
            missing.append(f"{item.path}: its group {item.group} does not exist")
    return missing


def _apply(tree: Tree, plan: Plan, manifest: Manifest, directory: str, namespace: str) -> None:
    if manifest != plan.union:
        save_manifest(tree, directory, namespace, plan.union)
    for path in (*plan.union.files, *plan.union.directories):
        tree.clean(path)
    for item in plan.directories:
        change = tree.make_directory if item.before is None else tree.set_directory
        change(item.wanted.path, uid=item.uid, gid=item.gid, mode=item.wanted.mode)
    # Programs first: a new one reads old files, but a unit that starts in between has the old one refuse new files.
    for write in sorted(plan.writes, key=lambda each: not each.wanted.mode & 0o111):
        tree.write(write.wanted.path, write.content, uid=write.uid, gid=write.gid, mode=write.wanted.mode)
    for path, _entry in plan.removals:
        tree.unlink(path)
    for path in plan.directory_removals:
        tree.remove_directory(path)
    if plan.final != plan.union:
        save_manifest(tree, directory, namespace, plan.final)


def _lock_first(tree: Tree, directory: str) -> bool:
    """Lock the directory of manifests where it is yet to be made. Returns whether another first run was faster."""
    if tree.directory_entry(directory) is not None:
        return False
    tree.make_parents(f"{directory}/x")
    tree.lock(directory, timeout=_LOCK_TIMEOUT)
    return bool(tree.names(directory))


def _run(module: AnsibleModule, scratch: str) -> dict[str, Any]:
    params = module.params
    namespace, directory = params["namespace"], check_path(params["manifest_dir"], "manifest_dir")
    if not _NAMESPACE.match(namespace):
        raise ValueError(f"namespace {namespace!r} must be lower case letters, digits and _, beginning with a letter")
    wanted = parse_wanted(params)
    uids, gids = (
        read_ids([item.owner for item in wanted.items()], user_id),
        read_ids([item.group for item in wanted.items()], group_id),
    )
    not_checked = _missing_accounts(wanted, uids, gids)
    if not_checked and not module.check_mode:
        raise ValueError("; ".join(not_checked) + ": make the accounts first")
    with Tree() as tree:
        if not module.check_mode and tree.directory_entry(directory) is not None:
            tree.lock(directory, timeout=_LOCK_TIMEOUT)
        manifest = load_manifest(tree, directory, namespace)
        others = claims(tree, directory, namespace)
        tree.trust([item.path for item in wanted.directories])
        tree.trust(manifest.directories)
        current = _read(tree, wanted, manifest)
        plan = make_plan(
            wanted, current, manifest, others, namespace=namespace, uids=uids, gids=gids, prune=params["prune"]
        )
        errors, unchecked = _validate(plan, wanted, scratch)
        if errors:
            raise ValueError("; ".join(errors))
        missing = [reason for reason in unchecked if not reason.endswith("is not among the files")]
        if missing and not module.check_mode:
            raise ValueError("; ".join(missing) + ": install what is missing first")
        again = not module.check_mode and manifest != plan.union and _lock_first(tree, directory)
        if not module.check_mode and not again:
            _apply(tree, plan, manifest, directory, namespace)
    if again:
        return _run(module, tempfile.mkdtemp(dir=scratch))
    result = plan.result()
    result["not_checked"] = [*not_checked, *unchecked]
    result["diff"] = make_diff(plan)
    return result


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "namespace": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": _file_options("0644", secret=False),
            },
            "secret_files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": _file_options("0600", secret=True),
            },
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": _attributes("0755"),
            },
            "manifest_dir": {"type": "path", "default": "/var/lib/holdfast/file_tree"},
            "prune": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    with tempfile.TemporaryDirectory(dir=module.tmpdir, prefix="holdfast-") as scratch, told(module):
        result = _run(module, scratch)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
