#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: repository_info
short_description: State of a backup repository
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Tells whether a repository is there, can be opened, and what is in it.
  - A state is a result. The module fails only when it is asked for something impossible, such as a file that does not exist.
  - Never changes anything, takes no lock and waits for none. No secret is given on a command line or returned.
  - Opens the repository twice at most, once where O(record) tells its id, and what O(size) costs. Of a local repository with locks of restic it
    also reads the first four, which opens it once more for their list and once for each. What would cost more is null.
  - For borg, paths and bytes of an archive are null, since they would cost a synchronised cache.
attributes:
  check_mode:
    support: full
    description: Gives the same answer.
  diff_mode:
    support: N/A
    description: Nothing is changed.
  platform:
    support: full
    platforms: posix
    description: Needs a Linux host.
options:
  repository:
    description:
      - Location as the tool takes it. A local path must be absolute.
      - With O(keyless) a directory, of one repository or of many.
      - A location with a password in it belongs into O(repository_file).
    type: str
  repository_file:
    description: File that holds the location, credentials included.
    type: path
  engine:
    description: The tool. Keyless, all repositories of a directory are of this one.
    type: str
    choices: [restic, borg]
    default: restic
  password_file:
    description: File that holds the repository's password. Needed unless O(keyless).
    type: path
  environment_file:
    description: File with the backend's credentials as C(NAME=value) lines, quoted as in C(EnvironmentFile=) of systemd.
    type: path
  options:
    description: Extended options, restic's C(-o NAME=VALUE). They are visible in the process list, so no secrets.
    type: dict
    default: {}
  cacert:
    description: File with the certificates to trust instead of the system's.
    type: path
  proxy:
    description:
      - URL of the proxy by which restic reaches the repository, C(HTTP_PROXY) and C(HTTPS_PROXY); variables in O(environment_file) count
        more. Without credentials.
    type: str
  mount:
    description:
      - Directory that must be a mount point, the one of a local repository or above it.
      - If nothing is mounted there the state is V(unreachable), whatever the empty directory looks like.
    type: path
  record:
    description:
      - Record that M(holdfast.backup.repository) wrote. Its key is tried first, which also opens a repository in which
        somebody put junk into C(keys/).
      - If the record was made for the same location and password, the id is taken from it instead of asking again.
    type: path
  keyless:
    description:
      - Look at the files only. Needs neither password nor tool, runs where the files are, and takes milliseconds.
      - borg encrypts its list of archives, so without the key their number and times are null;
        RV(repository.modified) tells when the last transaction ended, which may also have been a deletion.
    type: bool
    default: false
  size:
    description:
      - Tell the size as well, and of a repository that is not local its locks and keys.
      - Of a local one, files are summed up. Of others restic opens it three times more, and C(restic stats) reads the directories of all snapshots, from
        the cache where O(cache_directory) has them; borg brings its cache in O(base_directory) up to date first.
      - What does not end within O(timeout) is null, and takes nothing else away.
    type: bool
    default: false
  cache_directory:
    description: Cache directory of restic. Without one no cache is used.
    type: path
  key_file:
    description: File with the key of a borg repository whose encryption is C(keyfile-blake2), as C(borg key export) prints it.
    type: path
  base_directory:
    description: Directory of borg's own state, C(BORG_BASE_DIR). By default C(/var/lib/holdfast/borg).
    type: path
  ssh_command:
    description: Command by which borg reaches a server, C(BORG_RSH).
    type: str
  user:
    description:
      - Account to run borg as, the one that a local repository belongs to. Its secret files are handed over in memory.
      - Without it, root opens a local repository through C(borg serve) as whom the directory belongs to, and keeps no state of it.
    type: str
  binary:
    description: The program, as a name or an absolute path. By default it is named like the engine.
    type: str
  timeout:
    description:
      - Seconds after which the repository counts as V(unreachable). A server that refuses is noticed sooner.
      - Not with O(keyless), which runs no program.
    type: int
    default: 30
seealso:
  - module: holdfast.backup.repository
