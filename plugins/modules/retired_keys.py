#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: retired_keys
short_description: Take retired keys of restic out of repositories that their clients cannot delete in
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Removes exactly C(keys/<old>) of each repository, and only where C(keys/<new>) is there.
  - Which key is the old one is the word of a client, which may be in anybody's hands and name the only key that opens its
    backups. So a key is moved to O(directory), which only root can read, and brought back by copying it to C(keys/). The old
    password, which is in an older escrow bundle, opens it.
extends_documentation_fragment: [holdfast.backup.attributes.host]
attributes:
  check_mode:
    support: full
    description: A key that is born in the real run is said to be removed.
  diff_mode:
    support: full
    description: Shows which keys go.
options:
  keys:
    description: What to remove.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the repository on this server, C(<backup_id>--<repository>).
        type: str
        required: true
      path:
        description: Directory of the repository. Exactly one of this and O(keys[].remote) is needed.
        type: path
      remote:
        description: Where the repository is in a store, as rclone takes it.
        type: str
      config:
        description: Configuration file of the remote.
        type: path
      account:
        description: Account that serves the repository in a store, which rclone runs as.
        type: str
      old:
        description: Id of the key that goes, 64 hexadecimal digits.
        type: str
        required: true
      new:
        description: Id of the key that stays, and must be there.
        type: str
        required: true
  directory:
    description: Where the keys are kept, in a directory for each repository.
    type: path
    default: /var/lib/holdfast/retired_keys
  binary:
    description: rclone.
    type: path
    default: /usr/bin/rclone
  timeout:
    description: Seconds that each call of rclone may take.
    type: int
    default: 60
seealso:
  - module: holdfast.backup.repository_password
"""

EXAMPLES = r"""
- name: Take an old key out of a repository
  holdfast.backup.retired_keys:
    keys:
      - name: web1--vault
        path: /srv/holdfast/web1--vault
        old: f99046b4cb122f1dfac0090bceaad3451c2662913048cf94c55c238d89468c30
        new: 1457e4972f798842265a05608b34a59d27b5ee6827197f14b6c8f10b3894edbd
"""

RETURN = r"""
removed:
  description: Repositories whose key was taken out.
  returned: success
  type: list
  elements: str
  sample: [web1--vault]
absent:
  description: Repositories whose old key was not there any more.
  returned: success
  type: list
  elements: str
  sample: []
refused:
  description: Why a key stays, by repository.
  returned: success
  type: dict
  sample: {}
