#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rclone_remotes
short_description: Configuration files of rclone's remotes, written when each remote was listed with them
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Makes the files of all remotes of a server exactly what is declared, in one execution. Each is readable by root and one
    group only.
  - Before a new or changed file takes its place, its options are compared with those that the installed rclone has, and
    every place in use is listed with it, as an account that has a repository there. What cannot be listed is not
    written, and the message says which option to correct.
  - A digest of what was listed is kept on the host, so that a converged run lists nothing.
  - A file that an earlier run wrote is removed with its remote, also where another remote cannot be listed; its group stays. So is
    what a run left that was killed.
attributes:
  check_mode:
    support: full
    description: Lists nothing.
  diff_mode:
    support: full
    description: Says that a file would change, never its content.
  platform:
    support: full
    platforms: posix
    description: Needs a Linux host with C(setpriv) and C(groupadd), and runs as root.
options:
  remotes:
    description: The remotes.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the remote.
        type: str
        required: true
      type:
        description: rclone's type of the remote.
        type: str
        required: true
      config:
        description: Content of the file in base64, as P(holdfast.backup.rclone_files#filter) makes it.
        type: str
        required: true
      group:
        description: Group that may read the file. It is made if it is missing.
        type: str
        required: true
      accounts:
        description: Accounts with a repository there. The first that the host has lists it, C(nobody) where it has none yet.
        type: list
        elements: str
        default: []
      places:
        description: What is listed, paths on the remote that begin with the bucket where it has buckets. Empty lists the root.
        type: list
        elements: str
        default: []
  binary:
    description: The program rclone.
    type: path
    default: /usr/bin/rclone
  directory:
    description: Directory of the files, one C(<name>.conf) for each remote.
    type: path
    default: /etc/holdfast/rclone
  record:
    description: JSON file on the host that says which files are ours, and what was listed.
    type: path
    default: /var/lib/holdfast/rclone_remotes.json
  timeout:
    description: Seconds that listing one place may take.
    type: float
    default: 30
"""

EXAMPLES = r"""
- name: Write the remotes
  holdfast.backup.rclone_remotes:
    remotes: "{{ rclone_proxy_remotes | holdfast.backup.rclone_files(served) }}"
"""

RETURN = r"""
version:
  description: Version of rclone, null in check mode where it is not installed yet.
  returned: success
  type: str
  sample: 1.75.2
listed:
  description: Remotes that were listed, in check mode those that would be.
  returned: success
  type: list
  elements: str
  sample: [s3-offsite]
changed_files:
  description: Files that were written.
  returned: success
  type: list
  elements: str
removed:
  description: Files that were removed.
  returned: success
  type: list
  elements: str
groups_created:
  description: Groups that did not exist.
  returned: success
  type: list
  elements: str
not_checked:
  description: What only the real run can check.
  returned: success
  type: list
  elements: str
"""

import base64
import difflib
import hashlib
import os
import posixpath
import pwd
import re
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _floors, _rclone
from ..module_utils._files import Entry, Tree, UnsafePathError, check_path, group_id
from ..module_utils._run import PATH, Result, run

_NAME = re.compile(r"\A[a-z][a-z0-9-]{0,63}\Z")
_VERSION = re.compile(r"\Arclone v([0-9][0-9.]*)")
_MODE = 0o640
_DIRECTORY_MODE = 0o755
_NOBODY = 65534
_NO_GROUP = -1
_SECONDS = 30.0
# A store that refuses, refuses at once; nobody waits for rclone's own retries here.
_PATIENCE = ("--retries", "1", "--low-level-retries", "1", "--contimeout", "10s", "--timeout", "20s")


class _Remotes:
    """The remotes of one execution; plain functions would pass these around."""

    def __init__(self, module: AnsibleModule, tree: Tree) -> None:
        self.module = module
        self.tree = tree
        self.check = module.check_mode
        self.binary = check_path(module.params["binary"], "binary")
        self.directory = check_path(module.params["directory"], "directory")
        self.timeout = module.params["timeout"]
        self.not_checked: list[str] = []

    def version(self, remotes: list[dict[str, Any]]) -> str | None:
        """The version of rclone; ValueError where it is missing or below the floor of what it is to serve."""
        if shutil.which(self.binary, path=PATH) is None:
            if not self.check:
                raise ValueError(f"binary: {self.binary} is not on this host: let rclone_proxy_install install it")
            self.not_checked.append(f"{self.binary} is not installed yet, so nothing was compared with it")
            return None
        match = _VERSION.match(self._rclone(["version"], _SECONDS).stdout)
        if match is None:
            raise ValueError(f"binary: {self.binary} version does not say that it is rclone")
        floor = _floors.floor("rclone" if remotes else "rclone-directories")
        if _floors.below(floor.tool, match[1]):
            raise ValueError(
                f"binary: {self.binary} is version {match[1]}, below the floor {floor.minimum}: {floor.reason}. Set"
                " rclone_proxy_install: release with a later version"
            )
        return match[1]

    def path(self, name: str) -> str:
        """Where the file of a remote is."""
        return posixpath.join(self.directory, f"{name}.conf")

    def candidate(self, name: str) -> str:
        """Where the file of a remote is while it is listed."""
        return posixpath.join(self.directory, f".{name}.candidate")

    def _rclone(self, arguments: list[str], timeout: float, prefix: list[str] | None = None) -> Result:
        # Without the second, rclone makes the first.
        environment = {"HOME": "/nonexistent", "RCLONE_CONFIG": os.devnull}
        return run([*(prefix or []), self.binary, *arguments], timeout=timeout, environment=environment)

    def know_options(self, remotes: list[dict[str, Any]]) -> None:
        """ValueError for an option, or a type, that this rclone does not have."""
        providers = self._rclone(["config", "providers", "--config", os.devnull], _SECONDS).stdout
        for remote in remotes:
            where = f"rclone_proxy_remotes.{remote['name']}"
            found = _rclone.unknown_options(providers, remote["type"], _rclone.parse(remote["config"]))
            if found is None:
                raise ValueError(f"{where}.type = '{remote['type']}': the rclone of this host was built without it")
            for option in found[0]:
                near = ", ".join(difflib.get_close_matches(option, found[1])) or "see rclone's documentation"
                raise ValueError(f"{where}.{option}: is not an option of the rclone of this host. Is meant: {near}?")

    def list_places(self, remote: dict[str, Any], gid: int) -> None:
        """List every place of a remote with its new file, as the account that will; ValueError says why one cannot be."""
        options = _rclone.parse(remote["config"])
        uid, primary = self._account(remote["accounts"])
        drop = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
        prefix = ["setpriv", f"--reuid={uid}", f"--regid={primary}", f"--groups={gid}", *drop]
        candidate = self.candidate(remote["name"])
        self.tree.write(candidate, remote["config"].encode(), uid=0, gid=gid, mode=_MODE)
        try:
            for place in remote["places"] or [""]:
                # With a slash, so that it is never taken for a file.
                target = f"{remote['name']}:{place.rstrip('/') + '/' if place else ''}"
                arguments = ["lsf", "--max-depth", "1", "--config", candidate, *_PATIENCE, target]
                result = self._rclone(arguments, self.timeout, prefix)
                if result.code != 0 or result.timed_out:
                    cause = _rclone.cause(result.code, result.stderr, timed_out=result.timed_out)
                    option = f".{cause.option}" if cause.option else ""
                    said = _rclone.said(result.stderr, options) or f"no answer within {self.timeout:g} s"
                    raise ValueError(
                        f"rclone_proxy_remotes.{remote['name']}{option}: {target} cannot be listed: {cause.meaning}"
                        f" ({said}). {cause.cure}; its file was not changed"
                    )
        finally:
            self.tree.unlink(candidate)

    def _account(self, names: list[str]) -> tuple[int, int]:
        for name in names:
            try:
                found = pwd.getpwnam(name)
            except KeyError:
                continue
            return found.pw_uid, found.pw_gid
        return _NOBODY, _NOBODY


def _digest(remote: dict[str, Any], version: str | None) -> str:
    """What was listed: any change of it lists again. Only root can read where it is kept."""
    text = "\0".join([str(version), remote["config"], *remote["places"]])
    return hashlib.sha256(text.encode()).hexdigest()


def _decoded(remote: dict[str, Any]) -> dict[str, Any]:
    """A copy with the text of its file: what the module was called with is shown, with the values hidden that it came with."""
    try:
        return {**remote, "config": base64.b64decode(remote["config"], validate=True).decode()}
    except ValueError:
        raise ValueError(f"remotes: config of {remote['name']} is not text in base64") from None


def _checked(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    remotes = [_decoded(remote) for remote in given]
    names = [remote["name"] for remote in remotes]
    for remote in remotes:
        for key in ("name", "group"):
            if not _NAME.match(remote[key]):
                raise ValueError(f"remotes: {key} {remote[key]!r} must be lower case letters, digits and -")
        if f"\n[{remote['name']}]\n" not in remote["config"] or remote["config"].count("\n[") != 1:
            raise ValueError(f"remotes: config of {remote['name']} does not hold this remote alone")
        for place in remote["places"]:
            if any(part in (".", "..") for part in place.split("/")) or not place.isprintable():
                raise ValueError(f"remotes: place {place!r} of {remote['name']} is not a plain path")
    if len(names) != len(set(names)):
        raise ValueError("remotes: a name is given twice")
    return remotes


def _make_group(module: AnsibleModule, name: str) -> None:
    module.run_command(["groupadd", "--system", name], check_rc=True)
    if group_id(name) is None:
        raise ValueError(f"remotes: the group {name} was made, and is not there: look at /etc/group")


def _same(entry: Entry | None, content: bytes, gid: int) -> bool:
    return entry is not None and entry == Entry("file", 0, gid, _MODE, content)


def _run(module: AnsibleModule) -> dict[str, Any]:
    record_path = check_path(module.params["record"], "record")
    remotes = _checked(module.params["remotes"])
    with Tree() as tree:
        work = _Remotes(module, tree)
        before = (tree.read_json(record_path) or {}).get("remotes", {})
        version = work.version(remotes)
        digests = {remote["name"]: _digest(remote, version) for remote in remotes}
        to_list = [remote for remote in remotes if before.get(remote["name"]) != digests[remote["name"]]]
        if to_list and version is not None:
            work.know_options(to_list)
        missing = sorted({remote["group"] for remote in remotes if group_id(remote["group"]) is None})
        for group in [] if module.check_mode else missing:
            _make_group(module, group)
        groups = {remote["name"]: group_id(remote["group"]) for remote in remotes}
        gids = {name: _NO_GROUP if gid is None else gid for name, gid in groups.items()}
        wanted = {work.path(remote["name"]): (remote["config"].encode(), gids[remote["name"]]) for remote in remotes}
        ours = sorted({*digests, *filter(_NAME.match, before)})
        # A run that was killed leaves a candidate, or half a write: the secret, that is.
        gone = [work.path(name) for name in ours if name not in digests] + [work.candidate(name) for name in ours]
        halves = [each for name in ours for each in (work.path(name), work.candidate(name)) if tree.leftover(each)]
        entries = {path: tree.entry(path) for path in [*wanted, *gone]}
        changed = [
            path for path, (content, gid) in wanted.items() if entries[path] != Entry("file", 0, gid, _MODE, content)
        ]
        removed = [path for path in gone if entries[path] is not None]
        if module.check_mode:
            work.not_checked += [f"{remote['name']}: is listed by the real run only" for remote in to_list]
        else:
            # First: the secrets of a remote that nobody uses do not wait until another one answers.
            for path in removed:
                tree.unlink(path)
            for path in halves:
                tree.clean(path)
            # Before the first secret is written, so that whoever comes after a run that was killed knows where to look.
            if not set(digests) <= set(before):
                tree.write_json(
                    record_path, {"version": 1, "remotes": {**dict.fromkeys(digests, ""), **before}}, mode=0o600
                )
            for remote in to_list:
                tree.make_parents(work.path(remote["name"]))
                work.list_places(remote, gids[remote["name"]])
            for path in changed:
                content, gid = wanted[path]
                tree.make_parents(path)
                tree.write(path, content, uid=0, gid=gid, mode=_MODE)
            if digests != before:
                tree.write_json(record_path, {"version": 1, "remotes": digests}, mode=0o600)
    return {
        "changed": bool(changed or removed or halves or missing or digests != before),
        "version": version,
        "listed": [remote["name"] for remote in to_list],
        "changed_files": changed,
        "removed": removed,
        "groups_created": missing,
        "not_checked": work.not_checked,
        "diff": [
            {
                "before_header": path,
                "after_header": path,
                "before": _describe(entries[path]),
                "after": f"file 0:{wanted[path][1]} mode {_MODE:04o}, content not shown\n" if path in wanted else "",
            }
            for path in [*changed, *removed]
        ],
    }


def _describe(entry: Entry | None) -> str:
    return (
        ""
        if entry is None
        else f"{entry.kind} {entry.uid}:{entry.gid} mode {entry.mode:04o}, content as it was not shown\n"
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "remotes": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "type": {"type": "str", "required": True},
                    "config": {"type": "str", "required": True, "no_log": True},
                    "group": {"type": "str", "required": True},
                    "accounts": {"type": "list", "elements": "str", "default": []},
                    "places": {"type": "list", "elements": "str", "default": []},
                },
            },
            "binary": {"type": "path", "default": "/usr/bin/rclone"},
            "directory": {"type": "path", "default": "/etc/holdfast/rclone"},
            "record": {"type": "path", "default": "/var/lib/holdfast/rclone_remotes.json"},
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        result = _run(module)
    except (ValueError, UnsafePathError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'writing'}: {error.strerror}: mend this and run again")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