"""

EXAMPLES = r"""
- name: Look at a repository
  holdfast.backup.repository_info:
    repository_file: /etc/holdfast/secrets/vault.repository
    password_file: /etc/holdfast/secrets/vault.password
    cacert: /etc/holdfast/repositories/vault.pem
    record: /var/lib/holdfast/repositories/vault.env
  register: vault

- name: Look at all repositories of a server, without any password
  holdfast.backup.repository_info:
    repository: /srv/restic
    keyless: true
  register: all_of_them
"""

RETURN = r"""
repository:
  description:
    - The repository. Every key is always there; null is what cannot be known.
    - Beside what is listed, C(keys) is the number of keys of a local repository, and of others with O(size). A template reads it as
      C(result.repository['keys']), because C(.keys) is a method of every dictionary.
  returned: always, except for a directory of many repositories
  type: dict
  contains:
    engine:
      description: The tool.
      type: str
      returned: always
      sample: restic
    location:
      description: Location without credentials.
      type: str
      returned: always
      sample: rest:https://vault1:8000/web1--vault/
    state:
      description:
        - V(absent), there is certainly no repository here.
        - V(present), it could be opened (keyless, its files are there).
        - V(locked), the tool said that a lock keeps it from reading. As no lock is taken or waited for, a repository that
          others have locked is normally V(present), with their locks in RV(repository.locks).
        - V(wrong_key), the password opens no key.
        - V(unreachable), it could not be asked; a server that refuses user or password (HTTP 401, 403) is among these.
        - V(damaged), something in it is missing or cannot be read.
      type: str
      returned: always
      sample: present
    reason:
      description: Why the state is not V(present), in words.
      type: str
      returned: always
    id:
      description: Id of the repository. Null when keyless, but for borg.
      type: str
      returned: always
    format_version:
      description: Format of the repository. For restic null when keyless, and when the id came from O(record).
      type: int
      returned: always
      sample: 2
    snapshots:
      description: The snapshots.
      type: dict
      returned: always
      contains:
        count:
          description: How many there are.
          type: int
          returned: always
        last:
          description: The newest. Keyless, the one written last, with the time it was written.
          type: dict
          returned: always
          contains:
            id:
              description: Id.
              type: str
              returned: always
            time:
              description: When it was made, in UTC.
              type: str
              returned: always
              sample: '2026-11-21T12:55:25Z'
            hostname:
              description: Host name in the snapshot.
              type: str
              returned: always
            paths:
              description: Paths in the snapshot.
              type: list
              elements: str
              returned: always
            username:
              description: Account that made it.
              type: str
              returned: always
            tags:
              description: Tags.
              type: list
              elements: str
              returned: always
            total_bytes_processed:
              description: Bytes that were read for it. Known for snapshots of restic 0.17 and later.
              type: int
              returned: always
    age_seconds:
      description: Age of the newest snapshot. Negative for one that claims to be made in the future.
      type: int
      returned: always
    locks:
      description:
        - Locks that lie in the repository, stale or not. Of a repository of restic that is not local, null unless O(size) is asked for, since each
          costs an opening. Of borg over SSH always null.
      type: list
      elements: dict
      returned: always
      contains:
        age_seconds:
          description: Seconds since the lock was written or refreshed. Null for a lock of a repository that is not local, if it was not read.
          type: int
          returned: always
        exclusive:
          description:
            - Whether it excludes others. restic encrypts it, so it is null when keyless, and for more than four locks.
          type: bool
          returned: always
        hostname:
          description: Host that holds it, as the tool names it. Null for the same reason.
          type: str
          returned: always
    size:
      description:
        - Bytes, if O(size) was asked for, of all files of a local repository. Of others, of the data that its snapshots refer to, which is less
          where something was forgotten and not pruned (C(restic stats --mode raw-data), or C(unique_csize) of C(borg info)).
      type: int
      returned: always
    modified:
      description: When borg last finished a transaction, in UTC. Null for restic.
      type: str
      returned: always