"""

import hashlib
import os
import posixpath
import re
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.backup.plugins.module_utils import _rclone, _run
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError
from ansible_collections.holdfast.backup.plugins.module_utils._rotate import KEY
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN

# More than any key of restic has.
_KEY_BYTES = 65536
_NAME = re.compile(r"\A[a-z][a-z0-9-]{0,27}--[a-z][a-z0-9-]{0,27}\Z")
_PATIENCE = ["--retries", "1", "--low-level-retries", "2", "--contimeout", "10s"]


class RefusedError(Exception):
    """A key has to stay; the message says why."""


class _Directory:
    """The keys of a repository in a directory, which belongs to the account that serves it."""

    def __init__(self, tree: Tree, path: str) -> None:
        self._tree = tree
        self._keys = posixpath.join(path, "keys")
        # What lies below belongs to that account. A link is followed nowhere.
        tree.trust([posixpath.dirname(path), path, self._keys])

    def has(self, key: str) -> bool:
        """Whether there is such a file."""
        return self._size(key) is not None

    def read(self, key: str) -> bytes:
        """The file."""
        if (self._size(key) or 0) > _KEY_BYTES:
            raise RefusedError(f"keys/{key} is too large for a key")
        entry = self._tree.entry(posixpath.join(self._keys, key))
        return b"" if entry is None else entry.content

    def remove(self, key: str) -> None:
        """Remove the file."""
        self._tree.unlink(posixpath.join(self._keys, key))

    def _size(self, key: str) -> int | None:
        try:
            info = os.lstat(key, dir_fd=self._tree.directory(self._keys))
        except FileNotFoundError:
            return None
        return info.st_size if stat.S_ISREG(info.st_mode) else None


class _Store:
    """The keys of a repository in a store, through rclone as the account that serves it."""

    def __init__(self, options: dict[str, Any], binary: str, timeout: float) -> None:
        self._options = options
        self._binary = binary
        self._timeout = timeout
        listed = self._rclone("lsf", "--files-only", "")
        self._names = frozenset(listed.splitlines())

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        return key in self._names

    def read(self, key: str) -> bytes:
        """The object."""
        return self._rclone("cat", "--count", str(_KEY_BYTES), key).encode("utf-8")

    def remove(self, key: str) -> None:
        """Remove the object. A store that lets the proxy delete nothing keeps it, and somebody who may has to."""
        try:
            self._rclone("deletefile", key)
        except RefusedError as error:
            place = f"{self._options['remote'].rstrip('/')}/keys/{key}"
            raise RefusedError(
                f"{place} cannot be removed with this server's credentials, so somebody who may has to remove that file: {error}"
            ) from None

    def _rclone(self, *arguments: str) -> str:
        *command, key = arguments
        config = self._options["config"]
        target = f"{self._options['remote'].rstrip('/')}/keys/{key}"
        result = _run.run(
            [self._binary, *command, "--config", config, *_PATIENCE, target],
            # Without the second, rclone makes the first.
            environment={"HOME": "/nonexistent", "RCLONE_CONFIG": os.devnull},
            user=self._options["account"],
            timeout=self._timeout,
        )
        if result.code != 0 or result.timed_out:
            with open(config, encoding="utf-8") as file:
                secrets = _rclone.parse(file.read())
            why = _rclone.said(result.stderr, secrets) or f"no answer within {self._timeout:g} s"
            raise RefusedError(f"rclone {command[0]}: {why}")
        return result.stdout


def _retire(tree: Tree, options: dict[str, Any], params: dict[str, Any], check_mode: bool) -> bool:
    """Move one key; whether it was there. Raises RefusedError, UnsafePathError, OSError."""
    # The word of a client.
    for option in ("old", "new"):
        if not KEY.match(options[option]) and not (check_mode and options[option] == UNBORN):
            raise RefusedError(f"{option}: {options[option][:80]!r} is not 64 hexadecimal digits")
    if options["old"] == options["new"] != UNBORN:
        raise RefusedError("old: it is the key that is to stay")
    if UNBORN in (options["old"], options["new"]):
        return True
    keys: _Directory | _Store
    if options["path"]:
        keys = _Directory(tree, options["path"])
    else:
        keys = _Store(options, params["binary"], params["timeout"])
    if not keys.has(options["old"]):
        return False
    if not keys.has(options["new"]):
        raise RefusedError(f"keys/{options['new']}, which is to stay, is not there")
    content = keys.read(options["old"])
    if hashlib.sha256(content).hexdigest() != options["old"]:
        raise RefusedError(f"keys/{options['old']} is damaged: it is not what it is named after")
    if not check_mode:
        kept = posixpath.join(params["directory"], options["name"], options["old"])
        tree.make_parents(params["directory"])
        for directory in (params["directory"], posixpath.dirname(kept)):
            tree.make_directory(directory, uid=0, gid=0, mode=0o700)
        tree.write(kept, content, uid=0, gid=0, mode=0o400)
        keys.remove(options["old"])
    return True


def _check(keys: list[dict[str, Any]]) -> None:
    for options in keys:
        name = options["name"]
        if not _NAME.match(name):
            raise ValueError(f"keys: name {name!r} is not <backup_id>--<repository>")
        if bool(options["path"]) == bool(options["remote"]):
            raise ValueError(f"keys[{name}].path: give exactly one of path and remote")
        if options["path"] and options["path"] != posixpath.normpath(options["path"]):
            raise ValueError(f"keys[{name}].path: {options['path']!r} is not in its short form")
        if options["remote"] and not (options["config"] and options["account"]):
            raise ValueError(f"keys[{name}].remote: config and account go with it")


def _work(module: AnsibleModule) -> dict[str, Any]:
    _check(module.params["keys"])
    removed: list[str] = []
    absent: list[str] = []
    refused: dict[str, str] = {}
    seen: set[str] = set()
    with Tree() as tree:
        for options in module.params["keys"]:
            try:
                if options["name"] in seen:
                    raise RefusedError("it names more than one key, and one is taken away at a time")
                seen.add(options["name"])
                found = _retire(tree, options, module.params, module.check_mode)
            except (RefusedError, UnsafePathError, OSError, ValueError) as error:
                # What one client said must not keep the others' keys.
                refused[options["name"]] = str(error)
                continue
            (removed if found else absent).append(options["name"])
    return {
        "changed": bool(removed),
        "removed": removed,
        "absent": absent,
        "refused": refused,
        "diff": {
            "before_header": "keys",
            "after_header": "keys",
            "before": "".join(
                f"{key['name']}: {key['old']}\n" for key in module.params["keys"] if key["name"] in removed
            ),
            "after": "",
        },
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "keys": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": False,
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "path"},
                    "remote": {"type": "str"},
                    "config": {"type": "path"},
                    "account": {"type": "str"},
                    "old": {"type": "str", "required": True},
                    "new": {"type": "str", "required": True},
                },
            },
            "directory": {"type": "path", "default": "/var/lib/holdfast/retired_keys"},
            "binary": {"type": "path", "default": "/usr/bin/rclone"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        result = _work(module)
    except ValueError as error:
        module.fail_json(msg=str(error))
    for name, why in result["refused"].items():
        module.warn(f"the old key of {name} stays: {why}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