repositories:
  description: All repositories in a directory of many, at most two directories down, sorted by path. The same structure.
  returned: with O(keyless), when O(repository) is a directory of many repositories
  type: list
  elements: dict
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.backup.plugins.module_utils import _borg, _keyless, _keyless_borg, _record, _source
from ansible_collections.holdfast.backup.plugins.module_utils._borg import Borg
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree, UnsafePathError
from ansible_collections.holdfast.backup.plugins.module_utils._location import local_path, mount_problem, redact
from ansible_collections.holdfast.backup.plugins.module_utils._model import Repository
from ansible_collections.holdfast.backup.plugins.module_utils._outcome import UNREACHABLE
from ansible_collections.holdfast.backup.plugins.module_utils._restic import EngineError, Restic, find_binary

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "repository": {"type": "str"},
    "repository_file": {"type": "path"},
    "engine": {"type": "str", "choices": ["restic", "borg"], "default": "restic"},
    "password_file": {"type": "path", "no_log": False},
    "environment_file": {"type": "path"},
    "options": {"type": "dict", "default": {}},
    "cacert": {"type": "path"},
    "proxy": {"type": "str"},
    "mount": {"type": "path"},
    "record": {"type": "path"},
    "keyless": {"type": "bool", "default": False},
    "size": {"type": "bool", "default": False},
    "cache_directory": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "base_directory": {"type": "path"},
    "ssh_command": {"type": "str"},
    "user": {"type": "str"},
    "binary": {"type": "str"},
    "timeout": {"type": "int", "default": 30},
}


def keyless(options: dict[str, Any]) -> dict[str, Any]:
    """Return the result for a directory, read from its files. Raises ValueError."""
    location = options["repository"]
    path = local_path(location) if location else None
    if path is None:
        raise ValueError("repository: keyless reads files: give the directory of the repository, or of many of them")
    if options["mount"]:
        problem = mount_problem(options["mount"], path)
        if problem is not None:
            return {"repository": Repository(path, options["engine"], state=UNREACHABLE, reason=problem).to_dict()}
    files = _keyless_borg if options["engine"] == _borg.ENGINE else _keyless
    many = files.probe_all(path, size=options["size"])
    if many is not None:
        return {"repositories": [found.to_dict() for found in many]}
    return {"repository": files.probe(path, size=options["size"]).to_dict()}


def opened(options: dict[str, Any]) -> dict[str, Any]:
    """Return the result for a repository that is opened with its password. Raises ValueError, EngineError, UnsafePathError."""
    source = _source.load(options)
    if options["mount"]:
        problem = mount_problem(options["mount"], source.path)
        if problem is not None:
            unreachable = Repository(source.public_location, options["engine"], state=UNREACHABLE, reason=problem)
            return {"repository": unreachable.to_dict()}
    record, applies = None, False
    if options["record"]:
        with Tree() as tree:
            record, applies = _record.find(tree, options["record"], source)
    binary = find_binary(options["binary"] or options["engine"])
    if options["engine"] == _borg.ENGINE:
        borg = Borg(
            source,
            binary=binary,
            timeout=options["timeout"],
            base_directory=options["base_directory"] or _borg.BASE_DIRECTORY,
            rsh=options["ssh_command"],
            key=_borg.read_key(options["key_file"]) if options["key_file"] else None,
            user=options["user"],
        )
        recorded = record is not None and applies
        return {"repository": borg.inspect(recorded=recorded, size=options["size"], now=time.time()).to_dict()}
    restic = Restic(
        source,
        binary=binary,
        timeout=options["timeout"],
        options=options["options"],
        cache_directory=options["cache_directory"],
        key_hint=record.key if record else None,
        proxy=options["proxy"],
    )
    known = record.id if record is not None and applies else None
    return {"repository": restic.inspect(known_id=known, size=options["size"], now=time.time()).to_dict()}


def main() -> None:
    module = AnsibleModule(
        ARGUMENT_SPEC,
        supports_check_mode=True,
        mutually_exclusive=[("repository", "repository_file")],
        required_one_of=[("repository", "repository_file")],
    )
    options = dict(module.params)
    if options["repository"]:
        # What Ansible returns as the module's arguments.
        module.params["repository"] = redact(options["repository"])
    try:
        if options["timeout"] < 1:
            raise ValueError(f"timeout: {options['timeout']} is less than a second: give a positive number of seconds")
        result = keyless(options) if options["keyless"] else opened(options)
    except (ValueError, EngineError, UnsafePathError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
